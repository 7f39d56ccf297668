"""`jsws`: help that teaches, one line and status 2 for a mistake, and the whole way."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from helpers import network, stored
from PIL import Image

from data_utils.real.download import sources
from data_utils.voc import read_ids
from jsws_lib.cli import main as cli
from jsws_lib.config import ROOT, get_recipe
from jsws_lib.engine import checkpoints, runs
from jsws_lib.experiments import pretrain

# --- help ----------------------------------------------------------------------------


def commands():
    """Every command as its words, `("train", "stage1")`."""

    def walk(command, words):
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, (*words, name))
        yield words

    return sorted(walk(typer.main.get_command(cli.app), ()))


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_teaches(jsws, words):
    result = jsws(*words, "--help")
    command = typer.main.get_command(cli.app)
    for word in words:
        command = command.commands[word]
    assert result.status == 0 and len(command.help or "") > 20
    for parameter in command.params:
        if parameter.name not in ("help", "install_completion", "show_completion"):
            assert parameter.help, f"{' '.join(words)} {parameter.name} has no help"
            if "<id>" in parameter.help:  # Markdown takes a bare one for HTML
                assert "<id>" in result.out
            assert parameter.opts[0] in result.out or parameter.opts[0][0] != "-"


def test_the_version_is_that_of_the_package(jsws):
    version = f'version = "{jsws("--version").out.strip()}"'
    assert version in (ROOT / "pyproject.toml").read_text()


def test_as_a_program(tmp_path):
    words = ["evaluate", "segmentation", "--pred", tmp_path / "nowhere", "--gt", tmp_path]
    command = [sys.executable, "-m", "jsws_lib.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"jsws: .*\n", done.stderr)


# --- mistakes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "train stage2 --setting S",
            "setting 'S' is not of stage 2; choose SS, MS, MM, 2S",
        ),
        ("train stage2 --teacher x", "need --out: name the run folder"),
        ("ablate --settings S,,M", "--settings S,,M: give some of S, M, SS, MS, MM, 2S"),
    ],
)
def test_a_mistake_is_told_with_its_remedy(jsws, words, said):
    jsws(words).refuses(said)


def test_a_checkpoint_of_another_architecture(jsws, checkpoint, tmp_path):
    for words in ("pseudo-label --checkpoint", "train stage2 --teacher"):
        result = jsws(words, checkpoint, "--backbone vgg16 --out", tmp_path / "out")
        result.refuses(checkpoint, "densenet_mini", "vgg16")


# --- the whole way -------------------------------------------------------------------


def test_from_data_to_figures(jsws, mini_data, tmp_path, monkeypatch):
    """Both stages, prediction and measures, under a name of every kind of letter."""
    home = tmp_path / "Größe & 顕著性 (1) Ελ'"
    data = Path(shutil.copytree(mini_data, home / "data root"))
    monkeypatch.setenv("JSWS_DATA", str(data))
    monkeypatch.setattr("data_utils.parallel.available_cores", lambda: 1)
    short = "--size 64 --steps 3 --batch 3"
    one, two, labels, maps = (home / x for x in ("one é", "run zwei", "la bels", "maps"))
    first, second = (folder / "weights.safetensors" for folder in (one, two))

    record = json.loads(jsws("train stage1", short, "--out", one, "--json").out)
    assert record["setting"] == "M" and record["step"] == 2
    assert {"L_c", "L_s1"} <= set(record)
    words = ("pseudo-label --processes 0 --size 64 --checkpoint", first, "--out", labels)
    assert "24 pseudo labels" in jsws(*words).out
    given = ("--teacher", first, "--pseudo-labels", labels, "--set cache=decoded")
    done = jsws("train stage2", short, "--data", data, *given, "--out", two)
    assert "L_s2" in done.out, done.err

    measure = "evaluate network --json --checkpoint", second
    direct, mirrored = (
        json.loads(jsws(*measure, *more).out) for more in ((), ("--set mirror=true",))
    )
    assert direct["mae"] != mirrored["mae"]  # what is asked for is done
    assert direct["setting"] == "MM" and {"miou", "mae", "max_f"} <= set(direct)

    voc, ecssd = data / "VOCdevkit/VOC2012", data / "ECSSD"
    ids = voc / "ImageSets/Segmentation/val.txt"
    photos = [voc / f"JPEGImages/{i}.jpg" for i in read_ids(ids)]
    words = ("--plain --checkpoint", second, "--out", maps)
    assert "16 pictures" in jsws("predict", *photos, ecssd / "images", *words).out

    # ECSSD's predictions lie beside VOC's: a list says which ones count.
    folders = ("--pred", maps / "segmentation", "--gt", voc / "SegmentationClass")
    jsws("evaluate segmentation", *folders).refuses("stale")
    words = ("evaluate segmentation", *folders, "--list", ids)
    record, text = json.loads(jsws(*words, "--json").out), jsws(*words).out
    assert record["miou"] == pytest.approx(direct["miou"], abs=1e-4)
    assert f"{100 * record['miou']:.1f}" in text and "aeroplane" in text

    ids = home / "ecssd.txt"
    ids.write_text("\n".join(path.stem for path in (ecssd / "images").glob("*.jpg")))
    folders = ("--pred", maps / "saliency", "--gt", ecssd / "ground_truth_mask")
    words = ("evaluate saliency", *folders, "--list", ids)
    record = json.loads(jsws(*words, "--json").out)
    assert record["protocol"] == "toolbox" and record["images"] == 8
    assert record["max_f"] == pytest.approx(direct["max_f"], abs=1e-4)
    assert "pysod" in jsws(*words, "--protocol pysod").out

    picture, out = home / "ein Bild ü.jpg", home / "Bilder – 1"
    shutil.copy(photos[0], picture)
    jsws("predict", picture, "--checkpoint", first, "--out", out)
    names = {path.name.removeprefix("ein Bild ü") for path in out.iterdir()}
    assert names == {".png", "_saliency.png", "_overlay.png"}


def test_a_second_call_loads_the_finished_run(jsws, mini_data, tmp_path):
    words = ("train stage1 --labels-only --size 64 --steps 1 --batch 2 --data", mini_data)
    first, second = (json.loads(jsws(*words, "--json").out) for _ in range(2))
    assert first["source"] == "trained" and second["source"].startswith("loaded from")
    assert first["folder"] == second["folder"]
    assert (
        "L_c" in first and "L_c" not in second and "nothing was trained" in second["note"]
    )
    assert first["folder"].startswith(str(tmp_path / "runs"))


def test_a_shipped_network_is_not_said_to_be_trained(jsws, monkeypatch):
    shipped = runs.Trained(None, [{"step": 5, "lr": 0.1}], "shipped as mini_M.safetensors")
    monkeypatch.setattr(runs, "train_or_load", lambda *words, **options: shipped)
    said = jsws("train stage1").out
    assert "nothing was trained; JSWS_TRAIN=1" in said
    assert "folder" not in said.replace("--out folder", "") and "step" not in said


def test_ablate_plans_then_trains_and_draws(jsws, mini_data, tmp_path, monkeypatch):
    monkeypatch.setenv("JSWS_RUNS", str(tmp_path / "runs"))
    small = "--size 64 --batch 4 --steps 2,3 --set lr=0.002,0.001 --seeds 1 --settings SS"
    ask = ("ablate", small, "--data", mini_data)
    planned = jsws(*ask, "--dry-run")
    assert "5 runs" in planned.out and "3 steps; seed 0 (to do)" in planned.out
    assert "about" in planned.out and not (tmp_path / "runs").exists()
    done = jsws(*ask, "--jobs 1 --out", tmp_path / "out" / "a.json")
    assert "| S-S: SSNet-2" in done.out and "47.1" in done.out, done.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.json", "a.png"}
    result = json.loads((tmp_path / "out/a.json").read_text())
    profile = result["configuration"]["profile"]
    assert result["images"] == 8
    assert profile["steps"] == [2, 3]
    assert [schedule["lr"] for schedule in profile["schedules"]] == [2e-3, 1e-3]


def test_ablate_without_data_says_what_is_missing(jsws, tmp_path):
    result = jsws("ablate --profile paper --dry-run --data", tmp_path)
    assert result.status == 1
    assert result.out.count("FAIL") == 4 and "train_aug.txt" in result.out


# --- data ----------------------------------------------------------------------------


def test_check_names_the_sets_that_are_not_there(jsws, own_data):
    assert "not under" not in jsws("data check --data", own_data).out
    shutil.rmtree(own_data / "DUTS-TR")
    said = jsws("data check --data", own_data).out
    assert f"not under {own_data}: DUTS-TR, which" in said.replace("\n", " ")


def test_pretrain_leaves_the_shipped_file_alone(jsws, monkeypatch):
    seen = {}
    monkeypatch.setattr(pretrain, "pretrain", lambda **k: seen.update(k) or 0.5)
    assert jsws("pretrain").status == 0
    assert seen["out"] == ROOT / "runs/pretrain/densenet_mini.safetensors"


# --- measuring and predicting --------------------------------------------------------


def test_evaluate_network(jsws, checkpoint, mini_data, tmp_path, monkeypatch):
    """Lists and folders of one's own, the CRF by name, test sets that are whole."""
    photos = sorted((mini_data / "ECSSD/images").glob("*.jpg"))
    (tmp_path / "two.txt").write_text("\n".join(path.stem for path in photos[:2]))
    given = ("evaluate network --json --checkpoint", checkpoint, "--data", mini_data)
    own = f"--set test_list={tmp_path}/two.txt --crf oaa --set crf_scale=0.2"
    record = json.loads(jsws(*given, own).out)
    assert {"miou", "mae", "max_f", "mae_crf", "max_f_crf"} <= set(record)
    named = [record[key] for key in ("protocol", "crf", "crf_scale", "absent")]
    assert named == ["toolbox", "oaa", 0.2, "target"]
    target = json.loads(jsws(*given).out)
    assert record["miou"] == target["miou"] and "mae_crf" not in target
    for names in ("all", "SOD,ECSSD", "DUTS-TR"):
        refused = jsws(*given, "--test-sets", names)
        refused.refuses(f"--test-sets {names}: of DUTS-TE, ECSSD", "are none", "data list")
    there = (replace(one, holds={k: 1 for k in one.holds}) for one in sources().values())
    known = {one.name: one for one in there}
    monkeypatch.setattr("data_utils.real.download.sources", lambda: known)
    sets = json.loads(jsws(*given, "--test-sets all").out)
    figures = {key: target[key] for key in ("mae", "max_f", "images")}
    assert sets["test_sets"] == {"ECSSD": figures}
    assert sets["miou"] == target["miou"] and "max_f" not in sets
    assert (record["images"], target["images"]) == (2, 8) and "images" not in sets


def test_measuring_takes_the_mirror_that_is_asked_for(
    jsws, checkpoint, mini_data, tmp_path
):
    recipe = get_recipe(mirror=True)
    more = {"recipe": checkpoints.recipe_fields(recipe)}
    net = stored(tmp_path / "mirror.safetensors", network(recipe=recipe), **more)
    words = "evaluate network --json --data", mini_data, "--checkpoint"
    (plain, asked), (own, refused) = (
        [json.loads(jsws(*words, one, *more).out) for more in ((), (f"--set mirror={x}",))]
        for one, x in ((checkpoint, "true"), (net, "false"))
    )
    assert plain["mae"] == refused["mae"] != asked["mae"] == own["mae"]
    assert asked["mirror"] is own["mirror"] is True
    assert "mirror" not in plain.keys() | refused.keys()


@pytest.mark.parametrize(
    ("text", "more"),
    [
        *((one, "") for one in "size=32 backbone=vgg16 steps=7 lr=1 crf=oaa".split()),
        *((one, "") for one in "crf_scale=2 accumulate=auto precision=bf16".split()),
        ("test_list=two.txt", "--test-sets all"),
    ],
)
def test_a_setting_that_measuring_does_not_read_is_refused(jsws, checkpoint, text, more):
    given = ("evaluate network --checkpoint", checkpoint, more, "--set", text)
    said = f"--set {text} changes nothing here; measuring reads data, voc, val_list"
    jsws(*given).refuses(said)


def test_without_a_saliency_test_set_there_is_the_miou(jsws, checkpoint, own_data):
    given = ("evaluate network --json --checkpoint", checkpoint, "--data", own_data)
    whole, images = json.loads(jsws(*given).out), own_data / "ECSSD/images"
    shutil.rmtree(own_data / "ECSSD")
    record = json.loads(jsws(*given).out)
    assert record["miou"] == whole["miou"] and not {"mae", "protocol"} & set(record)
    assert record["note"] == f"no saliency test set at {images}: only mIoU was measured"
    jsws(*given, "--set test_images=ECSSD/images").refuses("no picture in", images)
    jsws(*given, "--test-sets ECSSD").refuses("--test-sets ECSSD: of DUTS-TE")
    images.mkdir(parents=True)
    jsws(*given).refuses("no picture in", images)
    shutil.rmtree(own_data / "ECSSD")
    shutil.rmtree(own_data / "VOCdevkit")
    jsws(*given).refuses("val.txt")


@pytest.mark.parametrize("names", [("sheep", "cat"), ("sheep", "unicorn")])
def test_a_network_of_two_categories_on_voc_masks(jsws, mini_data, tmp_path, names):
    """Whatever is asked for, category and mask are compared by name, or refused."""
    net = network(categories=2)
    file = stored(tmp_path / "two.safetensors", net, categories=list(names))
    voc = mini_data / "VOCdevkit/VOC2012"
    given = ("evaluate network --json --checkpoint", file, "--data", mini_data)
    by_network = json.loads(jsws(*given).out)
    assert "sheep" not in by_network["unknown"] and "cow" in by_network["unknown"]
    ids = voc / "ImageSets/Segmentation/val.txt"
    words = ("predict", voc / "JPEGImages", "--plain --checkpoint", file, "--list", ids)
    truth = ("--absent target --gt", voc / "SegmentationClass", "--list", ids)
    for numbers in ("own", "voc"):
        made = jsws(*words, "--out", tmp_path / numbers, "--numbers", numbers)
        if "unicorn" in names and numbers == "voc":
            made.refuses("VOC has no category 'unicorn'")
            continue
        pred = ("evaluate segmentation --pred", tmp_path / numbers / "segmentation")
        record = json.loads(jsws(*pred, *truth, "--json").out)
        assert record["miou"] == pytest.approx(by_network["miou"], abs=1e-4)
        lost = ", ".join(by_network["unknown"])
        told = f"{lost}: not known to the network" in jsws(*pred, *truth).out
        assert told is (numbers == "own")  # VOC's numbers say nothing of the network
        values = np.unique([np.asarray(Image.open(f)) for f in pred[1].glob("*")])
        assert set(values) <= ({0, 1, 2} if numbers == "own" else {0, 8, 17})
        assert (tmp_path / numbers / "categories.csv").exists() is (numbers == "own")


def test_no_saliency_map_of_a_network_that_saw_no_mask(jsws, mini_data, tmp_path):
    picture = min((mini_data / "ECSSD/images").glob("*.jpg"))
    s = ROOT / "checkpoints/mini_S.safetensors"
    words = ("predict", picture, "--checkpoint", s, "--out", tmp_path / "out")
    assert "setting S saw no saliency mask" in jsws(*words).out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"{picture.stem}.png", f"{picture.stem}_overlay.png"}
    jsws(*words, "--plain")
    assert not (tmp_path / "out/saliency").exists()
    jsws(*words, "--crf readme").refuses(s, "no saliency map to refine")
    words = ("evaluate network --data", mini_data, "--checkpoint", s, "--crf readme")
    jsws(*words).refuses(s, "no saliency map to refine")


def test_predict_a_list_and_refine(jsws, checkpoint, mini_data, tmp_path):
    """The CRF has the scale of the profile that the network was trained in."""
    folder, ids = mini_data / "ECSSD/images", tmp_path / "ids.txt"
    name = min(path.stem for path in folder.glob("*.jpg"))
    ids.write_text(f"{name}\n")

    def predict(out, *more, net=checkpoint):
        given = ("--plain --checkpoint", net, "--list", ids, "--out", tmp_path / out)
        return jsws("predict", *more, *given)

    paper = stored(tmp_path / "paper.safetensors", network(), profile="paper")
    assert "1 picture " in predict("raw", folder).out
    assert "preset readme, scale 0.192" in predict("mini", folder, "--crf readme").out
    assert "scale 1" in predict("paper", folder, "--crf readme", net=paper).out
    for kind, count in (("segmentation", 1), ("saliency", 3)):
        files = (tmp_path / out / f"{kind}/{name}.png" for out in ("raw", "mini", "paper"))
        assert len({file.read_bytes() for file in files}) == count
    predict("no", folder, folder).refuses("--list", "one folder")
    ids.write_text(f"{name}\nabsent\n")
    predict("no", folder).refuses(ids, "absent.jpg")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("plain", ["", "--plain"])
def test_predict_overwrites_neither_a_picture_nor_a_result(
    jsws, checkpoint, tmp_path, plain
):
    folder, other = (tmp_path / x / ("saliency" if plain else "") for x in "ab")
    cat, again = folder / "cat.png", other / "cat.jpg"
    for path in (cat, again, folder / "cat_overlay.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20)).save(path)
    before = cat.read_bytes()
    given = ("--checkpoint", checkpoint, plain, "--out")
    there = tmp_path / "x" / ".." / "a"  # the same folder by another name
    jsws("predict", cat, *given, there).refuses("overwrite", cat)
    assert cat.read_bytes() == before
    out = tmp_path / "out"
    jsws("predict", cat, again, *given, out).refuses("cat.png", "both")
    if not plain:
        words = ("predict", cat, folder / "cat_overlay.png", *given, out)
        jsws(*words).refuses(out / "cat_overlay.png", "both")
    assert not out.exists()


def test_a_fault_of_ours_is_one_sentence_with_what_to_report(jsws, monkeypatch, tmp_path):
    def broken(**_):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(cli, "app", broken)
    monkeypatch.setattr(cli.tempfile, "gettempdir", lambda: str(tmp_path))
    done = jsws("doctor")
    (file,), (line,) = tmp_path.iterdir(), done.err
    assert done.status == 1 and str(file) in line and "RuntimeError: two lines" in line
    assert "in broken" in file.read_text()
