"""What README shows is what was measured, and what is shipped is what is described."""

import json
import re

from jsws_lib import results
from jsws_lib.checkpoints import SHIPPED, read_weights, sha256
from jsws_lib.config import get_profile, get_recipe
from jsws_lib.training import run_folder


def test_readme_shows_the_manifest(root):
    text = (root / "README.md").read_text()
    assert results.insert(text, results.table()) == text
    shown = re.findall(r"^\| S: [^|]*\| (\d+\.\d) \|", text, re.MULTILINE)
    manifest = json.loads((SHIPPED / "manifest.json").read_text())["files"]
    measured = manifest["mini_S.safetensors"]["figures"]["miou"]
    assert shown == [f"{100 * measured:.1f}"]


def test_insert_replaces_only_the_block():
    text = f"a\n{results.START} note -->\nold\n{results.END}\nz\n"
    new = results.insert(text, "new")
    assert new == text.replace("old", "new")


def test_manifest_describes_every_shipped_file():
    manifest = json.loads((SHIPPED / "manifest.json").read_text())["files"]
    files = sorted(SHIPPED.glob("*.safetensors"))
    assert [f.name for f in files] == sorted(manifest)
    assert sum(f.stat().st_size for f in files) < 15e6
    for file in files:
        entry = manifest[file.name]
        assert entry["sha256"] == sha256(file)
        assert entry["bytes"] == file.stat().st_size
        assert entry["figures"] and entry["command"]
        assert read_weights(file)[1]["seed"] == entry["seed"]


def test_claims_hold_on_the_embedded_data():
    """Acceptance: M at least 45 and 25 above S, the second stage above the first."""
    manifest = json.loads((SHIPPED / "manifest.json").read_text())["files"]
    miou = {s: manifest[f"mini_{s}.safetensors"]["figures"]["miou"] for s in results.ROWS}
    assert miou["M"] >= 0.45
    assert miou["M"] - miou["S"] >= 0.25
    assert miou["MM"] > miou["M"]


def test_notebooks_find_the_shipped_networks():
    """A changed default setting would silently make every notebook train."""
    for setting in results.ROWS:
        story = read_weights(SHIPPED / f"mini_{setting}.safetensors")[1]
        folder = run_folder(setting, profile=get_profile("mini"), recipe=get_recipe())
        assert story["run"] == folder.name
