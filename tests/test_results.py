"""What README shows is what was measured, and what is shipped is what is described."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from jsws_lib import film, readme, results
from jsws_lib.checkpoints import SHIPPED, read_weights, sha256
from jsws_lib.config import get_profile, get_recipe
from jsws_lib.runs import run_folder


def ablation():
    return json.loads(results.MINI.read_text())


def test_readme_shows_the_ablation(root):
    text = (root / "README.md").read_text()
    assert results.insert(text, results.ablation_table(ablation())) == text
    shown = re.findall(r"^\| S: [^|]*\| (\d+\.\d) ± (\d+\.\d) \|", text, re.MULTILINE)
    miou = 100 * np.array(ablation()["settings"]["S"]["miou"])
    assert shown == [(f"{miou.mean():.1f}", f"{miou.std(ddof=1):.1f}")]


def test_readme_says_what_else_to_know(root):
    """The study's figures that README quotes, and that v does nothing there."""
    text = " ".join((root / "README.md").read_text().split())
    study = json.loads((results.RESULTS / "study_mini.json").read_text())
    miou = {(row["setting"], row["changed"]): 100 * row["miou"] for row in study["rows"]}
    labels_alone = max(value for (setting, _), value in miou.items() if setting == "S")
    default = next(v for (s, what), v in miou.items() if s == "M" and "nothing" in what)
    assert f"reaches {labels_alone:.1f} (one run" in text
    assert f"against M's {default:.1f} there" in text
    rows = ablation()["settings"]
    assert min(rows[s][k][0] for s in ("M", "MM")
               for k in ("v_salient", "v_not_salient")) > 0.95  # fmt: skip


def test_a_table_says_how_it_was_measured(root):
    line = results.conditions(ablation())
    assert "recipe steady; seeds 0, 1, 2, mean" in line and "scale 0.192" in line
    old = json.loads((results.RESULTS / "photographs.json").read_text())
    assert "steady with class_evidence mean_logits" in results.conditions(old)
    assert "seed 0. mIoU" in results.conditions(old)


@pytest.mark.parametrize("page", sorted(results.PAGES))
def test_pages_show_what_was_measured(root, page):
    text = (root / "docs" / page).read_text()
    assert results.insert(text, results.PAGES[page]()) == text


def test_insert_replaces_only_the_block():
    text = "a\n<!-- results: note -->\nold\n<!-- end of results -->\nz\n"
    new = results.insert(text, "new")
    assert new == text.replace("old", "new")


def test_manifest_describes_every_shipped_file():
    manifest = json.loads((SHIPPED / "manifest.json").read_text())["files"]
    films = sorted(SHIPPED.glob("*.npz"))
    files = sorted(SHIPPED.glob("*.safetensors"))
    assert sorted(f.name for f in [*files, *films]) == sorted(manifest)
    assert sum(f.stat().st_size for f in [*files, *films]) < 15e6
    for file in [*files, *films]:
        entry = manifest[file.name]
        assert entry["sha256"] == sha256(file)
        assert entry["bytes"] == file.stat().st_size
        assert entry["figures"] and entry["command"]
    for file in files:
        assert read_weights(file)[1]["seed"] == manifest[file.name]["seed"]
    for file in films:
        assert manifest[file.name]["figures"]["frames"] == len(film.load(file).steps) == 16


def test_the_manifest_shows_the_first_seed_of_the_ablation():
    manifest = json.loads((SHIPPED / "manifest.json").read_text())["files"]
    result = ablation()
    for setting in readme.SHOWN:
        entry, row = manifest[f"mini_{setting}.safetensors"], result["settings"][setting]
        assert entry["seed"] == result["seeds"][0]
        assert entry["figures"] == {name: row[name][0] for name in entry["figures"]}


def test_claims_hold_on_the_embedded_data():
    """What README says of Tables 5 and 6, over the seeds."""
    result = ablation()
    assert len(result["seeds"]) >= 3
    rows = result["settings"]
    mean = {(s, name): np.mean(values) for s, row in rows.items()
            for name, values in row.items() if name in results.PAPER["MM"]}  # fmt: skip
    assert mean["M", "miou"] - mean["S", "miou"] >= 0.30
    assert mean["MM", "miou"] > mean["MS", "miou"] > mean["M", "miou"]
    assert mean["MM", "miou"] >= 0.65
    assert mean["SS", "miou"] < mean["S", "miou"]  # unlike the paper: see README
    assert mean["2S", "max_f"] > mean["MM", "max_f"]  # unlike the paper: see README
    for setting in ("M", "MM", "2S"):
        assert mean[setting, "mae_crf"] < mean[setting, "mae"]
        assert mean[setting, "max_f_crf"] > mean[setting, "max_f"]
    contrasts = result["contrasts"]
    assert contrasts["M_odds"]["v_gap"][0] > 0.3  # v learned to suppress
    assert abs(contrasts["M_nll_probs"]["v_gap"][0]) < 1e-3  # and here it cannot
    assert mean["M", "miou"] > contrasts["M_odds"]["miou"][0]


def test_notebooks_find_the_shipped_networks():
    """A changed default setting would silently make every notebook train."""
    for setting in readme.SHOWN:
        story = read_weights(SHIPPED / f"mini_{setting}.safetensors")[1]
        folder = run_folder(setting, profile=get_profile("mini"), recipe=get_recipe())
        assert story["run"] == folder.name


def test_the_animation_is_of_the_shipped_films(root):
    stored = Image.open(root / "docs/sharpening.gif")
    drawn = Image.open(io.BytesIO(readme.sharpening()))
    steps = film.load(SHIPPED / "mini_M_film.npz").steps
    assert stored.n_frames == drawn.n_frames == len(steps) and steps[-1] == 1200
    for frame in (0, len(steps) - 1):
        stored.seek(frame)
        drawn.seek(frame)
        one, two = (np.asarray(i.convert("RGB")).astype(int) for i in (stored, drawn))
        assert one.shape == two.shape and abs(one - two).mean() < 2


def test_readme_shows_the_notebooks(root):
    text = (root / "README.md").read_text()
    assert results.insert(text, readme.lessons_table(), "notebooks") == text
    names = [path.stem for path in sorted((root / "notebooks").glob("0*.ipynb"))]
    assert [lesson.notebook for lesson in readme.LESSONS] == names
    for lesson in readme.LESSONS:
        stored = Image.open(root / "docs" / "thumbs" / f"{lesson.notebook}.png")
        one, two = (np.asarray(i.convert("RGB")).astype(int)
                    for i in (stored, readme.thumbnail(lesson)))  # fmt: skip
        assert abs(one - two).mean() < 8, lesson
