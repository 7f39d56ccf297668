"""`jsws data`: fetch, list, check, adopt and draw data sets."""

import json
from dataclasses import asdict
from pathlib import Path

import typer

from data_utils.errors import JswsError
from jsws_lib.cli.options import Data, Json, command, say
from jsws_lib.config import PROFILES, get_profile

app = typer.Typer(no_args_is_help=True, help="Make or inspect data sets.")


@command(app, "download")
def download_sets(names: list[str], *, data: Data = None, from_: Path | None = None):
    """Fetch real data sets: resumed, verified, unpacked where the profiles look.

    Args:
        names: data sets; see `jsws data list`.
        from_: an archive that was fetched already, or the folder that holds it.
    """
    from data_utils.real.download import download, sources

    known, root = sources(), get_profile("paper", data=data).data
    for name in names:
        if name not in known:
            raise JswsError(f"unknown data set '{name}'; choose from {', '.join(known)}")
    if (root / "mini.json").is_file():
        raise JswsError(f"{root} holds the embedded drawings; name another --data")
    failed = []
    for name in names:
        one = known[name]
        say(f"{name}: {one.title}\n  licence: {one.licence}\n  cite: {one.cite}")
        try:
            new = download(one, root, given=from_)
            say(f"  {'is now' if new else 'is there already'}: {root}")
        except JswsError as error:
            failed.append(name)
            say(f"  FAIL: {error}")
    if failed:
        raise JswsError(
            f"not fetched: {', '.join(failed)}, for the reasons above; the "
            "same command goes on from what has come"
        )


@command(app, "list")
def list_sets(*, data: Data = None):
    """List the data sets that can be fetched, and what of them is there."""
    from data_utils.real.download import missing, sources

    root = get_profile("paper", data=data).data
    for one in sources().values():
        state = "; ".join(missing(one, root)) or "here"
        say(f"{one.name:<10} {one.gigabytes:>4} GB  {one.title}: {state}")
    say(f"real data sets, looked for under {root}")


@command(app, "check")
def check_sets(*, data: Data = None, json_: Json = False):
    """Read every file under the data root: whole, paired, and as published?"""
    from data_utils.real.check import check

    p = get_profile("paper", data=data)
    verdicts = check(p.data)
    if json_:
        say(json.dumps([{**asdict(v), "state": v.state} for v in verdicts]))
    else:
        say("\n".join(line for v in verdicts for line in v.words()))
        found = {v.name.split()[0] for v in verdicts}
        if absent := [x for x in ("VOC2012", "DUTS-TR", "ECSSD") if x not in found]:
            say(
                f"not under {p.data}: {', '.join(absent)}, which the profiles train "
                "or measure on"
            )
    raise typer.Exit(any(v.state == "FAIL" for v in verdicts))


@command(app, "adopt")
def adopt_pictures(
    pictures: Path,
    labels: Path,
    *,
    out: Path,
    saliency_masks: Path | None = None,
    saliency_images: Path | None = None,
    class_masks: Path | None = None,
):
    """Take over your own pictures, labels and saliency masks, with categories of your own.

    Every file is opened and checked, and linked or copied into the layout that all other
    commands read. 1 to 254 categories.

    Args:
        pictures: folder of your pictures.
        labels: CSV table with the header `file,labels`, names separated by `;`.
        out: data root to make; give it to --data afterwards.
        saliency_masks: folder of saliency masks, named as their pictures; without them
            only --labels-only can be trained.
        saliency_images: folder of the pictures of these masks; default: yours. Those that
            have a class mask among yours are left out.
        class_masks: folder of indexed PNGs, k for the k-th category; pictures that have
            one are only measured on.
    """
    from data_utils.real.adopt import adopt

    masks = {"saliency_masks": saliency_masks, "class_masks": class_masks}
    made = adopt(pictures, labels, out, saliency_images=saliency_images, **masks)
    say(
        f"{out}: {made.train:,} pictures to train on, {made.val:,} to measure on; "
        f"saliency masks: {made.saliency:,} and {made.saliency_test:,}"
    )
    if made.left_out:
        say(f"saliency pictures left out, for they are only measured on: {made.left_out:,}")
    for k, (name, count) in enumerate(made.categories.items(), 1):
        say(f"{k:>4} {name}: {count:,}")


@command(app, "make-mini")
def draw_mini(root: Path = PROFILES["mini"].data):
    """Draw the embedded data: VOC, DUTS and ECSSD layouts from OpenMoji drawings.

    2,000 + 400 images of the 20 categories, 2,000 + 400 of the saliency sets. Nothing
    is done when the folder already holds them.

    Args:
        root: folder to make.
    """
    from data_utils.embedded.mini import make_mini

    say(f"embedded data in {make_mini(root)}")
