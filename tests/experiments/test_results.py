"""What README shows is what was measured, and what is shipped is what is described."""

import io
import json
import re
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from data_utils.errors import JswsError
from jsws_lib.config import get_profile, get_recipe
from jsws_lib.engine import film
from jsws_lib.engine.checkpoints import SHIPPED, read_weights, sha256
from jsws_lib.engine.runs import Run
from jsws_lib.experiments import claims, results
from tools import blocks, pictures


def read(name):
    return json.loads((results.RESULTS / f"{name}.json").read_text())


def shipped_files():
    return json.loads((SHIPPED / "manifest.json").read_text())["files"]


def test_pages_show_what_was_measured():
    """Every block of README and docs/ is what its function writes."""
    late = [p.name for p in blocks.pages() if blocks.renewed(text := p.read_text()) != text]
    assert not late, "run python -m tools.blocks"
    named = [
        n for p in blocks.pages() for n in re.findall("<!-- block: (\\S+) ", p.read_text())
    ]
    assert sorted(named) == sorted(blocks.BLOCKS)


def test_a_page_names_its_blocks(monkeypatch):
    monkeypatch.setitem(blocks.BLOCKS, "one", lambda: "new")
    text = "a\n<!-- block: one (python -m tools.blocks) -->\nold\n<!-- end: one -->\nz\n"
    assert blocks.renewed(text) == text.replace("old", "new")
    with pytest.raises(JswsError, match="no block is called 'two'"):
        blocks.renewed(text.replace("one", "two"))
    for broken in (text.replace("<!-- end: one -->", ""), text + text[text.index("old") :]):
        with pytest.raises(JswsError, match="has no"):
            blocks.renewed(broken)


def test_check_only_compares(tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"<!-- block: claims {blocks.BY} -->\nold\n<!-- end: claims -->")
    monkeypatch.setattr(blocks, "pages", lambda: [page])
    assert blocks.main(["--check"]) == 1 and "old" in page.read_text()
    assert "page.md is not in step" in capsys.readouterr().out
    assert blocks.main([]) == 0 and "saliency helps" in page.read_text()
    assert blocks.main(["--check"]) == 0


def test_what_the_pages_claim_was_measured():
    """README's and the results page's claims without figures, in every seed."""
    result = read("ablation_mini")
    rows, contrasts = result["settings"], result["contrasts"]
    assert all(len(row[key]) == 3 for row in rows.values() for key in row)
    miou = {name: np.array(row["miou"]) for name, row in rows.items() if "miou" in row}
    miou |= {name: np.array(row["miou"]) for name, row in contrasts.items()}
    for chain in ("full MS M S_cam S SS", "MM MS SS_cam S_cam", "M M_odds"):  # downwards
        for better, worse in pairwise(chain.split()):
            assert (miou[better] > miou[worse]).all(), (better, worse)
    assert 1.6 < miou["S_cam"].mean() / miou["S"].mean() < 2  # nearly twice
    for one, other, theirs in (("M", "S", 24.0), ("MS", "SS", 15.6), ("SS", "S", 14.0)):
        pair = (miou[claims.AS_CAM.get(name, name)] for name in (one, other))
        assert 0.7 < 100 * np.subtract(*pair).mean() / theirs < 1.4  # about its size
    for key, sign in (("max_f", 1), ("mae", -1)):
        for name in ("2S", "2S_from_M"):  # unlike the paper
            assert (sign * np.subtract(rows[name][key], rows["MM"][key]) > 0).all()
        for name in ("M", "MM", "2S"):
            assert (sign * np.subtract(rows[name][f"{key}_crf"], rows[name][key]) > 0).all()
    for s in ("M", "MM"):
        assert min(rows[s][k][0] for k in ("v_salient", "v_not_salient")) > 0.95
        for k, most in (("mae", 0.00025), ("max_f", 0.00165)):  # README and the study
            assert np.abs(np.subtract(rows[s][k], rows[f"{s}_no_sam"][k])).max() < most
    assert min(contrasts["M_odds"]["v_gap"]) > 0.3  # v learned to suppress
    assert max(map(abs, contrasts["M_nll_probs"]["v_gap"])) < 1e-3  # and here it cannot


def test_the_study_quotes_its_files(root):
    text = " ".join((root / "docs/recipe_study.md").read_text().split())

    def short(value):
        return f"{value:.3f}".removeprefix("0")

    rows = read("paper_schedule")["rows"]
    ends = {row["reading"]: row for row in rows}  # the last of each
    words = {"literal": "end at a mIoU of", "steady": "ends at", "jsws2020": "a mIoU of"}
    assert words.keys() == ends.keys()
    for name, end in ends.items():
        assert f"{words[name]} {short(end['miou'])}" in text
    for measure in ("max_f", "iou_background"):
        assert max(ends, key=lambda name: ends[name][measure]) == "jsws2020"
    late = [r for r in rows if r["reading"] == "literal" and r["step"] >= 500]
    assert "IoU of .000 at every measured step from 500 on" in text
    assert max(row["iou_background"] for row in late) < 0.0005
    trials = read("sam_trials")["rows"]

    def gain(row):
        return row["max_f"] - row["max_f_no_sam"]

    last = [gain(row) for row in trials if row["trial"] == "switch-top-probs-norm"]
    ends = f"{short(min(last))} to {short(max(last))}"
    assert f"the SAM adds {ends} of maximum *F*" in text
    for row in trials:  # looked for: all at once
        assert not (row["v_gap"] >= 0.4 and gain(row) >= 0.01 and row["miou"] >= 0.63)


def test_a_table_says_how_it_was_measured():
    other = read("ablation_mini")
    line = results.conditions(other)
    assert "recipe steady; seeds 0, 1, 2, mean" in line and "scale 0.192" in line
    other["configuration"]["recipe"]["class_evidence"] = "odds"
    other["seeds"] = [0]
    assert "steady with class_evidence odds; seed 0. mIoU" in results.conditions(other)


def test_manifest_describes_every_shipped_file():
    manifest, films = shipped_files(), [*SHIPPED.glob("*.npz")]
    files = [*SHIPPED.glob("*.safetensors"), *films]
    assert {file.name for file in files} == manifest.keys()
    assert sum(file.stat().st_size for file in files) < 30e6
    for file in files:
        entry = manifest[file.name]
        assert entry["sha256"] == sha256(file)
        assert entry["bytes"] == file.stat().st_size
        assert entry["figures"] and entry["command"]
    for file in SHIPPED.glob("mini_*.safetensors"):  # the backbone tells another story
        assert read_weights(file)[1]["seed"] == manifest[file.name]["seed"]
    for file in films:
        assert manifest[file.name]["figures"]["frames"] == len(film.load(file).steps) == 16


def test_the_manifest_shows_the_first_seed_of_the_ablation():
    manifest, result = shipped_files(), read("ablation_mini")
    for setting in pictures.SHOWN:
        entry, row = manifest[f"mini_{setting}.safetensors"], result["settings"][setting]
        assert entry["seed"] == result["seeds"][0]
        assert entry["figures"] == {name: row[name][0] for name in entry["figures"]}


def test_notebooks_find_the_shipped_networks():
    """A changed default setting would silently make every notebook train."""
    for setting in pictures.SHOWN:
        story = read_weights(SHIPPED / f"mini_{setting}.safetensors")[1]
        folder = Run(setting, get_profile("mini"), get_recipe()).folder
        assert story["run"] == folder.name


def test_the_animation_is_of_the_shipped_films(root):
    stored = Image.open(root / "docs/sharpening.gif")
    drawn = Image.open(io.BytesIO(pictures.sharpening()))
    steps = film.load(SHIPPED / "mini_M_film.npz").steps
    assert stored.n_frames == drawn.n_frames == len(steps) and steps[-1] == 1200
    for frame in (0, len(steps) - 1):
        stored.seek(frame)
        drawn.seek(frame)
        one, two = (np.asarray(i.convert("RGB")).astype(int) for i in (stored, drawn))
        assert one.shape == two.shape and abs(one - two).mean() < 2


def test_the_reading_order_names_every_file_and_notebook(root):
    order = blocks.reading_order()
    places = [blocks._place(row["file"]) for row in order]
    assert all((root / place).is_file() for place in places)
    method = {path.name for path in (root / "jsws_lib").glob("[a-z]*.py")}
    assert method <= {row["file"] for row in order}
    names = [path.stem for path in sorted((root / "notebooks").glob("0*.ipynb"))]
    assert [*blocks.LESSONS] == names
    numbers = [row["notebook"] for row in order]
    assert numbers == sorted(numbers) and {n[:2] for n in names} == {"00", *numbers}
