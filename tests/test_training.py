"""Training: settings, schedules, determinism, resuming, and what it must refuse."""

import json
import os
import shutil
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from data_utils.datasets import Augmentation, ClassificationSet, Draws, batches
from data_utils.errors import JswsError
from data_utils.voc import read_ids, write_palette_png
from jsws_lib import checkpoints, film, runs, training
from jsws_lib.checkpoints import (
    describe,
    load_ssnet,
    read_weights,
    recipe_fields,
    save_weights,
    ship,
    shipped,
    write_bytes,
)
from jsws_lib.config import (
    CHOICES,
    JSWS2020,
    PAPER,
    PROFILES,
    STEADY,
    Profile,
    Recipe,
    Schedule,
    get_profile,
    get_recipe,
)
from jsws_lib.inference import predict
from jsws_lib.resume import read_log
from jsws_lib.runs import SETTINGS, film_of, run_folder, thin, train_or_load
from jsws_lib.ssnet import build_ssnet
from jsws_lib.training import learning_rate, seed_everything, train


def network(stage=1, recipe=STEADY, seed=0):
    seed_everything(seed)
    return build_ssnet(stage, backbone="densenet_mini", size=64, recipe=recipe)


def state(net):
    return {k: v.clone() for k, v in net.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="session")
def pseudo(mini_data, tmp_path_factory):
    """Pseudo labels without a network: the whole image shows the first label."""
    folder = tmp_path_factory.mktemp("pseudo")
    voc = mini_data / "VOCdevkit/VOC2012"
    data = ClassificationSet(voc, augmentation=Augmentation(64))
    for name, labels in zip(data.ids, data.labels, strict=True):
        mask = np.full((64, 64), 1 + labels.argmax(), np.uint8)
        mask[:16] = 0
        write_palette_png(folder / f"{name}.png", mask)
    return folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Runs and shipped checkpoints go to a folder of the test."""
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    monkeypatch.setattr(checkpoints, "SHIPPED", tmp_path / "checkpoints")
    monkeypatch.delenv("JSWS_TRAIN", raising=False)
    return tmp_path


# --- settings and schedules ----------------------------------------------------------


def test_settings_are_the_columns_of_tables_5_and_6():
    found = {k: (s.stage, set(s.losses), s.teacher) for k, s in SETTINGS.items()}
    assert found == {
        "S": (1, {"L_c"}, None),
        "M": (1, {"L_c", "L_s1"}, None),
        "SS": (2, {"L_s2"}, "S"),
        "MS": (2, {"L_s2"}, "M"),
        "MM": (2, {"L_s1", "L_s2"}, "M"),
        "2S": (2, {"L_s1"}, None),
    }


def test_profile_paper_is_section_4_1():
    paper = PROFILES["paper"]
    assert (paper.backbone, paper.size, paper.crop) == ("densenet169", 256, 0.9)
    assert (paper.steps, paper.batch_class) == ((10_000, 10_000), 16)
    assert all(s.optimiser == "adam" and s.lr == 1e-4 for s in paper.schedules)
    reading = PAPER.class_evidence, PAPER.saliency_reading, PAPER.upsample
    assert reading == ("mean_probs", "bce", "probs")


def test_paper_staircase():
    for step, rate in ((0, 1e-4), (999, 1e-4), (1000, 5e-5), (9999, 1e-4 / 2**9)):
        assert learning_rate(Schedule(), step, 10_000) == pytest.approx(rate, rel=1e-9)
    assert learning_rate(Schedule(), 9999, 10_000) == pytest.approx(1.953e-7, rel=1e-4)


def test_released_staircases():
    first, second = JSWS2020.schedules
    at = [learning_rate(first, k, 10_000) for k in (0, 1999, 2000, 4000)]
    assert at == pytest.approx([1e-4, 1e-4, 1e-5, 1e-6])
    at = [learning_rate(second, k, 10_000) for k in (0, 2999, 3000)]
    assert at == pytest.approx([5e-6, 5e-6, 2.5e-6])
    assert first.betas[0] == second.betas[0] == 0.95


def test_onecycle_rises_to_its_peak_and_falls_towards_zero():
    schedule = Schedule(kind="onecycle", lr=2.0)
    rates = [learning_rate(schedule, k, 100) for k in range(100)]
    peak = int(np.argmax(rates))
    assert max(rates) == 2.0 and 0 < peak < 30
    assert (np.diff(rates[: peak + 1]) > 0).all() and (np.diff(rates[15:]) < 0).all()
    assert 0 < rates[-1] < 0.01
    assert learning_rate(schedule, 0, 1) == 2.0


@pytest.mark.parametrize("reset", [True, False])
def test_moments_start_again_only_where_the_recipe_says_so(tiny, monkeypatch, reset):
    made, seen, make = [], [], training.make_optimiser
    monkeypatch.setattr(
        training, "make_optimiser", lambda *a, **k: made.append(make(*a, **k)) or made[-1]
    )
    schedule = Schedule(every=2, reset_moments=reset)
    profile = replace(tiny, schedules=(schedule, schedule))

    def look(step, net, record):
        moments = made[-1].state[net.sn.head.weight]
        seen.append((int(moments["step"]), record["lr"]))

    train(network(), ("L_c",), profile=profile, recipe=STEADY, on_step=look)
    assert [n for n, _ in seen] == ([1, 2, 1, 2] if reset else [1, 2, 3, 4])
    assert [lr for _, lr in seen] == pytest.approx([1e-4, 1e-4, 5e-5, 5e-5])


# --- learning ------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["S", "M", "MM", "2S"])
def test_a_few_steps_lower_the_loss(tiny, pseudo, setting):
    plan = SETTINGS[setting]
    profile = replace(tiny, crop=1.0)
    recipe = replace(STEADY, flip=False)
    net = network(plan.stage)
    before = state(net)
    history = train(net, plan.losses, profile=profile, recipe=recipe, steps=12,
                    pseudo_labels=pseudo)  # fmt: skip
    assert not net.training
    assert [r["step"] for r in history] == list(range(12))
    assert set(history[0]) == {"step", "lr", *plan.losses}
    for name in plan.losses:
        first, last = (np.mean([r[name] for r in part]) for part in
                       (history[:3], history[-3:]))  # fmt: skip
        assert last < first
    after = state(net)
    key = "backbone.features.conv0.weight"
    assert not torch.equal(before[key], after[key])
    # Without L_s1 the SAM has no gradient.
    moved = not torch.equal(before["sam.conv.weight"], after["sam.conv.weight"])
    assert moved or "L_s1" not in plan.losses


@pytest.mark.parametrize("recipe", [PAPER, JSWS2020], ids=lambda r: r.name)
@pytest.mark.parametrize("stage", [1, 2])
def test_other_recipes_train(tiny, pseudo, recipe, stage):
    losses = ("L_c", "L_s1") if stage == 1 else ("L_s1", "L_s2")
    net = network(stage, recipe)
    history = train(net, losses, profile=tiny, recipe=recipe, steps=2,
                    pseudo_labels=pseudo)  # fmt: skip
    added = {"L_c"} if recipe is JSWS2020 else set()
    assert set(history[-1]) == {"step", "lr", *losses} | added
    assert all(np.isfinite(list(r.values())).all() for r in history)


def test_the_class_weight_scales_l_c(tiny):
    def first(weight):
        recipe = replace(STEADY, class_weight=weight)
        kwargs = dict(profile=tiny, recipe=recipe, steps=1)
        return train(network(), ("L_c",), **kwargs)[0]["L_c"]

    assert first(2.5) == pytest.approx(2.5 * first(1.0), rel=1e-5)


def test_no_pixel_mask_is_needed_to_train(tiny, own_data):
    voc = own_data / tiny.voc
    ids = read_ids(voc / "ImageSets/Segmentation/train_aug.txt")
    assert not any((voc / f"SegmentationClass/{i}.png").exists() for i in ids)
    kwargs = dict(recipe=STEADY, steps=2)
    with_masks, without = network(), network()
    train(with_masks, ("L_c", "L_s1"), profile=tiny, **kwargs)
    shutil.rmtree(voc / "SegmentationClass")
    shutil.rmtree(own_data / "ECSSD")
    train(without, ("L_c", "L_s1"), profile=replace(tiny, data=own_data), **kwargs)
    assert same(state(with_masks), state(without))


def test_both_stages_are_the_same_without_any_mask_of_a_training_image(
    tiny, own_data, tmp_path, monkeypatch
):
    """The whole way, with masks that would be tempting, and after they are deleted."""
    voc = own_data / tiny.voc
    for k, i in enumerate(read_ids(voc / "ImageSets/Segmentation/train_aug.txt")):
        labels = np.full((64, 64), 1 + k % 20, np.uint8)
        write_palette_png(voc / f"SegmentationClass/{i}.png", labels)
        write_palette_png(voc / f"SegmentationObject/{i}.png", labels)
    profile = replace(tiny, data=own_data)
    leaky = train(network(), ("L_c",), profile=profile, steps=2,
                  recipe=replace(STEADY, leaky_labels=True))  # fmt: skip
    weights = []
    for name in ("with", "without"):
        if name == "without":
            shutil.rmtree(voc / "SegmentationClass")
            shutil.rmtree(voc / "SegmentationObject")
        monkeypatch.setenv("JSWS_RUNS", str(tmp_path / name))
        trained = train_or_load("MM", profile=profile, recipe=STEADY, use_shipped=False)
        assert trained.source == "trained"
        weights.append(state(trained.net))
    assert same(*weights)
    honest = train(network(), ("L_c",), profile=profile, steps=2, recipe=STEADY)
    assert leaky[0]["L_c"] != honest[0]["L_c"]  # the masks would have been another lesson


def test_leaky_labels_do_need_the_masks(tiny):
    recipe = replace(STEADY, leaky_labels=True)
    with pytest.raises(JswsError, match=r"there is no .*SegmentationClass.* on purpose"):
        train(network(), ("L_c",), profile=tiny, recipe=recipe, steps=1)


def test_a_loss_that_is_not_finite_stops_training(tiny):
    net = network()
    with torch.no_grad():
        net.sn.head.bias[3] = torch.nan
    with pytest.raises(JswsError, match="loss is nan at step 0.*learning rate"):
        train(net, ("L_c",), profile=tiny, recipe=STEADY)


# --- determinism and resuming --------------------------------------------------------


def test_the_same_seed_gives_the_same_weights(tiny):
    def run(seed):
        net = network(seed=seed)
        kwargs = dict(profile=tiny, recipe=STEADY, seed=seed, steps=3)
        return state(net), train(net, ("L_c", "L_s1"), **kwargs), state(net)

    start, history, end = run(0)
    again = run(0)
    assert same(start, again[0]) and history == again[1] and same(end, again[2])
    assert not same(end, run(1)[2])


def test_the_seed_of_training_alone_changes_the_images(tiny):
    kwargs = dict(profile=tiny, recipe=STEADY, steps=1)
    one = train(network(), ("L_c",), seed=0, **kwargs)
    two = train(network(), ("L_c",), seed=1, **kwargs)
    assert one != two


class Interrupted(Exception):
    pass


def points(run):
    return sorted((run / "resume").glob("*.pt"))


def test_an_interrupted_run_goes_on_bit_by_bit(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 2)
    kwargs = dict(profile=tiny, recipe=STEADY, steps=6)
    losses = ("L_c", "L_s1")
    whole = network()
    history = train(whole, losses, **kwargs)

    def stop(step, *_):
        if step == 4:
            raise Interrupted

    run, broken = tmp_path / "run", network()
    with pytest.raises(Interrupted):
        train(broken, losses, folder=run, on_step=stop, **kwargs)
    assert [p.name[:9] for p in points(run)] == ["00000002_", "00000004_"]
    assert len(read_log(run / "log.csv")) == 5
    steps = []
    other = network(seed=7)  # whatever it starts from
    again = train(other, losses, folder=run,
                  on_step=lambda step, *_: steps.append(step), **kwargs)  # fmt: skip
    assert steps == [4, 5]  # saved after step 3
    assert again == history == read_log(run / "log.csv")
    assert same(state(whole), state(other))


def test_draws_are_whole_permutations_and_can_start_anywhere():
    walk = list(Draws(7, start=0, stop=21, seed=3))
    assert [draw for _, draw in walk] == list(range(21))
    epochs = [[i for i, _ in walk[k : k + 7]] for k in (0, 7, 14)]
    assert all(sorted(e) == list(range(7)) for e in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert list(Draws(7, start=5, stop=16, seed=3)) == walk[5:16]
    assert list(Draws(7, start=0, stop=21, seed=4)) != walk


def test_batches_do_not_depend_on_workers_or_the_cache(tiny):
    voc = tiny.data / tiny.voc

    def stream(workers=0, cache="none", start=0):
        data = ClassificationSet(voc, augmentation=Augmentation(32), cache=cache)
        run = dict(steps=8, start=start, seed=5, workers=workers)
        return list(batches(data, 4, **run))

    expected = stream()
    assert len(expected) == 8
    for other in (stream(workers=2), stream(cache="memory")):
        for a, b in zip(expected, other, strict=True):
            assert torch.equal(a["image"], b["image"])
            assert torch.equal(a["labels"], b["labels"])
    assert torch.equal(stream(start=6)[0]["image"], expected[6]["image"])
    # The second pass over the 24 images crops them anew.
    assert not torch.equal(expected[0]["image"], expected[6]["image"])


# --- run folders ---------------------------------------------------------------------


def changed(config, name):
    old = getattr(config, name)
    if isinstance(old, bool):
        return not old
    if isinstance(old, (int, float)):
        return old + 1
    if name == "steps":
        return (5, 6)
    if name == "schedules":
        return (Schedule(lr=0.123), Schedule(lr=0.123))
    if name == "precision":
        return "bf16"
    return "other" if old is None or isinstance(old, str) else old / "other"


@pytest.mark.parametrize("name", [f.name for f in fields(Profile)])
def test_every_profile_field_names_another_run(name):
    base = PROFILES["mini"]
    other = replace(base, **{name: changed(base, name)})
    folders = {run_folder("MM", profile=p, recipe=STEADY) for p in (base, other)}
    assert len(folders) == (1 if name in runs.NOT_TRAINING else 2)


@pytest.mark.parametrize("name", ["val_list", "test_list", "crf_scale"])
def test_what_stage_1_never_sees_does_not_rename_it(name):
    base = PROFILES["mini"]
    other = replace(base, **{name: changed(base, name)})
    folders = {run_folder("M", profile=p, recipe=STEADY) for p in (base, other)}
    assert len(folders) == 1
    labels = {runs.pseudo_label_folder("M", p, STEADY) for p in (base, other)}
    assert len(labels) == (2 if name == "crf_scale" else 1)


@pytest.mark.parametrize("name", [f.name for f in fields(Recipe)])
def test_every_recipe_field_names_another_run(name):
    special = {"sam_init_std": 0.5, "evidence_share": 0.25}
    special |= {key: allowed[-1] for key, allowed in CHOICES.items()}
    if name in CHOICES and getattr(STEADY, name) == CHOICES[name][-1]:
        special[name] = CHOICES[name][0]
    other = replace(STEADY, **{name: special.get(name, changed(STEADY, name))})
    assert other != STEADY
    base = PROFILES["mini"]
    for setting in ("M", "MM"):
        folders = {run_folder(setting, profile=base, recipe=r) for r in (STEADY, other)}
        same_stage_1 = setting == "M" and name in runs.ONLY_STAGE_2
        assert len(folders) == (1 if same_stage_1 else 2)


def test_setting_and_seed_name_another_run_and_stage_2_does_not_rename_stage_1():
    base = PROFILES["mini"]
    names = {run_folder(s, profile=base, recipe=STEADY, seed=k).name
             for s in SETTINGS for k in (0, 1)}  # fmt: skip
    assert len(names) == 12
    longer = replace(base, steps=(base.steps[0], 9999))
    same_name = [run_folder("M", profile=p, recipe=STEADY) for p in (base, longer)]
    assert same_name[0] == same_name[1]


def test_a_changed_recipe_does_not_go_by_the_old_name():
    assert get_recipe().name == "steady" == get_recipe(crf=STEADY.crf).name
    changed_recipe = get_recipe(class_evidence="odds", rotate=5.0)
    assert changed_recipe.name == "steady+class_evidence=odds+rotate=5.0"
    assert get_recipe("paper", name="mine", crf="deeplab").name == "mine"


def test_a_recipe_knows_its_readings():
    for wrong, words in ((dict(class_evidence="mean_logits"), "choose from mean_probs"),
                         (dict(saliency_reading="x"), "bce, background"),
                         (dict(evidence_share=0.0), "above 0"),
                         (dict(evidence_share=2.0), "at most 1")):  # fmt: skip
        with pytest.raises(JswsError, match=words):
            get_recipe(**wrong)


# --- train_or_load -------------------------------------------------------------------


def test_a_finished_run_is_loaded(tiny, home):
    kwargs = dict(profile=replace(tiny, steps=(2, 2)), recipe=STEADY)
    first = train_or_load("M", **kwargs)
    assert first.source == "trained" and not first.net.training
    folder = run_folder("M", **kwargs)
    assert folder.parent == home / "runs"
    assert {p.name for p in folder.iterdir()} == {
        "weights.safetensors", "film.npz", "log.csv"
    }  # fmt: skip
    again = train_or_load("M", **kwargs)
    assert again.source == f"loaded from runs/{folder.name}"
    assert same(state(first.net), state(again.net))
    assert [r["step"] for r in again.history] == [0, 1]


def test_a_film_shows_the_training_and_leaves_it_alone(tiny, home):
    kwargs = dict(profile=tiny, recipe=STEADY)
    trained = train_or_load("M", **kwargs)
    seed_everything(0)
    plain = build_ssnet(1, backbone=tiny.backbone, size=tiny.size, recipe=STEADY)
    train(plain, ("L_c", "L_s1"), **kwargs)  # no film
    assert same(state(plain), state(trained.net))

    shot = film_of("M", **kwargs)
    assert shot.steps.tolist() == [1, 2, 3, 4] == film.frame_steps(4)
    assert shot.images.shape == (8, 64, 64, 3) and shot.images.dtype == np.uint8
    assert shot.segmentation.shape == shot.saliency.shape == (4, 8, 64, 64)
    last = list(predict(trained.net, [Image.fromarray(i) for i in shot.images]))
    for k, prediction in enumerate(last):
        assert np.array_equal(shot.segmentation[-1, k], prediction.segmentation)
        assert np.abs(shot.saliency[-1, k] / 248 - prediction.sal_map).max() < 0.02
    assert not np.array_equal(shot.saliency[0], shot.saliency[-1])
    with pytest.raises(JswsError, match="not a film"):  # never another run's
        film_of("M", profile=PROFILES["mini"], recipe=replace(STEADY, flip=False))
    assert [shot.at(step) for step in (0, 1, 3, 99)] == [0, 0, 2, 3]

    path = run_folder("M", **kwargs) / "film.npz"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(JswsError, match="film.npz is not a film"):
        film_of("M", **kwargs)
    path.unlink()
    with pytest.raises(JswsError, match="film.npz is not a film"):
        film_of("M", **kwargs)


def test_frames_lie_close_where_most_happens():
    at = film.frame_steps(1200)
    assert at[0] == 1 and at[-1] == 1200 and len(at) == film.FRAMES
    assert np.all(np.diff(at, 2) >= -1)


def test_stage_2_sees_to_its_teacher_and_pseudo_labels(tiny, home, monkeypatch):
    make = runs.make_pseudo_labels
    monkeypatch.setattr(
        runs, "make_pseudo_labels", lambda *a, **k: make(*a, **k, workers=0)
    )
    kwargs = dict(profile=replace(tiny, steps=(1, 1)), recipe=STEADY)
    seen = {}
    inner = runs.train

    def spy(net, losses, **options):
        seen[losses] = state(net), options["pseudo_labels"]
        return inner(net, losses, **options)

    monkeypatch.setattr(runs, "train", spy)
    done = train_or_load("MM", **kwargs)
    assert done.net.stage == 2
    teacher = train_or_load("M", **kwargs)
    assert teacher.source.startswith("loaded")
    start, labels = seen["L_s1", "L_s2"]
    assert labels.parent == run_folder("M", **kwargs)
    assert len(list(labels.glob("*.png"))) == 24
    key = "backbone.features.conv0.weight"  # stage2_init = "ssnet1"
    assert torch.equal(start[key], state(teacher.net)[key])
    assert seen["L_c", "L_s1"][1] is None


def test_shipped_checkpoints_serve_only_their_own_run(tiny, home, monkeypatch):
    kwargs = dict(profile=replace(tiny, steps=(1, 1)), recipe=STEADY)
    first = train_or_load("S", **kwargs)
    folder = run_folder("S", **kwargs)
    ship(folder / "weights.safetensors", "tiny_S", command="test", figures={"a": 1})
    assert shipped("tiny_S") == home / "checkpoints/tiny_S.safetensors"
    shutil.rmtree(folder)
    again = train_or_load("S", **kwargs)
    assert again.source == "shipped as tiny_S.safetensors"
    for key, value in state(first.net).items():  # matrices were stored as float16
        torch.testing.assert_close(state(again.net)[key], value, rtol=1e-3, atol=1e-4)
    assert train_or_load("S", seed=1, **kwargs).source == "trained"
    monkeypatch.setenv("JSWS_TRAIN", "1")
    assert train_or_load("S", **kwargs).source == "trained"


def test_a_shipped_file_that_is_not_the_manifests_is_refused(tiny, home):
    assert shipped("tiny_S") is None
    net = network()
    folder = home / "checkpoints"
    file = save_weights(folder / "tiny_S.safetensors", net, describe(net))
    write_bytes(folder / "manifest.json", b'{"files": {}}')
    with pytest.raises(JswsError, match="is not the file described in manifest.json"):
        shipped("tiny_S")
    checkpoints.enter(file, command="c", seed=0, figures={})
    assert shipped("tiny_S") == file
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(JswsError, match="tiny_S.*JSWS_TRAIN=1"):
        train_or_load("S", profile=tiny, recipe=STEADY)


def test_unknown_names():
    with pytest.raises(JswsError, match="setting 'X'; choose from S, M, SS"):
        train_or_load("X", profile=PROFILES["mini"], recipe=STEADY)
    with pytest.raises(JswsError, match="profile 'huge'; choose from mini, laptop, colab"):
        get_profile("huge")
    with pytest.raises(JswsError, match="recipe 'mine'; choose from steady, anchored"):
        get_recipe("mine")


def test_the_environment_names_profile_and_data(monkeypatch, tmp_path):
    monkeypatch.delenv("JSWS_PROFILE", raising=False)
    monkeypatch.delenv("JSWS_DATA", raising=False)
    assert get_profile() == PROFILES["mini"]
    monkeypatch.setenv("JSWS_PROFILE", "colab")
    monkeypatch.setenv("JSWS_DATA", str(tmp_path))
    assert get_profile().name == "colab" and get_profile().data == tmp_path
    assert get_profile("paper", data=tmp_path / "x", size=None).data == tmp_path / "x"


# --- checkpoints ---------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    net = network().eval()
    story = describe(net, setting="M", backbone="densenet_mini", seed=0,
                     recipe=recipe_fields(STEADY))  # fmt: skip
    return save_weights(tmp_path / "net.safetensors", net, story), net


def test_a_checkpoint_rebuilds_its_network(saved):
    path, net = saved
    again, story = load_ssnet(path, expect={"backbone": "densenet_mini", "stage": 1})
    assert same(state(net), state(again)) and not again.training
    assert story["torch"] and story["setting"] == "M"


def test_half_precision_keeps_batch_norm_statistics(tmp_path):
    net = network()
    with torch.no_grad():
        net.backbone.features.norm0.running_var.fill_(1e6)  # float16 ends at 65504
    path = save_weights(tmp_path / "half.safetensors", net, {"a": 1}, half=True)
    read, _ = read_weights(path)
    assert read["backbone.features.norm0.running_var"][0] == 1e6
    assert all(t.dtype != torch.float16 for t in read.values())
    full = save_weights(tmp_path / "full.safetensors", net, {"a": 1})
    assert path.stat().st_size < 0.6 * full.stat().st_size


def test_broken_checkpoints_are_one_line_each(saved, tmp_path):
    path, net = saved
    whole = path.read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[: len(whole) // 2])
    empty = tmp_path / "empty.safetensors"
    empty.write_bytes(save({"a": torch.zeros(1)}))
    nothing = tmp_path / "nothing.safetensors"
    nothing.write_bytes(b"")
    story = json.loads(json.dumps(read_weights(path)[1]))
    lying = save_weights(tmp_path / "lying.safetensors", net, {**story, "stage": 2})
    poor = save_weights(tmp_path / "poor.safetensors", net, {"seed": 0})
    odd = save_weights(
        tmp_path / "odd.safetensors", net, {**story, "recipe": {"colour": "red"}}
    )
    cases = [
        (tmp_path / "no.safetensors", "no checkpoint at .*jsws train"),
        (cut, "cut.safetensors is not a whole safetensors file"),
        (nothing, "nothing.safetensors is not a whole safetensors file"),
        (empty, "empty.safetensors was not written by `jsws train`"),
        (lying, "lying.safetensors does not hold the network its header describes"),
        (poor, "poor.safetensors does not hold the network"),
        (odd, "odd.safetensors does not hold the network"),
    ]
    for file, words in cases:
        with pytest.raises(JswsError, match=words) as caught:
            load_ssnet(file)
        assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_architecture(saved, tiny, home, pseudo):
    path, _ = saved
    with pytest.raises(JswsError, match="backbone = densenet_mini, but vgg16 is asked"):
        load_ssnet(path, expect={"backbone": "vgg16"})
    other = replace(tiny, backbone="vgg16")
    with pytest.raises(JswsError, match="backbone = densenet_mini, but vgg16 is asked"):
        train_or_load("MM", profile=other, recipe=STEADY, teacher=path,
                      pseudo_labels=pseudo, out=home / "out")  # fmt: skip


def test_a_run_folder_of_another_setting_is_not_taken_for_this_one(tiny, home):
    out = home / "mine"
    kwargs = dict(profile=replace(tiny, steps=(1, 1)), recipe=STEADY, out=out)
    train_or_load("S", **kwargs)
    with pytest.raises(JswsError, match="run tiny-steady-S-.*, but tiny-steady-M-"):
        train_or_load("M", **kwargs)


def test_interrupted_writes_leave_nothing(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    write_bytes(path, b"old")

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(path, b"new, and half of it")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"


def test_thin_averages_the_history():
    history = [{"step": k, "L_c": float(k % 2)} for k in range(400)]
    short = thin(history)
    assert len(short) == 100 and {r["L_c"] for r in short} == {0.5}
    assert short[0]["step"] == 1.5
    assert thin(history[:5]) == history[:5]


def test_only_the_profile_s_own_data_are_kept_in_memory(tmp_path, monkeypatch):
    monkeypatch.delenv("JSWS_DATA", raising=False)
    assert get_profile("mini").cache == "memory"
    assert get_profile("mini", data=tmp_path).cache == "none"
    monkeypatch.setenv("JSWS_DATA", str(tmp_path))
    assert get_profile("mini").cache == "none"
    assert get_profile("mini", data=None).data == tmp_path


def test_what_stage_2_is_given_names_another_run():
    base = dict(profile=PROFILES["mini"], recipe=STEADY)
    names = {
        run_folder("MM", **base, given=given).name
        for given in (None, {"teacher": "a"}, {"teacher": "b"}, {"pseudo_labels": "a"})
    }
    assert len(names) == 4


def test_a_resume_point_of_another_run_is_refused(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 1)

    def run(tag, steps):
        net = build_ssnet(1, backbone=tiny.backbone, size=tiny.size, recipe=STEADY)
        train(net, ("L_c",), profile=tiny, recipe=STEADY, steps=steps,
              folder=tmp_path, tag=tag)  # fmt: skip

    run("one", 2)
    assert points(tmp_path)
    with pytest.raises(JswsError, match="belongs to one, not to two"):
        run("two", 3)


def test_a_loader_process_reports_one_line(tiny, own_data):
    for photo in (own_data / tiny.voc / "JPEGImages").glob("*.jpg"):
        photo.write_bytes(photo.read_bytes()[:600])
    net = build_ssnet(1, backbone=tiny.backbone, size=tiny.size, recipe=STEADY)
    broken = replace(tiny, data=own_data, workers=1)
    with pytest.raises(JswsError, match=r"\.jpg cannot be decoded") as caught:
        train(net, ("L_c",), profile=broken, recipe=STEADY, steps=1)
    assert "\n" not in str(caught.value)


def test_labels_of_another_teacher_are_refused(tiny, home):
    kwargs = dict(profile=replace(tiny, steps=(1, 1)), recipe=STEADY)
    teachers = []
    for seed in (0, 1):
        train_or_load("M", seed=seed, **kwargs)
        teachers.append(run_folder("M", seed=seed, **kwargs) / "weights.safetensors")
    net, _ = load_ssnet(teachers[0])
    labels = runs.make_pseudo_labels(net, out=home / "labels", workers=0, **kwargs)
    with pytest.raises(JswsError, match="labels of another network than --teacher"):
        train_or_load("MM", teacher=teachers[1], pseudo_labels=labels, out=home / "a",
                      **kwargs)  # fmt: skip
    for name in ("right teacher", "labels of somebody"):
        done = train_or_load("MM", teacher=teachers[0], pseudo_labels=labels,
                             out=home / name, **kwargs)  # fmt: skip
        assert done.source == "trained"
        labels.with_name("labels.source").unlink(missing_ok=True)
        teachers.reverse()  # who made labels without a note, nobody can tell
