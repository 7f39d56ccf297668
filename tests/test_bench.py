"""The benchmark: every row in small, with ratios that must hold on any machine."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from data_utils.datasets import MEAN_COLOUR, Augmentation, _turn
from data_utils.errors import JswsError
from data_utils.voc import VOID
from jsws_lib import bench, results, speed_page
from jsws_lib.cli import app

BESIDE = {"train_step", "train_step_bf16", "peak_memory", "peak_memory_bf16", "data_path",
          "data_path_upright", "pseudo_labels", "max_f", "miou", "inference"}  # fmt: skip
CHANGES = {"channels_last", "one_backward", "bf16", "checkpointing", "adam_foreach",
           "adam_fused", "decoded", "crf_present_labels", "crf_compiled",
           "crf_compiled_mini"}  # fmt: skip
LIMITS = {"flops_float32", "flops_bf16", "mini_loader", "mini_loader_first_pass",
          "data_path_bytes", "crf_alone", "max_f_bytes", "miou_bytes"}  # fmt: skip


@pytest.fixture(scope="module")
def rows():
    mini = {"backbone": "densenet_mini", "size": 64}
    found = [
        *bench.training(**mini, batch=2, times=1, threads=1),
        *bench.large_step(**mini, batch=2, threads=1),
        *bench.mini_loader(times=1, images=32, skip=0),
        *bench.data_path(times=4, pictures=4),
        *bench.pseudo_labels(times=1, width=125, height=94, pool=0),
        *bench.measures(times=8),
        *bench.inference(**mini, images=4, times=1, threads=1),
    ]
    return {one["name"]: one for one in found}


def test_every_row_is_there_and_says_what_its_ratio_is(rows):
    assert rows.keys() >= BESIDE | CHANGES | LIMITS
    for name, one in rows.items():
        assert name not in LIMITS or one["kind"] == "limit"
        assert name not in CHANGES or one["kind"] == "change"
        assert name not in BESIDE or one["kind"] == "beside"
        more = one["ours"] / one["baseline"]
        assert one["ratio"] == pytest.approx(more if one["kind"] == "limit" else 1 / more)


@pytest.mark.parametrize(("name", "least"), [
    ("data_path", 4), ("data_path_upright", 6), ("pseudo_labels", 8), ("max_f", 15),
    ("miou", 10), ("crf_present_labels", 1.2), ("decoded_upright", 3),
])  # fmt: skip
def test_what_is_faster_for_a_reason_is_faster(rows, name, least):
    """Loose: the figures that count are those of `jsws bench` on a quiet machine."""
    assert rows[name]["ratio"] > least


def test_ours_and_the_baseline_compute_the_same(rows):
    assert rows["train_step"]["loss_difference"] < 1e-4
    assert rows["train_step"]["gradient_difference"] < 1e-2
    assert 1e-6 < rows["train_step_bf16"]["loss_difference"] < 0.05
    steps = bench.Steps(backbone="densenet_mini", size=64, batch=2)
    first = steps.baseline(update=False)
    for words in ({"channels_last": False}, {"both_graphs": True}):
        for name, value in steps.ours(update=False, **words).items():
            assert float(value) == pytest.approx(float(first[name]), rel=1e-4)
    assert steps.twice().keys() == first.keys()
    assert not steps.nets[0].backbone.checkpointing  # on only while it is measured


def test_a_turned_crop_is_pillows():
    """`_turn` against what it replaces: a grey level, and ties between two pixels."""
    rng = np.random.default_rng(0)
    square = rng.integers(0, 256, (284, 284, 4)).astype(np.uint8)
    for angle, mirror in ((-10.0, False), (3.0, True), (10.0, True)):
        turned = _turn(square, 256, (20.0, 3.5), (500, 375), angle, mirror).numpy()
        turn, stretch = np.deg2rad(angle), np.array([500, 375]) / 284
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        matrix = rotation * stretch / stretch[:, None]
        offset = 142 + matrix @ (np.array([20.0, 3.5]) - 142)
        affine = (*matrix[0], offset[0], *matrix[1], offset[1])
        for layers, resample, fill in (
            (slice(0, 3), Image.Resampling.BILINEAR, MEAN_COLOUR),
            (slice(3, 4), Image.Resampling.NEAREST, VOID),
        ):
            picture = Image.fromarray(square[..., layers].squeeze().copy())
            old = np.asarray(picture.transform((256, 256), Image.Transform.AFFINE, affine,
                                               resample, fillcolor=fill))  # fmt: skip
            old = np.atleast_3d(old)[:, :: -1 if mirror else 1]
            new = turned[layers].transpose(1, 2, 0)
            apart = np.abs(new.astype(int) - old)
            if fill == VOID:
                assert (apart > 0).mean() < 0.005
                assert 0.001 < (new == VOID).mean() < 0.5
            else:
                assert apart.max() <= 1


def test_an_upright_crop_is_a_slice(monkeypatch):
    square = np.random.default_rng(0).integers(0, 256, (284, 284, 5)).astype(np.uint8)
    for mirror in (False, True):
        draw = (np.array([3, 28]) / 28, 0.0, mirror)
        monkeypatch.setattr(Augmentation, "_draw", lambda self, rng, draw=draw: draw)
        image, one, two = Augmentation(256).cut(None, square, (500, 375))
        expected = square[28:284, 3:259][:, :: -1 if mirror else 1]
        np.testing.assert_array_equal(image, expected[..., :3].transpose(2, 0, 1))
        np.testing.assert_array_equal(one, expected[..., 3])
        np.testing.assert_array_equal(two, expected[..., 4])
        assert image.is_contiguous() and one.is_contiguous()


def test_functions_take_turns():
    calls = []
    bench.in_turns(lambda: calls.append("a"), lambda: calls.append("b"), times=2)
    assert calls == ["a", "b"] * 3  # the first of each warms up


def test_peak_sees_what_is_freed_again():
    grown, seconds = bench.peak(lambda: np.ones(2**24, np.float32).sum())
    if grown == grown:  # nan where the system does not tell
        assert 60e6 < grown < 120e6
    assert seconds > 0


def test_the_command_writes_figures_table_and_chart(tmp_path, monkeypatch):
    parts = ("data_path", "measures", "pseudo_labels", "mini_loader", "inference",
             "training", "large_step", "compilation")  # fmt: skip
    for k, part in enumerate(parts):
        kind = list(speed_page.KINDS)[k % 3]
        one = bench.row(part, "this against that", 1.0 + k, 2.0, kind=kind)
        monkeypatch.setattr(bench, part, lambda one=one, **options: [one])
    shares = {"convolution": 0.75, "everything else": 0.25}
    monkeypatch.setattr(bench, "where_time_goes", lambda **options: shares)
    words = ["bench", "--times", "1", "--out", str(tmp_path / "one.json")]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 0, answer.exception
    record = json.loads((tmp_path / "one.json").read_text())
    assert [one["name"] for one in record["rows"]] == list(parts)
    assert record["device"] and record["name"] and record["threads"] >= 1
    for name in parts:
        assert f"| `{name}` |" in answer.output
    assert "| convolution | 75 % |" in answer.output
    assert (tmp_path / "one.png").is_file()
    again = bench.row("miou", "renewed", 1.0, 5.0)
    monkeypatch.setattr(bench, "measures", lambda **options: [again])
    answer = CliRunner().invoke(app, [*words, "--only", "measures"])
    assert "| `miou` |" in answer.output and "| `measures` |" not in answer.output
    assert "| `training` |" in answer.output  # kept
    with pytest.raises(JswsError, match="no part 'speed'; choose from data, measures"):
        bench.bench(only=["speed"], out=tmp_path / "one.json")


# --- the page ------------------------------------------------------------------------


def test_the_page_shows_what_was_measured():
    text = speed_page.PAGE.read_text(encoding="utf-8")
    assert results.insert(text, speed_page.page_block()) == text
    for file in results.RESULTS.glob("bench_*.json"):
        with Image.open(speed_page.PAGE.with_name(f"{file.stem}.png")) as chart:
            chart.verify()


def test_the_measured_rows_are_complete_and_reach_what_is_asked():
    record = json.loads((results.RESULTS / "bench_cpu.json").read_text())
    rows = {one["name"]: one for one in record["rows"]}
    assert rows.keys() >= BESIDE | CHANGES | LIMITS
    for name in ("pseudo_labels", "max_f"):
        assert rows[name]["ratio"] >= speed_page.TARGETS[name]
    assert rows["mini_loader"]["ratio"] <= speed_page.TARGETS["mini_loader"]
    assert sum(record["step_shares"].values()) == pytest.approx(1)
