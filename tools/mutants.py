"""Break the method on purpose, one place at a time: do its tests notice? `make mutants`

Each mutant is a small mistake that a person could make: a sign, an axis, a term left out.
It is made in a copy of the library, and the fast tests of `tests/method` run there until
one fails. If none does, the method can be wrong there and nobody would know.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from jsws_lib.config import ROOT

FOLDERS = ("data_utils", "jsws_lib", "checkpoints", "tests/method")
FILES = ("pyproject.toml", "tests/conftest.py", "tests/helpers.py")
FAILED = re.compile(r"^(?:FAILED|ERROR) (?:tests/method/)?(\S+)", re.M)


class Mutant(NamedTuple):
    """A mistake: `old`, found once in all files of the method, becomes `new`."""

    old: str
    new: str
    idea: str  # that it breaks
    tests: str  # the file of tests/method that should notice; the others run after it


# By the file of tests/method that should notice: what becomes what, and the idea broken.
MISTAKES = {
    "networks": [
        ('"denseblock4": 4}', '"denseblock4": 2}', "two removed strides dilate by 4"),
        ("0.485, 0.456, 0.406", "0.406, 0.456, 0.485", "RGB, not BGR"),
        ("kept.insert(0, x)", "kept.append(x)", "skips go from coarse to fine"),
        ("if not final_relu and", "if final_relu and", "the last ReLU stays"),
        ("+ 0.5 - factor", "- factor", "bilinear, without a shift"),
        ('mode="replicate"', 'mode="constant"', "the rim keeps its value"),
        ("(out.sal_logits + a) / 2", "out.sal_logits", "`mirror`: both images' scores"),
        ("(6, 12, 18, 24)", "(6, 12, 18, 18)", "SSNet-2's four rates"),
        ("logits.softmax(1))", "logits).softmax(1)", "`probs`: softmax, then upsampling"),
        ("logits + score(finer)", "logits", "skips are added"),
        ("if stage == 1 else rec", "if stage == 2 else rec", "each stage has its stride"),
    ],
    "losses": [
        ("maps[:, 1:]", "maps[:, :-1]", "channel 0 is the background"),
        (
            "log_probs.logsumexp(2) - math.log(log_probs.shape[2])",
            "log_probs.amax(2)",
            "t-hat is a mean over pixels, not a maximum",
        ),
        ("(1 - labels) * log_t.no", "0", "Eq. 2 has two terms"),
        (".sum(1).mean()", ".mean()", "Eq. 2 sums over categories"),
        ("F.logsigmoid(sal_logits)", "F.logsigmoid(-sal_logits)", "v's sign"),
        ("[log_bg, log_fg", "[log_fg", "the background is not salient either"),
        ("sal_mask == 1, yes, no", "sal_mask == 1, no, yes", "Y in Eq. 3"),
        ("[sal_mask != VOID]", "", "void pixels do not count in Eq. 3"),
        ("ignore_index=VOID", "ignore_index=0", "Eq. 4 learns background"),
    ],
    "training": [
        ("(step // schedule.every)", "((step + 1) // schedule.every)", "steps of the rate"),
        (
            "    optimizer.zero_grad()\n            values",
            "    values",
            "gradients are of one step",
        ),
        ("recipe.class_weight * loss", "loss", "the weight of L_c"),
        ('rate * group["scale"]', "rate", "the SAM's own rate"),
        ("other = 2 * seed + 1", "other = 2 * seed", "D_c and D_s are drawn apart"),
        ("channels_last).train()", "channels_last).eval()", "batch norm learns"),
        ("schedules)[net.stage - 1]", "schedules)[0]", "each stage has its schedule"),
        ("recipe.stage2_class_loss and", "False and", "stage 2 as released has L_c, too"),
        ('stage2_init == "ssnet1"', 'stage2_init != "ssnet1"', "where a student starts"),
    ],
    "inference": [
        ("([[1], labels]) > 0", "([labels, [1]]) > 0", "the background comes first"),
        ("return channels[found]", "return found", "labels are VOC's numbers"),
        ("logits - logits.mean(0)", "logits", "rule `logits`"),
        ("permute(0, 3, 1, 2)", "permute(0, 3, 2, 1)", "rows are rows"),
        ("side, Image.BILINEAR", "side, Image.NEAREST", "squares are smooth"),
        ("(sal_map * 255).round()", "(sal_map * 255)", "greys are rounded"),
    ],
    "crf": [
        (
            "sxy=settings.gauss_sxy, compat=settings.gauss_compat",
            "sxy=settings.gauss_compat, compat=settings.gauss_sxy",
            "the small kernel's reach and weight",
        ),
        ("settings.bilateral_srgb", "settings.bilateral_sxy", "how far colours differ"),
        ("settings.bilateral_compat", "settings.gauss_compat", "the large kernel's weight"),
        ("(settings.iterations)", "(settings.iterations + 1)", "mean-field steps"),
        ("bilateral_sxy * scale,", "bilateral_sxy,", "the reach follows the size"),
        ("[1 - sal_map, sal_map]", "[sal_map, 1 - sal_map]", "salient is label 1"),
        ("lattice(norm * q)", "lattice(q)", "kernels normalised on both sides"),
    ],
    "metrics": [
        ("BETA2 = 0.3", "BETA2 = 1.0", "F-measure's beta"),
        ("in_target + in_pred - tp", "in_target + in_pred", "IoU's denominator"),
        (
            "target[valid].astype(np.int64) * self.num_classes + pred[valid]",
            "pred[valid].astype(np.int64) * self.num_classes + target[valid]",
            "matrix[target, pred]",
        ),
        ('protocol.scale, "right")', 'protocol.scale, "left")', "at least, not above"),
        ("grey >= self.protocol", "grey > self.protocol", "where a mask is cut"),
        ("self.mae_count or np.nan", "self.count", "MAE is over the maps that define it"),
        ("not (high <= 0 and", "not (high < 0 and", "all-zero maps leave P and R's mean"),
        ("[2 * (counts.sum(0)", "[1 * (counts.sum(0)", "twice the mean"),
    ],
}
MUTANTS = [Mutant(*row, tests) for tests, rows in MISTAKES.items() for row in rows]


def place(mutant: Mutant, root: Path = ROOT) -> Path:
    """The one file of the method that holds a mutant's text.

    Raises:
        ValueError: the text is not there exactly once, or what it becomes is no Python.
    """
    paths = [*sorted(root.glob("jsws_lib/*.py")), root / "data_utils" / "crf_torch.py"]
    files = {path: path.read_text("utf-8") for path in paths}
    found = [path for path, text in files.items() for _ in range(text.count(mutant.old))]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "no file"
        raise ValueError(
            f"a mutant's text must occur once in jsws_lib/*.py, {mutant.old!r} is in "
            f"{names}: mend MISTAKES in tools/mutants.py"
        )
    compile(files[found[0]].replace(mutant.old, mutant.new), found[0], "exec")
    return found[0]


def first_failure(mutant: Mutant | None) -> str | None:
    """The first test that fails on a mutant, or on the method as it is; None: all pass."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "broken"
        for name in FOLDERS:
            skip = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, root / name, ignore=skip)
        for name in FILES:
            shutil.copy(ROOT / name, root / name)
        files = sorted(root.glob("tests/method/test_*.py"))
        tests = [f"tests/method/{file.name}" for file in files]
        if mutant:
            path = place(mutant, root)
            text = path.read_text("utf-8").replace(mutant.old, mutant.new)
            path.write_text(text, "utf-8")
            tests.sort(key=lambda name: name != f"tests/method/test_{mutant.tests}.py")
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not slow", *tests]
        env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
    if not done.returncode:
        return None
    failed = FAILED.search(done.stdout)
    return failed[1] if failed else f"pytest stopped: {done.stdout[-500:]}{done.stderr}"


def main(words: list[str] | None = None) -> int:
    """Make every mutant and print what caught it; the exit status is how many none did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help="parts of the ideas or files to break")
    only = parser.parse_args(words).only or [""]  # which is in every text
    files = [(mutant, place(mutant).name) for mutant in MUTANTS]
    chosen = {m: name for m, name in files if any(w in f"{name} {m.idea}" for w in only)}
    with ThreadPoolExecutor(2) as pool:
        results = pool.map(first_failure, [None, *chosen])
        whole, *caught_by = tqdm(results, total=len(chosen) + 1, desc="mutants")
    if whole:
        sys.exit(f"tests/method fails as it is, so it tells nothing: {whole}")
    for (mutant, name), test in zip(chosen.items(), caught_by, strict=True):
        print(f"{'caught' if test else 'MISSED'}  {name:<18}{mutant.idea:<48}{test or ''}")
    missed = caught_by.count(None)
    print(f"{len(chosen) - missed} of {len(chosen)} mutants caught, {missed} missed")
    return missed


if __name__ == "__main__":
    sys.exit(main())
