"""`jsws`: help that teaches, one line and status 2 for a mistake, and the whole way."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import typer
from PIL import Image

from data_utils.errors import JswsError
from data_utils.voc import read_ids, write_palette_png
from jsws_lib import checkpoints, cli, runs
from jsws_lib.checkpoints import describe, recipe_fields, save_weights
from jsws_lib.cli_options import profile_and_recipe
from jsws_lib.config import JSWS2020, PROFILES, ROOT, STEADY
from jsws_lib.ssnet import build_ssnet


def commands():
    """Every command as its words, `("train", "stage1")`."""

    def walk(command, words):
        if getattr(command, "commands", None):
            for name, child in command.commands.items():
                yield from walk(child, (*words, name))
        yield words

    return sorted(walk(typer.main.get_command(cli.app), ()))


class Result:
    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def jsws(monkeypatch, capsys, tmp_path):
    """Run the command line in this process, with runs in a folder of the test."""
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    monkeypatch.setattr(checkpoints, "SHIPPED", tmp_path / "checkpoints")
    for name in ("JSWS_PROFILE", "JSWS_DATA", "JSWS_TRAIN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["jsws", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
            raise SystemExit(0)
        captured = capsys.readouterr()
        err = "\n".join(
            line for line in captured.err.replace("\r", "\n").split("\n")
            if line.strip() and "it/s" not in line and "s/it" not in line
            and "%|" not in line and "?it" not in line
        )  # fmt: skip
        return Result(stopped.value.code or 0, captured.out, err)

    return run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """An untrained SSNet-1 of 64 px with a story as `jsws train` writes it."""
    torch.manual_seed(0)
    net = build_ssnet(1, backbone="densenet_mini", size=64, recipe=STEADY)
    story = describe(net, setting="M", backbone="densenet_mini", seed=0, profile="mini",
                     recipe=recipe_fields(STEADY), run="none", history=[])  # fmt: skip
    return save_weights(tmp_path_factory.mktemp("net") / "m.safetensors", net, story)


def refused(result, *words):
    """One line, status 2, and every word in it."""
    assert result.status == 2, (result.out, result.err)
    lines = result.err.split("\n")
    assert len(lines) == 1 and lines[0].startswith("jsws: "), result.err
    for word in words:
        assert str(word) in lines[0]


# --- help ----------------------------------------------------------------------------


def test_the_commands():
    assert {" ".join(words) for words in commands()} >= {
        "", "data make-mini", "pretrain", "train stage1", "train stage2", "pseudo-label",
        "evaluate network", "evaluate segmentation", "evaluate saliency", "predict",
        "doctor",
    }  # fmt: skip


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_teaches(jsws, words):
    result = jsws(*words, "--help")
    assert result.status == 0
    command = typer.main.get_command(cli.app)
    for word in words:
        command = command.commands[word]
    assert len(command.help or "") > 20
    for parameter in command.params:
        if parameter.name not in ("help", "install_completion", "show_completion"):
            assert parameter.help, f"{' '.join(words)} {parameter.name} has no help"
            if "<id>" in parameter.help:  # Markdown takes a bare one for HTML
                assert "<id>" in result.out
            shown = parameter.opts[0]
            if shown.startswith("--"):
                assert shown in result.out


def test_as_a_program(tmp_path):
    command = [sys.executable, "-m", "jsws_lib.cli", "evaluate", "segmentation"]
    done = subprocess.run(
        [*command, "--pred", tmp_path / "nowhere", "--gt", tmp_path],
        capture_output=True, text=True, cwd=cli.__file__.rsplit("/", 2)[0],
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"jsws: .*\n", done.stderr)


# --- mistakes ------------------------------------------------------------------------


def test_unknown_names(jsws, checkpoint, tmp_path):
    profiles = "mini, laptop, colab, paper"
    refused(jsws("train", "stage1", "--profile", "huge"), "'huge'", profiles)
    refused(jsws("train", "stage1", "--recipe", "mine"), "'mine'", "steady, anchored")
    refused(jsws("train", "stage2", "--setting", "S"), "'S'", "MM")
    refused(jsws("train", "stage2", "--setting", "X"), "'X'", "MM")
    refused(jsws("pseudo-label", "--checkpoint", checkpoint, "--recipe", "x"), "'x'")
    assert jsws("train", "stage1", "--backbone", "resnet").status == 2
    assert jsws("bake").status == 2


def test_an_unknown_profile_in_the_environment(jsws, monkeypatch):
    monkeypatch.setenv("JSWS_PROFILE", "giant")
    refused(jsws("train", "stage1"), "'giant'", "mini, laptop, colab, paper")


def test_missing_data(jsws, tmp_path):
    refused(jsws("train", "stage1", "--data", tmp_path / "none"), "none", "train_aug.txt")
    refused(jsws("train", "stage2", "--teacher", tmp_path / "t.safetensors", "--out",
                 tmp_path / "out"), "no checkpoint", "t.safetensors")  # fmt: skip


def damaged(jsws, own_data, *words):
    return jsws("train", "stage1", "--data", own_data, "--size", 64, "--steps", 8,
                "--batch", 4, *words)  # fmt: skip


def test_a_truncated_jpeg(jsws, own_data):
    voc = own_data / "VOCdevkit/VOC2012"
    name = read_ids(voc / "ImageSets/Segmentation/train_aug.txt")[5]
    path = voc / f"JPEGImages/{name}.jpg"
    path.write_bytes(path.read_bytes()[:700])
    refused(damaged(jsws, own_data, "--labels-only"), path, "cannot be decoded")


def test_an_id_list_naming_a_missing_image(jsws, own_data):
    voc = own_data / "VOCdevkit/VOC2012"
    with (voc / "ImageSets/Segmentation/train_aug.txt").open("a") as file:
        file.write("2007_000032\n")
    refused(damaged(jsws, own_data), "train_aug.txt", "2007_000032.jpg")


def test_a_saliency_mask_of_the_wrong_size(jsws, own_data):
    for path in (own_data / "DUTS-TR/DUTS-TR-Mask").glob("*.png"):
        Image.new("L", (60, 64)).save(path)
    refused(damaged(jsws, own_data), ".png is 60 x 64 px", "64 x 64 px")


@pytest.mark.parametrize(
    ("mask", "words"),
    [(Image.new("L", (64, 64), 77), "value 77"), (Image.new("L", (60, 64)), "60 x 64")],
)
def test_bad_pseudo_labels(jsws, own_data, checkpoint, tmp_path, mask, words):
    voc = own_data / "VOCdevkit/VOC2012"
    for name in read_ids(voc / "ImageSets/Segmentation/train_aug.txt"):
        mask.save(tmp_path / f"{name}.png")
    result = jsws("train", "stage2", "--setting", "MS", "--data", own_data, "--size", 64,
                  "--steps", 1, "--batch", 2, "--teacher", checkpoint,
                  "--pseudo-labels", tmp_path, "--out", tmp_path / "out")  # fmt: skip
    refused(result, words, ".png")


def test_bad_masks_in_evaluation(jsws, tmp_path):
    for folder in ("pred", "gt"):
        (tmp_path / folder).mkdir()
        write_palette_png(tmp_path / folder / "a.png", np.zeros((5, 6), np.uint8))

    def evaluate(*more):
        return jsws("evaluate", "segmentation", "--pred", tmp_path / "pred", "--gt",
                    tmp_path / "gt", *more)  # fmt: skip

    assert evaluate().status == 0
    refused(evaluate("--list", tmp_path / "none.txt"), "none.txt")
    (tmp_path / "some.txt").write_text("a\nb\n")
    refused(evaluate("--list", tmp_path / "some.txt"), "gt", "b")
    Image.new("L", (6, 5), 77).save(tmp_path / "gt/a.png")
    refused(evaluate(), "a.png", "77")
    Image.new("L", (6, 4)).save(tmp_path / "gt/a.png")
    refused(evaluate(), "a.png", "6 x 4 px")
    (tmp_path / "pred/a.png").unlink()
    refused(evaluate(), "pred", "lacks predictions of a")


def test_bad_input_of_predict(jsws, checkpoint, mini_data, tmp_path):
    photo = sorted((mini_data / "ECSSD/images").glob("*.jpg"))[0]
    out = ("--out", tmp_path / "out")
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(photo.read_bytes()[:700])
    half = tmp_path / "half.safetensors"
    half.write_bytes(checkpoint.read_bytes()[:-100])
    given = ("--checkpoint", checkpoint)
    refused(jsws("predict", tmp_path / "no.jpg", *given, *out), "no.jpg")
    refused(jsws("predict", cut, *given, *out), "cut.jpg", "cannot be decoded")
    refused(jsws("predict", photo, *given, "--backbone", "vgg16", *out),
            checkpoint, "densenet_mini", "vgg16")  # fmt: skip
    refused(jsws("predict", photo, "--checkpoint", half, *out), "half.safetensors")
    refused(jsws("predict", photo, "--checkpoint", photo, *out), photo, "safetensors")
    missing = tmp_path / "no.safetensors"
    refused(jsws("predict", photo, "--checkpoint", missing, *out), missing)


def test_a_checkpoint_of_another_architecture(jsws, checkpoint, tmp_path):
    given = ("--checkpoint", checkpoint, "--backbone", "vgg16")
    refused(jsws("pseudo-label", *given, "--out", tmp_path / "p"), "densenet_mini", "vgg16")
    result = jsws("train", "stage2", "--teacher", checkpoint, "--backbone", "vgg16",
                  "--out", tmp_path / "o")  # fmt: skip
    refused(result, checkpoint, "densenet_mini", "vgg16")


STAGE1 = ("train", "stage1")


@pytest.mark.parametrize(
    ("words", "option", "value"),
    [(STAGE1, "--steps", 0), (STAGE1, "--batch", 0), (STAGE1, "--size", 0),
     (STAGE1, "--seed", -1), (STAGE1, "--workers", -1), (STAGE1, "--lr", 0),
     (STAGE1, "--lr", "nan"), (STAGE1, "--weights", "none.pth"),
     (("pseudo-label",), "--crf-scale", -1), (("pseudo-label",), "--processes", -1),
     (("pseudo-label",), "--crf", "best"), (("train", "stage2"), "--crf", "best"),
     (("pretrain",), "--images", 0), (("pretrain",), "--epochs", 0)],
)  # fmt: skip
def test_impossible_values(jsws, words, option, value):
    result = jsws(*words, option, value)
    assert (result.status, result.out) == (2, "")
    assert result.err.count("Invalid value") == result.err.count(option) == 1


# --- the whole way -------------------------------------------------------------------


def test_from_data_to_figures(jsws, mini_data, tmp_path):
    """Both stages, prediction and measures on 64 px images, three steps each."""
    own = ("--data", mini_data, "--size", 64)
    short = ("--steps", 3, "--batch", 3)
    one, two = tmp_path / "one", tmp_path / "two"
    weights = "weights.safetensors"

    result = jsws("train", "stage1", *own, *short, "--out", one, "--json")
    assert result.status == 0, result.err
    record = json.loads(result.out)
    assert record["setting"] == "M" and record["step"] == 2
    assert {"L_c", "L_s1"} <= set(record)

    labels = tmp_path / "labels"
    result = jsws("pseudo-label", *own, "--checkpoint", one / weights, "--out", labels,
                  "--processes", 0)  # fmt: skip
    assert result.status == 0 and "24 pseudo labels" in result.out, result.err

    result = jsws("train", "stage2", *own, *short, "--teacher", one / weights,
                  "--pseudo-labels", labels, "--out", two)  # fmt: skip
    assert result.status == 0 and "L_s2" in result.out, result.err

    voc = mini_data / "VOCdevkit/VOC2012"
    val = read_ids(voc / "ImageSets/Segmentation/val.txt")
    photos = [voc / f"JPEGImages/{i}.jpg" for i in val]
    network = ("evaluate", "network", "--checkpoint", two / weights, "--data", mini_data)
    direct = json.loads(jsws(*network, "--json").out)
    assert direct["setting"] == "MM" and {"miou", "mae", "max_f"} <= set(direct)

    maps = tmp_path / "maps"
    result = jsws("predict", *photos, mini_data / "ECSSD/images", "--checkpoint",
                  two / weights, "--out", maps, "--plain")  # fmt: skip
    assert result.status == 0 and "16 pictures" in result.out, result.err

    # ECSSD's predictions lie beside VOC's: a list says which ones count.
    segmentation = ("evaluate", "segmentation", "--pred", maps / "segmentation", "--gt",
                    voc / "SegmentationClass")  # fmt: skip
    refused(jsws(*segmentation), "stale")
    listed = (*segmentation, "--list", voc / "ImageSets/Segmentation/val.txt")
    record = json.loads(jsws(*listed, "--json").out)
    assert 0 <= record["miou"] <= 1 and len(record["iou"]) == 21
    assert record["miou"] == pytest.approx(direct["miou"], abs=1e-4)
    assert f"{100 * record['miou']:.1f}" in jsws(*listed).out
    assert "aeroplane" in jsws(*listed).out

    ids = tmp_path / "ecssd.txt"
    ids.write_text("\n".join(p.stem for p in (mini_data / "ECSSD/images").glob("*.jpg")))
    saliency = ("evaluate", "saliency", "--pred", maps / "saliency", "--gt",
                mini_data / "ECSSD/ground_truth_mask", "--list", ids)  # fmt: skip
    for protocol in ("toolbox", "pysod"):
        record = json.loads(jsws(*saliency, "--protocol", protocol, "--json").out)
        assert record["protocol"] == protocol and record["images"] == 8
        assert 0 <= record["mae"] <= 1 and 0 <= record["max_f"] <= 1
        if protocol == "toolbox":
            assert record["max_f"] == pytest.approx(direct["max_f"], abs=1e-4)
        assert protocol in jsws(*saliency, "--protocol", protocol).out

    result = jsws("predict", photos[0], "--checkpoint", one / weights, "--out", maps)
    names = {p.name.removeprefix(val[0]) for p in maps.glob("*.png")}
    assert result.status == 0 and names == {".png", "_saliency.png", "_overlay.png"}


def test_a_second_call_loads_the_finished_run(jsws, mini_data, tmp_path):
    words = ("train", "stage1", "--labels-only", "--data", mini_data, "--size", 64,
             "--steps", 1, "--batch", 2, "--json")  # fmt: skip
    first, second = (json.loads(jsws(*words).out) for _ in range(2))
    assert first["source"] == "trained" and second["source"].startswith("loaded from")
    assert first["folder"] == second["folder"]
    assert first["folder"].startswith(str(tmp_path / "runs"))


def test_the_version_is_that_of_the_package(jsws, root):
    assert f'version = "{jsws("--version").out.strip()}"' in (
        root / "pyproject.toml").read_text()  # fmt: skip
    assert "A first run on the embedded data" in jsws("--help").out


def test_check_names_the_sets_that_are_not_there(jsws, own_data):
    assert "not under" not in jsws("data", "check", "--data", own_data).out
    shutil.rmtree(own_data / "DUTS-TR")
    said = jsws("data", "check", "--data", own_data).out
    assert f"not under {own_data}: DUTS-TR, which" in said.replace("\n", " ")


def test_a_shipped_network_is_not_said_to_be_trained(jsws, monkeypatch):
    shipped = runs.Trained(None, [{"step": 5, "lr": 0.1}], "shipped as mini_M.safetensors")
    monkeypatch.setattr(runs, "train_or_load", lambda *words, **options: shipped)
    said = jsws("train", "stage1").out
    assert "nothing was trained; JSWS_TRAIN=1" in said
    assert "folder" not in said.replace("--out folder", "") and "step" not in said


def test_make_mini_passes_its_options_on(jsws, monkeypatch, tmp_path):
    from data_utils import mini

    seen = {}
    monkeypatch.setattr(mini, "make_mini", lambda root, **k: seen.update(k) or root)
    words = ("data", "make-mini", tmp_path / "d", "--seed", 3, "--size", 64, "--workers", 1)
    assert jsws(*words).status == 0
    assert seen == {"seed": 3, "size": 64, "workers": 1}


def test_a_foreign_folder_is_not_overwritten(jsws, tmp_path):
    (tmp_path / "precious.txt").write_text("x")
    refused(jsws("data", "make-mini", tmp_path), tmp_path, "not written by make-mini")
    assert (tmp_path / "precious.txt").exists()


def test_options_reach_the_profile_and_the_recipe():
    p, r = profile_and_recipe(
        "mini", "paper", stage=2, steps=7, batch=3, lr=0.5, size=64, backbone="vgg16",
        weights="file.pth", workers=None, crf="deeplab", leaky_labels=True,
    )  # fmt: skip
    mini = PROFILES["mini"]
    one, two = mini.schedules
    expected = replace(
        mini, steps=(mini.steps[0], 7), batch_class=3, batch_saliency=3, size=64,
        backbone="vgg16", weights="file.pth", schedules=(one, replace(two, lr=0.5)),
    )  # fmt: skip
    assert p == expected
    assert (r.name, r.crf, r.leaky_labels) == ("paper", "deeplab", True)


def test_set_changes_one_field_of_the_recipe():
    words = ["class_evidence=odds", "evidence_share=1", "sam_rate=none", "skips=true"]
    _, r = profile_and_recipe("mini", change=words)
    assert (r.class_evidence, r.evidence_share, r.sam_rate, r.skips) == (
        "odds", 1.0, None, True)  # fmt: skip
    assert r.name.startswith("steady+class_evidence=odds") and "skips=True" in r.name
    for wrong, said in [("size=3", "no FIELD=VALUE"), ("skips=maybe", "skips is a bool"),
                        ("rotate=far", "rotate is a float"), ("odds", "no FIELD=VALUE"),
                        ("class_evidence=new", "choose from mean_probs")]:  # fmt: skip
        with pytest.raises(JswsError, match=said):
            profile_and_recipe("mini", change=[wrong])


@pytest.mark.parametrize("stage", [1, 2])
def test_lr_reaches_a_recipe_with_its_own_schedules(stage):
    p, r = profile_and_recipe("mini", "jsws2020", stage=stage, lr=0.5)
    rates = [schedule.lr for schedule in JSWS2020.schedules]
    rates[stage - 1] = 0.5
    assert [schedule.lr for schedule in r.schedules] == rates
    assert p == PROFILES["mini"]  # else stage 1 would count as another run


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_weights_leak_and_crf_reach_training(jsws, monkeypatch, checkpoint, stage):
    seen = {}
    monkeypatch.setattr(cli, "_train", lambda setting, p, r, *a, **k: seen.update(p=p, r=r))
    crf = ("--crf", "oaa") if stage == "stage2" else ()
    words = ("train", stage, "--weights", checkpoint, "--leaky-labels", *crf)
    assert jsws(*words).status == 0
    assert seen["p"].weights == str(checkpoint.resolve()) and seen["r"].leaky_labels
    assert seen["r"].crf == (crf or (None, STEADY.crf))[1]


def test_pseudo_labels_of_another_seed(jsws, monkeypatch, tmp_path):
    from jsws_lib import pseudo_labels

    seen = []
    monkeypatch.setattr(
        runs, "train_or_load",
        lambda *a, seed, **k: seen.append(seed) or runs.Trained(None, [], ""),
    )  # fmt: skip
    monkeypatch.setattr(
        pseudo_labels, "make_pseudo_labels", lambda *a, out, **k: seen.append(out)
    )
    result = jsws("pseudo-label", "--seed", 3)
    assert result.status == 0, result.err
    assert seen[0] == 3 and "mini-steady-M-3-" in str(seen[1])


def test_pretrain_leaves_the_shipped_file_alone(jsws, monkeypatch):
    from jsws_lib import pretrain

    seen = {}
    refused(jsws("pretrain", "--images", 20), "20 images", "64 or more")
    monkeypatch.setattr(pretrain, "pretrain", lambda **k: seen.update(k) or 0.5)
    assert jsws("pretrain").status == 0
    assert seen["out"] == ROOT / "runs/pretrain/densenet_mini.safetensors"


def test_evaluate_network(jsws, checkpoint, mini_data, tmp_path):
    """Lists and folders of one's own, and the CRF by name."""
    voc = mini_data / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    photos = sorted((mini_data / "ECSSD/images").glob("*.jpg"))
    (tmp_path / "two.txt").write_text("\n".join(p.stem for p in photos[:2]))
    given = ("evaluate", "network", "--checkpoint", checkpoint, "--data", mini_data)
    own = ("--test-images", mini_data / "ECSSD/images", "--test-masks",
           mini_data / "ECSSD/ground_truth_mask", "--test-list", tmp_path / "two.txt",
           "--val-list", "val")  # fmt: skip
    result = jsws(*given, *own, "--crf", "oaa", "--crf-scale", 0.2, "--json")
    assert result.status == 0, result.err
    record = json.loads(result.out)
    assert {"miou", "mae", "max_f", "mae_crf", "max_f_crf"} <= set(record)
    named = [record[key] for key in ("protocol", "crf", "crf_scale")]
    assert named == ["toolbox", "oaa", 0.2]
    refused(jsws(*given, "--val-list", "mine"), voc / "mine.txt")
    refused(jsws(*given, "--test-list", "mine.txt"), mini_data / "mine.txt")
    refused(jsws(*given, "--test-images", tmp_path), "no *.jpg", tmp_path)
    refused(jsws(*given, "--crf-scale", 1), "--crf")


def test_the_convention_of_the_mean_iou_is_named_and_chosen(jsws, checkpoint, mini_data):
    given = ("evaluate", "network", "--checkpoint", checkpoint, "--data", mini_data)
    found = {}
    for absent in ("target", "zero"):
        record = json.loads(jsws(*given, "--absent", absent, "--json").out)
        assert record["absent"] == absent
        found[absent] = record["miou"]
    assert found["zero"] < found["target"]  # eight images hold few of 21 classes
    assert json.loads(jsws(*given, "--json").out)["miou"] == found["target"]


def test_no_saliency_map_of_a_network_that_saw_no_mask(jsws, mini_data, tmp_path):
    picture = min((mini_data / "ECSSD/images").glob("*.jpg"))
    s = ROOT / "checkpoints/mini_S.safetensors"
    words = ("predict", picture, "--checkpoint", s, "--out", tmp_path / "out")
    result = jsws(*words)
    assert "setting S saw no saliency mask" in result.out, result.err
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {f"{picture.stem}.png", f"{picture.stem}_overlay.png"}
    jsws(*words, "--plain")
    assert not (tmp_path / "out/saliency").exists()
    refused(jsws(*words, "--crf", "readme"), s, "no saliency map to refine")


def test_the_crf_of_predict_has_the_scale_of_the_training(jsws, mini_data, tmp_path):
    picture = min((mini_data / "ECSSD/images").glob("*.jpg"))
    words = ("predict", picture, "--checkpoint", ROOT / "checkpoints/mini_MM.safetensors",
             "--crf", "readme", "--out")  # fmt: skip
    assert "scale 0.192" in jsws(*words, tmp_path / "a").out
    assert "scale 1" in jsws(*words, tmp_path / "b", "--crf-scale", 1).out
    one, two = (tmp_path / x / f"{picture.stem}_saliency.png" for x in "ab")
    assert one.read_bytes() != two.read_bytes()


def test_predict_a_list_and_refine(jsws, checkpoint, mini_data, tmp_path):
    folder, ids = mini_data / "ECSSD/images", tmp_path / "ids.txt"
    name = min(p.stem for p in folder.glob("*.jpg"))
    ids.write_text(f"{name}\n")

    def predict(out, *more):
        return jsws("predict", *more, "--checkpoint", checkpoint, "--plain", "--list", ids,
                    "--out", tmp_path / out)  # fmt: skip

    assert "1 picture " in predict("raw", folder).out
    result = predict("crf", folder, "--crf", "readme", "--crf-scale", 0.2)
    assert result.status == 0 and "preset readme" in result.out, result.err
    for kind, same in (("segmentation", True), ("saliency", False)):
        raw, crf = (tmp_path / out / f"{kind}/{name}.png" for out in ("raw", "crf"))
        assert (raw.read_bytes() == crf.read_bytes()) is same
    refused(predict("no", folder, folder), "--list", "one folder")
    ids.write_text(f"{name}\nabsent\n")
    refused(predict("no", folder), ids, "absent.jpg")
    assert not (tmp_path / "no").exists()


def test_predict_refuses_what_would_overwrite_itself(jsws, checkpoint, tmp_path):
    for folder in ("a", "b", "empty"):
        (tmp_path / folder).mkdir()
    for folder in ("a", "b"):
        Image.new("RGB", (20, 20)).save(tmp_path / folder / "cat.jpg")
    given = ("--checkpoint", checkpoint, "--out", tmp_path / "out")
    refused(jsws("predict", tmp_path / "a", tmp_path / "b", *given), "cat.png", "both")
    refused(jsws("predict", tmp_path / "empty", *given), tmp_path / "empty")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("plain", [(), ("--plain",)])
def test_predict_never_overwrites_a_picture(jsws, checkpoint, tmp_path, plain):
    folder = tmp_path / "pics" / ("saliency" if plain else "")
    folder.mkdir(parents=True)
    cat, over = folder / "cat.png", folder / "cat_overlay.png"
    for path in (cat, over):
        Image.new("RGB", (20, 20)).save(path)
    before = cat.read_bytes()
    given = ("--checkpoint", checkpoint, *plain, "--out")
    there = tmp_path / "x" / ".." / "pics"  # the same folder by another name
    refused(jsws("predict", cat, *given, there), "overwrite", cat)
    assert cat.read_bytes() == before
    if not plain:
        out = tmp_path / "out"
        refused(jsws("predict", cat, over, *given, out), out / "cat_overlay.png", "both")


def test_ablate_plans_then_trains_and_draws(jsws, mini_data, tmp_path, monkeypatch):
    monkeypatch.setenv("JSWS_RUNS", str(tmp_path / "runs"))
    ask = ("ablate", "--data", mini_data, "--size", 64, "--batch", 4, "--steps1", 2,
           "--steps2", 3, "--lr2", 1e-3, "--seeds", 1, "--settings", "SS")  # fmt: skip
    planned = jsws(*ask, "--dry-run")
    assert planned.status == 0, planned.err
    assert "2 runs" in planned.out and "3 steps; seed 0 (to do)" in planned.out
    assert "about" in planned.out and not (tmp_path / "runs").exists()
    done = jsws(*ask, "--jobs", 1, "--out", tmp_path / "out" / "a.json")
    assert done.status == 0, done.err
    assert "| S-S: SSNet-2" in done.out and "47.1" in done.out
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"a.json", "a.png"}
    result = json.loads((tmp_path / "out" / "a.json").read_text())
    assert result["configuration"]["profile"]["steps"] == [2, 3]
    assert result["configuration"]["profile"]["schedules"][1]["lr"] == 1e-3


def test_ablate_without_data_says_what_is_missing(jsws, tmp_path):
    result = jsws("ablate", "--profile", "paper", "--data", tmp_path, "--dry-run")
    assert result.status == 1
    assert result.out.count("FAIL") == 4 and "train_aug.txt" in result.out
    refused(jsws("ablate", "--seeds", "0"), "--seeds 0")
    refused(jsws("ablate", "--settings", "S,Q"), "'Q'", "2S")
    refused(jsws("ship", "S", "--seed", 77), "make ablate")
