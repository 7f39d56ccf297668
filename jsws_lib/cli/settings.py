"""The settings on the command line: `--set FIELD=VALUE`, and the list of all fields."""

import sys
from collections.abc import Sequence
from dataclasses import Field, fields, replace
from pathlib import Path

from data_utils.errors import JswsError
from data_utils.fields import allowed, kind_of
from jsws_lib.config import (
    PROFILES,
    RECIPES,
    ROOT,
    Profile,
    Recipe,
    Schedule,
    get_profile,
    get_recipe,
)

# Every field but the names, which say what was changed, and the schedules, whose own
# fields stand for them.
FIELDS: dict[str, tuple[type, Field]] = {
    one.name: (owner, one)
    for owner in (Profile, Schedule, Recipe)
    for one in fields(owner)
    if one.name not in ("name", "schedules")
}
TRUTH = {"true": True, "false": False}
AUTO = "accumulate=auto"  # known only here: what fits depends on the machine


def _read(text: str) -> tuple[str, list]:
    """The field of `FIELD=VALUE`, and its value, or two where a comma stands between."""
    name, sign, value = text.partition("=")
    if not sign or name not in FIELDS:
        raise JswsError(
            f"'{text}' is no FIELD=VALUE of a setting; the fields are {', '.join(FIELDS)}"
        )
    owner, one = FIELDS[name]
    kind, pair, optional = kind_of(one)
    if optional and value.lower() == "none":
        return name, [None]
    parts = value.split(",") if pair or owner is Schedule else [value]
    read = TRUTH.__getitem__ if kind is bool else kind
    try:
        values = [read(part.lower() if kind is bool else part) for part in parts]
    except (KeyError, ValueError):
        values = []
    if len(values) not in (1, 2):
        raise JswsError(f"{name} is '{value}'; give {allowed(one)}")
    return name, values


def configured(
    profile: str, recipe: str, changes: Sequence[str], *, stage: int | None = None
) -> tuple[Profile, Recipe]:
    """A named profile and recipe with some fields changed.

    Args:
        profile, recipe: their names; "" for the defaults.
        changes: each `FIELD=VALUE`, for instance `class_evidence=odds`. What each stage
            has its own of, steps and schedules, takes one value or two: `steps=300,150`.
        stage: whose entry of such a pair a single value is for; default both.

    Raises:
        JswsError: no such profile, recipe or field, or a value that it does not take.
    """
    asked = {Profile: {}, Schedule: {}, Recipe: {}}
    for name, values in (_read(text) for text in changes if text != AUTO):
        asked[FIELDS[name][0]][name] = values

    def by_stage(old: Sequence, values: list) -> tuple:
        if len(values) == 2:
            return tuple(values)
        return tuple(values[0] if stage in (None, k) else old[k - 1] for k in (1, 2))

    of_profile = {name: values[0] for name, values in asked[Profile].items()}
    if "steps" in of_profile:
        of_profile["steps"] = by_stage(get_profile(profile).steps, asked[Profile]["steps"])
    if "backbone" in of_profile:
        from jsws_lib.backbones import BACKBONES  # brings PyTorch

        if of_profile["backbone"] not in BACKBONES:
            names = ", ".join(BACKBONES)
            raise JswsError(f"backbone is '{of_profile['backbone']}'; give one of {names}")
    if of_profile.get("weights", "default") != "default":
        file = Path(of_profile["weights"])
        if not file.is_file():
            raise JswsError(f"weights is '{file}', which is no file; give one, or default")
        of_profile["weights"] = str(file.resolve())
    p = get_profile(profile, **of_profile)
    r = get_recipe(recipe, **{name: value for name, (value, *_) in asked[Recipe].items()})
    owner = r if r.schedules else p  # a recipe's schedules stand above the profile's
    for name, values in asked[Schedule].items():
        if kind_of(FIELDS[name][1])[1]:
            values = [tuple(values)]
        new = by_stage([getattr(one, name) for one in owner.schedules], values)
        pairs = zip(owner.schedules, new, strict=True)
        schedules = tuple(replace(one, **{name: value}) for one, value in pairs)
        owner = replace(owner, schedules=schedules)
    p, r = (p, owner) if r.schedules else (owner, r)
    return _in_parts(p, r) if AUTO in changes else p, r


def _in_parts(p: Profile, r: Recipe) -> Profile:
    """The profile with a batch in as few parts as fit into the memory."""
    from jsws_lib.experiments.memory import parts_that_fit

    # The same for both stages: stage 2 looks for the run of its teacher.
    parts = max(parts_that_fit(stage, p, r) for stage in (1, 2))
    print(f"a batch goes through the network in {parts} part(s)", file=sys.stderr)
    return replace(p, accumulate=parts)


def table() -> list[list[str]]:
    """Every field, below a heading: whose it is, its values, what it takes and means."""
    rows = [["field", "of", "default", "elsewhere", "takes", "meaning"]]
    for name, (owner, one) in FIELDS.items():
        named = {Profile: PROFILES, Recipe: RECIPES}.get(owner, RECIPES | PROFILES)
        default, elsewhere = _word(one.default), []
        for key, config in named.items():
            parts = (config.schedules or ()) if owner is Schedule else [config]
            words = _word(tuple(getattr(part, name) for part in parts))
            if parts and words != default:
                elsewhere.append(f"{key}: {words}")
        row = [name, owner.__name__.lower(), default, "; ".join(elsewhere)]
        rows.append([*row, allowed(one), one.metadata["meaning"]])
    return rows


def _word(value) -> str:
    """A value as `--set` reads it; of a pair that agrees, one."""
    if isinstance(value, tuple):
        return ",".join(dict.fromkeys(map(_word, value)))
    if isinstance(value, Path):
        return value.relative_to(ROOT).as_posix()
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
