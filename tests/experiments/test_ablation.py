"""The ablation: its plan, its file, taking it up again, and the paper's claim in small."""

import importlib.metadata
import json
import math
import re
import shutil
from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from data_utils.embedded.mini import (
    drawn_scenes,
    image_id,
    make_mini,
    render,
    render_training_mask,
    roles,
)
from data_utils.errors import JswsError
from data_utils.voc import VOC_CLASSES, read_ids, write_palette_png
from jsws_lib.cli.experiments import _seed_list
from jsws_lib.config import PROFILES, SETTINGS, STEADY, Recipe
from jsws_lib.engine import runs
from jsws_lib.engine.checkpoints import read_weights
from jsws_lib.experiments import ablation, dry_run, results
from jsws_lib.experiments.ablation import (
    Run,
    ablate,
    label_quality,
    mean_sd,
    measured,
    plan,
)
from jsws_lib.experiments.dry_run import check_data, describe_plan
from jsws_lib.experiments.studies import one_change
from jsws_lib.experiments.studies.one_change import TRIALS, study, trial_rows
from jsws_lib.training import training_sets

DEFAULT = Recipe()


@pytest.fixture
def quick(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("JSWS_RUNS", str(tmp_path / "runs"))
    return replace(tiny, steps=(2, 2))


@pytest.fixture
def ablated(quick, tmp_path):
    """A function: the result of an ablation of seed 0 and some settings."""

    def ablated(*settings, **how):
        how = {"recipe": DEFAULT, "seeds": (0,), "jobs": 1, "profile": quick} | how
        file = ablate(settings=settings, out=tmp_path / "a.json", **how)
        return json.loads(file.read_text())

    return ablated


def planned(profile, *settings):
    """The rows of seed 0 by name."""
    return {row.name: row for row in plan(profile, DEFAULT, seeds=(0,), settings=settings)}


def test_the_plan_holds_every_run_once_and_teachers_first(tiny):
    found = plan(tiny, DEFAULT, seeds=(0, 3))
    assert len(found) == len(set(found)) == 2 * (9 + len(ablation.CONTRASTS))
    assert [run.wave for run in found] == sorted(run.wave for run in found)
    later = {"SS", "MS", "MM", "SS_cam", "full", "2S_from_M"}
    assert {r.name for r in found if r.wave} == later
    assert {r.name for r in found if r.teaches} == {"S", "M"}
    assert not any(r.teaches for r in plan(tiny, DEFAULT, settings=["S", "M"]))
    assert [*planned(tiny, "MM")] == ["M", "M_odds", "M_nll_probs", "MM"]
    photographs = replace(tiny, data=tiny.data / "ECSSD")
    assert len(planned(photographs, *SETTINGS)) == 6


# Which rows have a figure: networks that saw categories, or saliency masks, or both.
HAVE = {
    "miou": "S M SS MS MM S_cam SS_cam full M_odds M_nll_probs S_odds S_mean_probs",
    "max_f": "M MM 2S M_no_sam MM_no_sam 2S_from_M M_odds M_nll_probs",
    "mae_crf": "M MM 2S 2S_from_M M_odds M_nll_probs",
    "v_gap": "M MM M_odds M_nll_probs",
    "threshold": "S_cam",
    "miou_cam": "S_odds S_mean_probs",
    "max_f_no_sam": "M_odds M_nll_probs",
}


def test_one_file_with_lists_by_seed(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "shipped", None)  # nothing that is shipped is taken
    out = tmp_path / "deep" / "result.json"
    assert ablate(profile=quick, recipe=DEFAULT, seeds=(0, 1), jobs=1, out=out) == out
    result = json.loads(out.read_text())
    assert result["seeds"] == [0, 1] and result["profile"] == "tiny"
    started = "jsws ablate --profile tiny --recipe steady --seeds 0,1 --settings S,M,"
    assert result["command"].startswith(started)
    for name, one in result["pseudo_labels"].items():
        assert one["images"] == [24, 24] and all(0 < x < 1 for x in one["miou"]), name
    table = results.ablation_table(result)
    assert "Pseudo labels on training images" in table
    assert all(results.ROWS[name] in table for name in ablation.TABLE)
    assert list(result["settings"]) == list(ablation.TABLE)
    assert set(result["contrasts"]) == {*ablation.CONTRASTS}
    rows = result["settings"] | result["contrasts"]
    for key, names in HAVE.items():
        assert {name for name, row in rows.items() if key in row} == {*names.split()}, key
    assert all(len(values) == 2 for row in rows.values() for values in row.values())
    assert all(s > 0 for name in SETTINGS for s in rows[name]["seconds"])
    for name in HAVE["v_gap"].split():
        gap = np.subtract(rows[name]["v_salient"], rows[name]["v_not_salient"])
        np.testing.assert_allclose(rows[name]["v_gap"], gap, atol=2e-5)
    assert str(quick.data) not in out.read_text()
    assert result["versions"]["torch"] == importlib.metadata.version("torch")
    assert result["precision"] == "float32" and result["data"].keys() == {"D_c", "D_s"}
    story = read_weights(next(iter(runs.runs_root().glob("*-MM-*/*.safetensors"))))[1]
    named = ("versions", "device", "precision", "data")
    assert all(story["provenance"][name] == result[name] for name in named)

    mean, sd = mean_sd([100 * x for x in result["settings"]["M"]["miou"]])
    assert f"{mean:.1f} ± {sd:.1f}" in table and "57.1" in table
    bars = [p for ax in results.ablation_chart(result).axes for p in ax.patches]
    assert any(math.isclose(bar.get_height(), mean, rel_tol=1e-6) for bar in bars)
    assert len(results.suppression_chart(result).axes) == 6
    plt.close("all")


def test_a_second_ablation_trains_nothing_and_agrees(ablated, quick, tmp_path, monkeypatch):
    first = ablated("S", "2S")
    monkeypatch.setattr(ablation, "train_or_load", None)
    assert ablated("S", "2S") == first
    run = planned(quick, "S")["S"].run
    other = replace(run, profile=replace(quick, val_list="train_aug"))
    assert other.folder == run.folder  # the same weights
    assert measured(run) and measured(other) is None  # but not the same figures
    copied = replace(quick, data=shutil.copytree(quick.data, tmp_path / "data"))
    assert measured(replace(run, profile=copied))
    one, two, *_ = sorted((copied.data / copied.voc / "SegmentationClass").iterdir())
    one.write_bytes(two.read_bytes())  # a corrected mask
    assert measured(replace(run, profile=copied)) is None


@pytest.mark.parametrize("drawn", [True, False])
def test_pseudo_labels_are_compared_with_masks_of_training_images(tiny, home, drawn):
    root = shutil.copytree(tiny.data, home / "data")
    if not drawn:
        (root / "mini.json").unlink()
    run = Run("M", replace(tiny, data=root), DEFAULT)
    assert label_quality(run) == {}
    for k in range(24):
        mask = render_training_mask(0, k, size=64)
        path = run.labels_folder / f"{image_id('train_aug', k)}.png"
        write_palette_png(path, mask)
        if not drawn:
            shutil.copy(path, root / tiny.voc / "SegmentationClass")
    assert label_quality(run) == {"miou": 1.0, "images": 24}
    write_palette_png(path, 0 * mask)
    assert label_quality(run)["miou"] < 1


def test_true_masks_are_those_of_the_list(quick, own_data):
    """Whatever its order, and whether they are drawn or on disk."""
    profile = replace(quick, data=own_data, train_list="mine")
    lists = own_data / quick.voc / "ImageSets/Segmentation"
    val = read_ids(lists / "val.txt")[:1]
    (lists / "mine.txt").write_text("\n".join([image_id("train_aug", 5), *val]))
    ablation.draw_true_masks(profile)
    folder = ablation.masks_folder(profile)
    found = {path.stem: np.asarray(Image.open(path)) for path in folder.iterdir()}
    wanted = {image_id("train_aug", 5): render_training_mask(0, 5, size=64)}
    stored = own_data / quick.voc / f"SegmentationClass/{val[0]}.png"
    np.testing.assert_equal(found, wanted | {val[0]: np.asarray(Image.open(stored))})


@pytest.mark.slow
def test_processes_give_what_one_process_gives(ablated, tmp_path, monkeypatch):
    two = ablated("S", "SS", jobs=2)
    share = max(1, ablation.available_cores() // 2)
    threads = torch.get_num_threads()
    monkeypatch.setenv("JSWS_RUNS", str(tmp_path / "other runs"))  # all anew
    torch.set_num_threads(share)
    try:
        one = ablated("S", "SS")
    finally:
        torch.set_num_threads(threads)
    made = {"S", "SS", "S_cam", "SS_cam"}
    assert two["jobs"] == 2 and two["settings"].keys() == made
    for setting in ("S", "SS", "SS_cam"):
        assert one["settings"][setting]["iou"] == two["settings"][setting]["iou"]
        assert two["settings"][setting]["threads"] == [share]


def test_a_measured_teacher_still_makes_the_labels_its_students_need(ablated, quick):
    ablated("S")
    rows = planned(quick, "SS")
    folder = rows["S"].run.folder
    before = (folder / "figures.json").read_bytes()
    assert not any(folder.glob("pseudo_labels*"))
    ablation.run_all([rows["S"]], 1)
    assert len([*rows["S"].run.labels_folder.glob("*.png")]) == 24
    assert (folder / "figures.json").read_bytes() == before  # seconds are kept
    assert not rows["SS"].run.folder.exists()


def test_scene_roles_tell_what_the_masks_show(mini_data):
    assert len(drawn_scenes(mini_data, "test")) == 8
    for k, scene in enumerate(drawn_scenes(mini_data, "test", 5)):
        np.testing.assert_array_equal(render(0, "test", k, size=64).image, scene.image)
        salient = {i.category for i in scene.items if i.salient}
        for c, name in enumerate(VOC_CLASSES[1:]):
            seen = name in {i.category for i in scene.items}
            wanted = 1 if name in salient else 0 if seen else -1
            assert roles(scene)[c] == wanted


def test_the_dry_run_measures_and_trains_nothing(quick):
    rows = plan(quick, DEFAULT, seeds=(0,))
    text, ready = describe_plan(rows, jobs=1)
    assert ready and "FAIL" not in text
    assert "24 training images" in text and "seed 0 (to do)" in text
    for words in (f"hours for {len(rows)} runs", "GB, peak", "GB are free", "SSNet-2 L_s2"):
        assert words in text
    assert not any(row.run.folder.exists() for row in rows)


def test_the_dry_run_counts_decoded_pictures(quick, tmp_path, monkeypatch):
    """As large as the files are, and labels of each teacher: S, S as CAM and M."""
    monkeypatch.setenv("JSWS_CACHE", str(tmp_path / "cache"))
    decoded = replace(quick, cache="decoded")
    pictures, saliency = training_sets(("L_c", "L_s1"), decoded, DEFAULT)
    made = [one._decoded for one in (pictures, saliency)]
    files = [[one.images.path, *(mask.path for mask in one.masks)] for one in made]
    size = [sum(file.stat().st_size for file in some) for some in files]
    rows = plan(decoded, DEFAULT, seeds=(0, 1))
    sizes = {"train": len(pictures), "saliency": len(saliency)}
    expected = sum(size) + 2 * 3 * size[0] / 3
    assert dry_run._decoded(rows, sizes) == pytest.approx(expected / dry_run.GB, rel=0.01)


def test_the_dry_run_names_what_is_broken(quick, own_data):
    broken = replace(quick, data=own_data)
    voc = own_data / broken.voc
    next((voc / "SegmentationClass").glob("*.png")).unlink()
    photos = sorted((own_data / "DUTS-TR/DUTS-TR-Image").glob("*.jpg"))
    photos[0].write_bytes(b"no picture")
    verdicts, _ = check_data(broken)
    assert [fine for fine, _ in verdicts] == [True, False, False, True]
    text, ready = describe_plan(plan(broken, DEFAULT, seeds=(0,)))
    assert not ready and text.count("FAIL") == 2 and "1 masks are missing" in text
    assert "hours" not in text


def test_the_dry_run_counts_validation(quick, monkeypatch):
    monkeypatch.setattr(dry_run, "seconds_a_step", lambda run: 0)
    monkeypatch.setattr(dry_run, "seconds_an_image", lambda run: (36.0, 0))

    def hours(every):
        rows = planned(replace(quick, validate_every=every, steps=(200, 200)), "2S")
        sizes = {"train": 24, "saliency": 24, "val": 8, "test": 8}
        lines = dry_run.estimate([*rows.values()], sizes, jobs=1)
        return float(re.search(r"about (\S+) hours", "".join(lines))[1])

    assert hours(0) == pytest.approx(0.2, abs=0.06)
    assert hours(20) - hours(0) == pytest.approx(10 * 0.16, abs=0.1)


@pytest.mark.slow
def test_saliency_makes_weak_labels_segment(ablated, tmp_path):
    """Table 5's claim in small: M above S by a margin, from the same few steps."""
    counts = dict(n_class=480, n_saliency=480, n_val=100, n_test=100)
    small = {"data": make_mini(tmp_path / "data", size=64, **counts)}
    small |= {"name": "small", "size": 64, "crf_scale": 64 / 500, "steps": (160, 1)}
    result = ablated("S", "M", profile=replace(PROFILES["mini"], **small), jobs=None)
    (s,), (m,) = (result["settings"][name]["miou"] for name in ("S", "M"))
    assert m - s >= 0.10, (s, m)


def test_the_default_file_never_loses_runs(mini_data, tiny, tmp_path, monkeypatch):
    record = {"miou": 0.5, "seconds": 1.0, "read_outs": {"S_cam": {"miou": 0.6}}}
    monkeypatch.setattr(ablation, "RESULTS", tmp_path)
    monkeypatch.setattr(ablation, "run_all", lambda rows, jobs: dict.fromkeys(rows, record))
    asked = {"profile": tiny, "recipe": DEFAULT, "seeds": (0, 1), "settings": ["S", "M"]}
    two = partial(ablate, jobs=1, **asked)
    file = two()
    before = file.read_bytes()
    assert two() == file  # the same again
    for less, words in [
        ({"settings": ["S"]}, "M, M_odds, M_nll_probs; name another file with --out"),
        ({"seeds": (0,)}, "seed 1"),
        ({"profile": replace(tiny, size=32)}, "size = 64"),
        ({"recipe": replace(DEFAULT, rotate=5.0)}, "rotate = 0.0"),
    ]:
        with pytest.raises(JswsError, match=words):
            two(**less)
    assert file.read_bytes() == before
    two(seeds=(0, 1, 2))  # more is welcome
    assert json.loads(file.read_text())["seeds"] == [0, 1, 2]
    two(settings=["S"], out=file)  # who names the file means it
    assert [*json.loads(file.read_text())["settings"]] == ["S", "S_cam"]


def test_seeds_are_a_count_or_a_list():
    assert _seed_list("3") == [0, 1, 2] and _seed_list("4,7") == [4, 7]


def test_the_study_changes_one_thing_at_a_time():
    first, *others = (row.run for row in trial_rows())
    assert (first.recipe, first.setting) == (DEFAULT, "M")
    assert len({(run.setting, run.folder) for run in (first, *others)}) == len(TRIALS)
    assert all(run.setting == "S" or run.folder != first.folder for run in others)


def test_the_study_s_file_is_a_table(quick, tmp_path, monkeypatch):
    small = TRIALS[:2] + TRIALS[-1:]
    monkeypatch.setattr(one_change, "TRIALS", small)
    monkeypatch.setattr(one_change, "MINI", replace(quick, steps=(1, 1)))
    file = study(jobs=1, out=tmp_path / "study.json")
    result = json.loads(file.read_text())
    assert [row["changed"] for row in result["rows"]] == [words for words, *_ in small]
    assert "v_gap" in result["rows"][0] and "v_gap" not in result["rows"][-1]
    lines = results.study_table(result).splitlines()
    assert len(lines) == 2 + 3
    miou = result["rows"][0]["miou"]
    assert f" {100 * miou:.1f} |" in lines[2]


def test_the_shipped_results_may_be_measured_again():
    """All rows, so that nothing of the file would be lost."""
    rows = plan(PROFILES["mini"], STEADY)
    ablation._refuse_loss(ablation.RESULTS / "ablation_mini.json", rows)
