"""Settings: each says what it takes, wherever it is set; options stand for some of them."""

import re
from dataclasses import fields, replace

import pytest

from data_utils.errors import JswsError
from jsws_lib.cli import settings
from jsws_lib.cli.options import Asked, AskedTraining
from jsws_lib.cli.settings import FIELDS, configured
from jsws_lib.config import (
    JSWS2020,
    PROFILES,
    STEADY,
    Profile,
    Recipe,
    Schedule,
    get_recipe,
)
from jsws_lib.engine.runs import Run
from jsws_lib.experiments import memory

MINI = PROFILES["mini"]
REFUSED = {
    "crf=nope": "crf is 'nope'; give one of readme, seam, irn, deeplab, oaa",
    "sam_rate=-1": "sam_rate is -1.0; give a number in (0, inf), or none",
    "sam_init_std=nan": "sam_init_std is nan; give a number in [0, inf), or none",
    "rotate=-5": "rotate is -5.0; give a number in [0, 180]",
    "rotate=far": "rotate is 'far'; give a number in [0, 180]",
    "rotate=1,2": "rotate is '1,2'; give a number in [0, 180]",
    "stage1_stride=12": "stage1_stride is 12; give one of 8, 16",
    "skips=maybe": "skips is 'maybe'; give true or false",
    "size=100": "size is 100; give 8, 16, ..., 4096",
    "steps=0": "steps is (0, 0); give two, each a whole number in [1, 1e9]",
    "steps=1,2,3": "steps is '1,2,3'; give two, each a whole number in [1, 1e9]",
    "accumulate=0.5": "accumulate is '0.5'; give a whole number in [1, 65536]",
    "betas=0.9": "betas is (0.9,); give two, each a number in [0, 1)",
    "backbone=resnet": "backbone is 'resnet'; give one of densenet169, vgg16",
    "weights=none.pth": "weights is 'none.pth', which is no file",
    "colour=red": "'colour=red' is no FIELD=VALUE of a setting; the fields are backbone",
    "rotate": "'rotate' is no FIELD=VALUE",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_a_field_does_not_take_is_refused(text):
    with pytest.raises(JswsError) as refused:
        configured("mini", "", [text])
    assert str(refused.value).startswith(REFUSED[text])


def test_programs_are_refused_the_same():
    for change, words in (
        ({"rotate": -5}, "rotate is -5;"),
        ({"skips": 1}, "skips is 1; give true or false"),
        ({"schedules": (Schedule(), 1)}, "give two, each a Schedule, or none"),
    ):
        with pytest.raises(JswsError, match=words):
            get_recipe(**change)
        with pytest.raises(JswsError, match=words):
            replace(STEADY, **change)
    with pytest.raises(JswsError, match="batch_class is True; give a whole number"):
        replace(MINI, batch_class=True)


def test_set_changes_profile_recipe_and_schedule():
    texts = "class_evidence=odds sam_rate=none skips=True cache=none steps=7 lr=0.5".split()
    p, r = configured("mini", "", texts, stage=2)
    one, two = MINI.schedules
    schedules = (one, replace(two, lr=0.5))
    assert p == replace(MINI, cache="none", steps=(1200, 7), schedules=schedules)
    name = "steady+class_evidence=odds+sam_rate=None+skips=True"
    changed = {"class_evidence": "odds", "sam_rate": None, "skips": True}
    assert r == replace(STEADY, name=name, **changed)
    p, _ = configured("mini", "", ["steps=3,4", "every=9", "betas=0.5,0.6"])
    assert p.steps == (3, 4)
    assert {(s.every, s.betas) for s in p.schedules} == {(9, (0.5, 0.6))}


@pytest.mark.parametrize("stage", [1, 2])
def test_a_rate_reaches_a_recipe_with_its_own_schedules(stage):
    p, r = configured("mini", "jsws2020", ["lr=0.5"], stage=stage)
    rates = [schedule.lr for schedule in JSWS2020.schedules]
    rates[stage - 1] = 0.5
    assert [schedule.lr for schedule in r.schedules] == rates
    assert p == MINI  # else stage 1 would count as another run


def test_options_stand_for_settings(tmp_path):
    asked = AskedTraining(
        profile="mini",
        data=tmp_path,
        recipe="paper",
        backbone="vgg16",
        size=64,
        steps="7",
        batch=3,
        set_=["size=72", "crf=oaa"],  # above the option
    )
    p, r = asked.settings(stage=1)
    changes = {"data": tmp_path, "cache": "none", "backbone": "vgg16", "size": 72}
    changes |= {"steps": (7, 500), "batch_class": 3, "batch_saliency": 3}
    assert p == replace(MINI, **changes)
    assert r == get_recipe("paper", crf="oaa")
    assert Asked().settings()[1] == STEADY


def test_a_file_of_weights_is_the_same_from_any_folder(tmp_path, monkeypatch):
    (tmp_path / "mine.pth").touch()
    monkeypatch.chdir(tmp_path)
    p, _ = configured("mini", "", ["weights=mine.pth"])
    assert p.weights == str(tmp_path / "mine.pth")


def test_as_few_parts_as_fit(monkeypatch, capsys):
    monkeypatch.setattr(memory, "parts_that_fit", lambda stage, p, r: 2 * stage)
    p, _ = configured("mini", "", ["accumulate=auto"])
    assert p == replace(MINI, accumulate=4) and "4 part(s)" in capsys.readouterr().err


def test_stage_1_is_the_same_run_whatever_only_stage_2_sees():
    plain, other = STEADY, get_recipe(crf="oaa", rotate=5.0)
    assert Run("M", MINI, get_recipe(crf="oaa")).name == Run("M", MINI, plain).name
    assert Run("MM", MINI, get_recipe(crf="oaa")).name != Run("MM", MINI, plain).name
    assert Run("M", MINI, other).name == Run("M", MINI, get_recipe(rotate=5.0)).name


# --- the list of all -----------------------------------------------------------------


def test_every_field_is_listed_with_meaning_and_values(jsws):
    head, *rows = settings.table()
    rows = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    listed = [one for owner in (Profile, Recipe, Schedule) for one in fields(owner)]
    listed = [one for one in listed if one.name not in ("name", "schedules")]
    assert len(listed) == len(rows) == len(FIELDS)  # none has the name of another
    assert all(one.metadata["meaning"] == rows[one.name]["meaning"] for one in listed)
    size, elsewhere = rows["size"], {name: row["elsewhere"] for name, row in rows.items()}
    assert (size["default"], size["elsewhere"]) == ("256", "mini: 96; laptop: 128")
    assert "paper: none" in elsewhere["sam_rate"]
    assert "mini: 0.004,0.002" in elsewhere["lr"]
    text = jsws("settings").out
    assert all(re.search(rf"^{name} ", text, re.M) for name in rows)


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_what_is_listed_can_be_set(name):
    """Every value of a profile, as the list has it, gives that profile again."""
    texts = []
    for field, of, default, elsewhere, *_ in settings.table()[1:]:
        if of != "recipe" and field not in ("data", "betas"):
            own = dict(part.split(": ") for part in elsewhere.split("; ") if part)
            texts.append(f"{field}={own.get(name, default)}")
    p, _ = configured("paper", "", texts)
    assert replace(p, name=name, data=PROFILES[name].data) == PROFILES[name]


def test_the_page_lists_every_environment_variable(root):
    page = (root / "docs/settings.md").read_text(encoding="utf-8")
    places = [root / "Makefile"]
    for top in ("data_utils", "jsws_lib", "tools", "tests"):
        places += (root / top).rglob("*.py")
    places += (root / "notebooks").rglob("*.ipynb")
    used = {
        name
        for path in places
        for name in re.findall(r"\bJSWS_[A-Z]+\b", path.read_text(encoding="utf-8"))
    }
    assert used == set(re.findall(r"^\| `(JSWS_[A-Z]+)`", page, re.M))
