"""Runs: what names them, where they live, train or load, shipped networks."""

import re
import shutil
import threading
from copy import deepcopy
from dataclasses import fields, make_dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from helpers import network, refuses, same, state, stored
from PIL import Image

from data_utils.errors import JswsError
from data_utils.voc import read_ids, write_palette_png
from jsws_lib.config import (
    PROFILES,
    SETTINGS,
    STEADY,
    Profile,
    Recipe,
    Schedule,
    get_profile,
    get_recipe,
)
from jsws_lib.engine import checkpoints, film, runs
from jsws_lib.engine.checkpoints import read_weights, save_weights, ship, shipped
from jsws_lib.engine.labelling import make_pseudo_labels
from jsws_lib.engine.runs import Run, film_of, thin, train_or_load
from jsws_lib.experiments import ablation
from jsws_lib.inference import predict
from jsws_lib.training import train

MINI = PROFILES["mini"]


def changed(config, name):
    """A configuration with another value in one field."""
    old = getattr(config, name)
    special = {
        "steps": (5, 6),
        "schedules": (Schedule(lr=0.123), Schedule(lr=0.123)),
        "backbone": "vgg16",
        "size": 104,
        "sam_init_std": 0.5,
        "evidence_share": 0.25,
        "crop": 0.8,
    }
    limits = next(f for f in fields(config) if f.name == name).metadata.get("limits")
    if name in special:
        new = special[name]
    elif limits and not isinstance(limits, str):
        new = next(value for value in limits if value not in (old, "none"))
    elif isinstance(old, bool):
        new = not old
    elif isinstance(old, (int, float)):
        new = old + 1
    else:
        new = "other" if old is None or isinstance(old, str) else old / "other"
    return replace(config, **{name: new})


# --- what names a run ----------------------------------------------------------------


FIELDS = [(base, f.name) for base in (MINI, STEADY) for f in fields(base)]
NOT_SEEN = "workers validate_every val_list test_images test_masks test_list".split()
ONLY_STAGE_2 = "crf_scale crf suppress mirror stage2_stride stage2_init".split()
ONLY_STAGE_2 += ["stage2_class_loss"]


@pytest.mark.parametrize("setting", ["M", "MM"])
@pytest.mark.parametrize(("base", "name"), FIELDS, ids=[name for _, name in FIELDS])
def test_every_field_that_a_stage_sees_names_another_run(base, name, setting):
    others = [changed(base, name) if one is base else one for one in (MINI, STEADY)]
    assert others != [MINI, STEADY]
    names = {Run(setting, *pair).name for pair in ((MINI, STEADY), others)}
    # A cache of decoded pictures is cropped at whole pixels.
    same_run = name in NOT_SEEN or (setting == "M" and name in ONLY_STAGE_2)
    assert len(names) == (1 if same_run else 2)


def test_what_names_another_run_and_what_does_not(tmp_path):
    names = {Run(s, MINI, STEADY, k).name for s in SETTINGS for k in (0, 1)}
    names |= {Run("MM", MINI, STEADY, pseudo_labels=tmp_path / x).name for x in "ab"}
    assert len(names) == 14
    for same_run in ({"steps": (MINI.steps[0], 9999)}, {"cache": "none"}):
        assert Run("M", replace(MINI, **same_run), STEADY).name in names
    scaled = Run("M", changed(MINI, "crf_scale"), STEADY)
    assert scaled.labels_folder != Run("M", MINI, STEADY).labels_folder


def test_a_new_field_with_a_default_renames_no_run(monkeypatch):
    """The shipped networks are found by a recipe and a profile that have one field more."""
    found = {s: train_or_load(Run(s, MINI, STEADY)).source for s in ("S", "M", "MM")}
    more = []
    for base, old in ((Profile, MINI), (Recipe, STEADY)):
        grown = make_dataclass(
            base.__name__, [("colour", str, "red")], bases=(base,), frozen=True
        )
        more.append(grown(**{f.name: getattr(old, f.name) for f in fields(old)}))
    for setting, source in found.items():
        assert source == f"shipped as mini_{setting}.safetensors"
        assert train_or_load(Run(setting, *more)).source == source
        blue = replace(more[1], colour="blue")
        assert Run(setting, more[0], blue).name != Run(setting, *more).name


def test_a_changed_default_does_not_serve_an_old_network(tiny, home, monkeypatch):
    """Names cover what differs from the defaults: the checkpoint says what they were."""
    run = Run("S", replace(tiny, steps=(1, 1)), STEADY)
    train_or_load(run)
    story = checkpoints.recipe_fields(STEADY) | {"evidence_share": 0.75}
    monkeypatch.setattr(runs, "recipe_fields", lambda recipe: story)
    with pytest.raises(JswsError, match="holds the finished run"):
        train_or_load(run)


def test_a_changed_recipe_does_not_go_by_the_old_name():
    assert get_recipe().name == "steady" == get_recipe(crf=STEADY.crf).name
    changed_recipe = get_recipe(class_evidence="odds", rotate=5.0)
    assert changed_recipe.name == "steady+class_evidence=odds+rotate=5.0"
    assert get_recipe("paper", name="mine", crf="deeplab").name == "mine"


def test_unknown_names():
    with pytest.raises(JswsError, match="setting 'X'; choose from S, M, SS"):
        Run("X", MINI, STEADY)
    with pytest.raises(JswsError, match="profile 'huge'; choose from mini, laptop, colab"):
        get_profile("huge")
    with pytest.raises(JswsError, match="recipe 'mine'; choose from steady, anchored"):
        get_recipe("mine")


def test_the_environment_names_profile_and_data(monkeypatch, tmp_path):
    monkeypatch.delenv("JSWS_PROFILE", raising=False)
    monkeypatch.delenv("JSWS_DATA", raising=False)
    assert get_profile() == MINI and MINI.cache == "memory"
    assert get_profile(data=tmp_path).cache == "none"  # photographs would fill the memory
    monkeypatch.setenv("JSWS_PROFILE", "colab")
    monkeypatch.setenv("JSWS_DATA", str(tmp_path))
    assert get_profile().name == "colab" and get_profile().data == tmp_path
    assert get_profile("mini").cache == "none"
    assert get_profile("paper", data=tmp_path / "x", size=None).data == tmp_path / "x"


# --- train or load -------------------------------------------------------------------


@pytest.fixture
def short(tiny):
    return replace(tiny, steps=(1, 1))


def test_a_finished_run_is_loaded_and_its_film_kept(tiny, home):
    run = Run("M", tiny, STEADY)
    first = train_or_load(run)
    assert first.source == "trained" and not first.net.training
    assert run.folder.parent == home / "runs"
    kept = {path.name for path in run.folder.iterdir()}
    assert kept == {"weights.safetensors", "film.npz", "log.csv"}
    again = train_or_load(run)
    assert again.source == f"loaded from runs/{run.name}"
    assert same(state(first.net), state(again.net))
    assert [r["step"] for r in again.history] == [0, 1, 2, 3]

    plain = network()
    train(plain, ("L_c", "L_s1"), profile=tiny, recipe=STEADY)  # no film, no engine
    assert same(state(plain), state(first.net))

    shot = film_of(run)
    assert shot.steps.tolist() == [1, 2, 3, 4] == film.frame_steps(4)
    assert shot.images.shape == (8, 64, 64, 3) and shot.images.dtype == np.uint8
    assert shot.segmentation.shape == shot.saliency.shape == (4, 8, 64, 64)
    last = list(predict(first.net, [Image.fromarray(i) for i in shot.images]))
    for k, prediction in enumerate(last):
        assert np.array_equal(shot.segmentation[-1, k], prediction.segmentation)
        assert np.abs(shot.saliency[-1, k] / 248 - prediction.sal_map).max() < 0.02
    assert not np.array_equal(shot.saliency[0], shot.saliency[-1])
    at = film.frame_steps(1200)  # frames lie close where most happens
    assert at[0] == 1 and at[-1] == 1200 and len(at) == film.FRAMES
    assert np.all(np.diff(at, 2) >= -1)
    assert [shot.at(step) for step in (0, 1, 3, 99)] == [0, 0, 2, 3]
    with pytest.raises(JswsError, match="not a film"):  # never another run's
        film_of(Run("M", MINI, replace(STEADY, flip=False)))
    path = run.folder / "film.npz"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(JswsError, match="film.npz is not a film"):
        film_of(run)


def test_stage_2_sees_to_its_teacher_and_pseudo_labels(trained, monkeypatch):
    run, folder = trained
    monkeypatch.setenv("JSWS_RUNS", str(folder))
    assert run.teacher_run == Run("M", run.profile, STEADY)
    teacher, student = train_or_load(run.teacher_run), train_or_load(run)
    assert (teacher.net.stage, student.net.stage) == (1, 2)
    assert teacher.source.startswith("loaded") and student.source.startswith("loaded")
    labels = run.teacher_run.labels_folder
    assert len(list(labels.glob("*.png"))) == 24


def test_shipped_checkpoints_serve_only_their_own_run(short, home, monkeypatch):
    run = Run("S", short, STEADY)
    first = train_or_load(run)
    ship(run.weights, "tiny_S", command="test", figures={"a": 1})
    assert shipped("tiny_S") == home / "checkpoints/tiny_S.safetensors"
    shutil.rmtree(run.folder)
    again = train_or_load(run)
    assert again.source == "shipped as tiny_S.safetensors"
    for key, value in state(first.net).items():  # matrices were stored as float16
        torch.testing.assert_close(state(again.net)[key], value, rtol=1e-3, atol=1e-4)
    assert train_or_load(replace(run, seed=1)).source == "trained"
    monkeypatch.setenv("JSWS_TRAIN", "1")
    assert train_or_load(run).source == "trained"


def test_a_shipped_file_that_is_not_the_manifests_is_refused(tiny, home):
    assert shipped("tiny_S") is None
    folder = home / "checkpoints"
    file = stored(folder / "tiny_S.safetensors", network())
    with pytest.raises(JswsError, match="manifest.json is no file"):
        shipped("tiny_S")
    (folder / "manifest.json").write_text('{"files": {}}')
    with pytest.raises(JswsError, match="is not the file described in manifest.json"):
        shipped("tiny_S")
    checkpoints.enter(file, command="c", seed=0, figures={})
    assert shipped("tiny_S") == file
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(JswsError, match="tiny_S.*git checkout"):
        train_or_load(Run("S", tiny, STEADY))


def test_a_folder_of_another_run_or_backbone_is_refused(short, home, pseudo):
    first = Run("S", short, STEADY, out=home / "mine")
    train_or_load(first)
    with pytest.raises(JswsError, match="run tiny-steady-S-.*, but tiny-steady-M-"):
        train_or_load(replace(first, setting="M"))
    given = {"teacher": first.weights, "pseudo_labels": pseudo, "out": home / "out"}
    other = Run("MM", replace(short, backbone="vgg16"), STEADY, **given)
    with pytest.raises(JswsError, match="backbone = densenet_mini, but vgg16 is asked"):
        train_or_load(other)


def test_a_teacher_is_used_as_the_recipe_says(trained, tmp_path, monkeypatch):
    """`mirror` trains no other M, but M labels and is measured by it."""
    run, folder = trained
    monkeypatch.setenv("JSWS_RUNS", str(folder))
    plain = Run("M", run.profile, STEADY)
    mirrored = replace(plain, recipe=get_recipe("steady", mirror=True))
    one, other = train_or_load(plain), train_or_load(mirrored)
    assert one.source == other.source and same(state(one.net), state(other.net))
    assert [net.mirror for net, *_ in (one, other)] == [False, True]
    assert plain.labels_folder != mirrored.labels_folder
    assert ablation._asked(plain) != ablation._asked(mirrored)


def test_labels_of_another_teacher_are_refused(trained, tmp_path, monkeypatch):
    run, folder = trained
    monkeypatch.setenv("JSWS_RUNS", str(folder))
    own, made = run.teacher_run.weights, run.teacher_run.labels_folder
    other = save_weights(tmp_path / "other.safetensors", network(), read_weights(own)[1])
    labels = shutil.copytree(made, tmp_path / "labels")
    note = shutil.copy(made.with_name(f"{made.name}.source"), tmp_path / "labels.source")

    def student(teacher, name):
        given = {"teacher": teacher, "pseudo_labels": labels, "out": tmp_path / name}
        return train_or_load(replace(run, **given)).source

    with pytest.raises(JswsError, match="labels of another network than the teacher"):
        student(other, "a")
    assert student(own, "b") == "trained"
    assert student(None, "b2") == "trained"  # the run's own M
    for setting, words in {
        "SS": "setting M, but SS learns from S",
        "MM": "'readme', 0.192",
    }.items():
        recipe = get_recipe("steady", crf="deeplab")
        given = {"teacher": own, "pseudo_labels": labels, "out": tmp_path / setting}
        with pytest.raises(JswsError, match=words):
            train_or_load(replace(run, setting=setting, recipe=recipe, **given))
    lines = note.read_text().split("\n")
    note.write_text("\n".join(["another", *lines[1:]]))
    with pytest.raises(JswsError, match="labels of another network than the teacher"):
        student(None, "d")
    next(labels.glob("*.png")).unlink()
    note.unlink()  # who made them, nobody can tell now
    with pytest.raises(JswsError, match="1 of 24 pseudo labels are missing"):
        student(other, "c")
    shutil.copytree(made, labels, dirs_exist_ok=True)
    assert student(other, "c") == "trained"


def test_weights_that_are_not_finite_are_not_kept(short, home, monkeypatch):
    run, plain = Run("S", short, STEADY), runs.train_stage1

    def diverged(*words, **given):
        net = plain(*words, **given)
        net.backbone.features.norm0.running_var[0] = torch.inf
        return net

    monkeypatch.setattr(runs, "train_stage1", diverged)
    with pytest.raises(JswsError, match="not finite: lower the learning rate"):
        train_or_load(run)
    assert not run.weights.is_file()


def test_masks_of_training_images_change_neither_stage(
    trained, own_data, home, monkeypatch
):
    """The whole way with masks that would be tempting, against one without any."""
    run, folder = trained
    voc = own_data / run.profile.voc
    for k, i in enumerate(read_ids(voc / "ImageSets/Segmentation/train_aug.txt")):
        labels = np.full((64, 64), 1 + k % 20, np.uint8)
        write_palette_png(voc / f"SegmentationClass/{i}.png", labels)
        write_palette_png(voc / f"SegmentationObject/{i}.png", labels)
    profile, first = replace(run.profile, data=own_data), {}
    for leaky in (True, False):
        recipe = replace(STEADY, leaky_labels=leaky)
        first[leaky] = train(network(), ("L_c",), profile=profile, recipe=recipe, steps=1)
    assert first[True] != first[False]  # the masks would be another lesson
    alone = partial(make_pseudo_labels, workers=0)
    monkeypatch.setattr(runs, "make_pseudo_labels", alone)
    tempted = train_or_load(replace(run, profile=profile), use_shipped=False)
    monkeypatch.setenv("JSWS_RUNS", str(folder))
    assert tempted.source == "trained"
    assert same(state(train_or_load(run).net), state(tempted.net))


def test_thin_averages_the_history():
    history = [{"step": k, "L_c": float(k % 2)} for k in range(400)]
    short = thin(history)
    assert len(short) == 100 and {r["L_c"] for r in short} == {0.5}
    assert short[0]["step"] == 1.5
    assert thin(history[:5]) == history[:5]


# --- nothing outlives its inputs --------------------------------------------------------


def _correct_label(profile):
    name = read_ids(profile.data / profile.voc / "ImageSets/Segmentation/train_aug.txt")[0]
    xml = profile.data / profile.voc / "Annotations" / f"{name}.xml"
    text = xml.read_text()
    other = "cat" if "<name>dog" in text else "dog"
    xml.write_text(re.sub("<name>[a-z]+</name>", f"<name>{other}</name>", text))


def _shorten_list(profile):
    file = profile.data / profile.voc / "ImageSets/Segmentation/train_aug.txt"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))


def _touch_mask(profile):
    mask = min((profile.data / profile.saliency_masks).glob("*.png"))
    array = np.array(Image.open(mask))
    Image.fromarray(np.roll(array, 7, 0)).resize((40, 40)).save(mask)


def _edit_picture(profile, folder=None):
    picture = min((folder or profile.data / profile.saliency_images).glob("*.jpg"))
    data = bytearray(picture.read_bytes())
    data[-9] ^= 1  # of the same size
    picture.write_bytes(data)


CORRECTIONS = [_correct_label, _shorten_list, _touch_mask, _edit_picture]


@pytest.mark.parametrize("correct", CORRECTIONS)
@pytest.mark.parametrize("drawn", [True, False], ids=["drawn", "real"])
def test_corrected_data_are_another_run(tiny, tmp_path, correct, drawn):
    root = shutil.copytree(tiny.data, tmp_path / "data")
    if not drawn:
        (root / "mini.json").unlink()
    profile = replace(tiny, data=root)
    before = {s: Run(s, profile, STEADY).name for s in SETTINGS}
    assert before == {s: Run(s, profile, STEADY).name for s in SETTINGS}
    correct(profile)
    changed_runs = {s for s in SETTINGS if Run(s, profile, STEADY).name != before[s]}
    labels_alone = {"S", "SS"} if correct in CORRECTIONS[2:] else {"2S"}
    assert changed_runs == set(SETTINGS) - labels_alone


def _edit_labelled_picture(profile):
    _edit_picture(profile, profile.data / profile.voc / "JPEGImages")


def test_pseudo_labels_made_otherwise_are_refused(tiny, tmp_path):
    net, out = network().eval(), tmp_path / "labels"

    def make(net, recipe=STEADY, profile=tiny):
        make_pseudo_labels(net, profile=profile, recipe=recipe, out=out, workers=0)

    make(net)
    make(net)
    other = deepcopy(net)
    other.sn.head.bias.data += 1e-3
    asked = [(other, STEADY, tiny)]
    asked += [(net, replace(STEADY, **x), tiny) for x in ({"crf": "irn"}, {"mirror": True})]
    for k, correct in enumerate((_correct_label, _edit_labelled_picture)):
        root = shutil.copytree(tiny.data, tmp_path / f"data{k}")
        asked.append((net, STEADY, replace(tiny, data=root)))
        correct(asked[-1][2])
    for given in asked:
        refuses("labels holds .* as they were before; choose another folder", make, *given)
    make(net)


def test_whoever_comes_second_waits_and_loads(short, home, capsys):
    run = Run("S", short, STEADY)
    train_or_load(run)
    away, lock, found = home / "away", runs.lock_of(run), []
    run.folder.rename(away)  # as if the other process, which holds the lock, still trained
    with lock:
        second = threading.Thread(target=lambda: found.append(train_or_load(run)))
        second.start()
        second.join(1)
        assert second.is_alive() and not run.folder.exists()
        away.rename(run.folder)
    second.join(60)
    assert found[0].source.startswith("loaded from")
    assert "waiting for another process" in "".join(capsys.readouterr())
