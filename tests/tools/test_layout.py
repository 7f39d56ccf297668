"""Arrows go one way: who may import whom."""

import ast
import subprocess
import sys

ORDER = ("data_utils", "method", "engine", "course", "experiments", "cli", "tools")


def layer(module: str) -> str | None:
    """The layer of a module by its dotted name; None for others' modules."""
    top, _, rest = module.partition(".")
    if top != "jsws_lib":
        return top if top in ORDER else None
    folder = rest.partition(".")[0]
    return folder if folder in ORDER else "method"


def imported(path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_a_layer_imports_only_from_those_before_it(root):
    wrong, seen = [], set()
    tops = (root / name for name in ("data_utils", "jsws_lib", "tools"))
    for path in (path for top in tops for path in top.rglob("*.py")):
        own = layer(".".join(path.relative_to(root).with_suffix("").parts))
        seen.add(own)
        for module in imported(path):
            other = layer(module)
            if other and ORDER.index(other) > ORDER.index(own):
                wrong.append(f"{path.relative_to(root)} imports {module}")
    assert seen == {*ORDER} and not wrong


def test_training_is_imported_without_what_takes_seconds():
    slow = {"matplotlib.pyplot", "torchvision", "torch._dynamo"}
    code = f"import sys, jsws_lib.engine.runs; sys.exit(bool({slow} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_first_cell_needs_nothing_but_packaging():
    """It has to say what is missing before anything that may be missing is imported."""
    code = """
import sys
class Bare:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("numpy", "PIL", "torch", "tqdm", "matplotlib"):
            raise ImportError(name)
sys.meta_path.insert(0, Bare())
import jsws_lib.course.notebook
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_names_that_are_listed_twice_agree():
    """`config.py` names them without importing what brings NumPy and torch."""
    from dataclasses import fields

    from jsws_lib.config import Recipe
    from jsws_lib.crf import CRF_PRESETS
    from jsws_lib.losses import EVIDENCE, SALIENCY

    tables = {"crf": CRF_PRESETS, "class_evidence": EVIDENCE, "saliency_reading": SALIENCY}
    limits = {one.name: one.metadata.get("limits") for one in fields(Recipe)}
    assert {name: set(limits[name]) for name in tables} == {
        name: set(table) for name, table in tables.items()
    }
