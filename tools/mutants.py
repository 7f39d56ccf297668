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

COPIED = ("data_utils", "jsws_lib", "checkpoints", "tests/method")
COPIED_FILES = ("pyproject.toml", "tests/conftest.py", "tests/helpers.py")
FAILED = re.compile(r"^(?:FAILED|ERROR) (?:tests/method/)?(\S+)", re.M)


class Mutant(NamedTuple):
    """A mistake: `old`, found once in all files of the method, becomes `new`."""

    old: str
    new: str
    idea: str  # that it breaks
    tests: str  # the file of tests/method that should notice; the others run after it


MUTANTS = (
    # --- H, v and S: backbones, ssnet, sam ---
    Mutant("maps[:, 1:]", "maps[:, :-1]", "channel 0 is the background", "losses"),
    Mutant(
        '{"denseblock3": 2, "denseblock4": 4}',
        '{"denseblock3": 2, "denseblock4": 2}',
        "what follows two removed strides is dilated by 4",
        "networks",
    ),
    Mutant("0.485, 0.456, 0.406", "0.406, 0.456, 0.485", "RGB, not BGR", "networks"),
    Mutant(
        "kept.insert(0, x)", "kept.append(x)", "skips go from coarse to fine", "networks"
    ),
    Mutant("if not final_relu and", "if final_relu and", "the last ReLU stays", "networks"),
    Mutant("+ 0.5 - factor", "- factor", "bilinear, without a shift", "networks"),
    Mutant('mode="replicate"', 'mode="constant"', "the rim keeps its value", "networks"),
    Mutant(
        "F.avg_pool2d(F.avg_pool2d(maps, 2, 1), 2, 1)",
        "F.avg_pool2d(maps, 3, 1)",
        "neighbours weighted 1 2 1",
        "networks",
    ),
    Mutant("(6, 12, 18, 24)", "(6, 12, 18, 18)", "SSNet-2's four rates", "networks"),
    Mutant(
        "self.deconv(logits.softmax(1))",
        "self.deconv(logits).softmax(1)",
        "`probs`: softmax first, then upsampling",
        "networks",
    ),
    Mutant("logits + score(finer)", "logits", "skips are added", "networks"),
    Mutant(
        "recipe.stage1_stride if stage == 1",
        "recipe.stage1_stride if stage == 2",
        "the released code's stride 16 is of stage 1",
        "networks",
    ),
    # --- losses ---
    Mutant(
        "log_probs.logsumexp(2) - math.log(log_probs.shape[2])",
        "log_probs.amax(2)",
        "t-hat is a mean over pixels, not a maximum",
        "losses",
    ),
    Mutant("(1 - labels) * log_t.no", "0", "Eq. 2 has two terms", "losses"),
    Mutant(".sum(1).mean()", ".mean()", "Eq. 2 sums over categories", "losses"),
    Mutant("F.logsigmoid(sal_logits)", "F.logsigmoid(-sal_logits)", "v's sign", "losses"),
    Mutant(
        "[log_bg, log_fg + log_not_v]",
        "[log_fg + log_not_v]",
        "the background is not salient either",
        "losses",
    ),
    Mutant("sal_mask == 1, yes, no", "sal_mask == 1, no, yes", "Y in Eq. 3", "losses"),
    Mutant("[sal_mask != VOID]", "", "void pixels do not count in Eq. 3", "losses"),
    Mutant("ignore_index=VOID", "ignore_index=0", "Eq. 4 learns background", "losses"),
    # --- training, stage 1, stage 2 ---
    Mutant(
        "(step // schedule.every)",
        "((step + 1) // schedule.every)",
        "steps of the rate",
        "training",
    ),
    Mutant("optimizer.zero_grad()", "pass", "gradients are of one step", "training"),
    Mutant("recipe.class_weight * loss", "loss", "the weight of L_c", "training"),
    Mutant('rate * group["scale"]', "rate", "the SAM's own rate", "training"),
    Mutant(
        "other = 2 * seed + 1",
        "other = 2 * seed",
        "D_c and D_s are drawn apart",
        "training",
    ),
    Mutant(
        "channels_last).train()", "channels_last).eval()", "batch norm learns", "training"
    ),
    Mutant(
        "(recipe.schedules or profile.schedules)[net.stage - 1]",
        "(recipe.schedules or profile.schedules)[0]",
        "each stage has its schedule",
        "training",
    ),
    Mutant(
        'recipe.stage2_class_loss and "L_s2" in losses',
        "False",
        "the released code's stage 2 has L_c, too",
        "training",
    ),
    Mutant(
        'stage2_init == "ssnet1"',
        'stage2_init != "ssnet1"',
        "where a student starts",
        "training",
    ),
    # --- pseudo labels and the CRF ---
    Mutant(
        "np.concatenate([[1], labels]) > 0",
        "np.concatenate([labels, [1]]) > 0",
        "the background comes first",
        "inference",
    ),
    Mutant(
        "return channels[found]", "return found", "labels are VOC's numbers", "inference"
    ),
    Mutant("logits - logits.mean(0)", "logits", "rule `logits`", "inference"),
    Mutant(
        "sxy=settings.gauss_sxy, compat=settings.gauss_compat",
        "sxy=settings.gauss_compat, compat=settings.gauss_sxy",
        "the small kernel's reach and weight",
        "crf",
    ),
    Mutant(
        "srgb=settings.bilateral_srgb",
        "srgb=settings.bilateral_sxy",
        "how far colours may differ",
        "crf",
    ),
    Mutant(
        "compat=settings.bilateral_compat",
        "compat=settings.gauss_compat",
        "the large kernel's weight",
        "crf",
    ),
    Mutant("(settings.iterations)", "(settings.iterations + 1)", "mean-field steps", "crf"),
    Mutant(
        "settings.bilateral_sxy * scale",
        "settings.bilateral_sxy",
        "the reach follows the size",
        "crf",
    ),
    Mutant("[1 - sal_map, sal_map]", "[sal_map, 1 - sal_map]", "salient is label 1", "crf"),
    Mutant(
        "norm * lattice(norm * q)",
        "norm * lattice(q)",
        "kernels normalised on both sides",
        "crf",
    ),
    # --- inference ---
    Mutant("permute(0, 3, 1, 2)", "permute(0, 3, 2, 1)", "rows are rows", "inference"),
    Mutant(
        "i.resize(side, Image.BILINEAR)",
        "i.resize(side, Image.NEAREST)",
        "squares are smooth",
        "inference",
    ),
    Mutant("(sal_map * 255).round()", "(sal_map * 255)", "greys are rounded", "inference"),
    # --- metrics ---
    Mutant("BETA2 = 0.3", "BETA2 = 1.0", "F-measure's beta", "metrics"),
    Mutant(
        "in_target + in_pred - tp", "in_target + in_pred", "IoU's denominator", "metrics"
    ),
    Mutant(
        "target[valid].astype(np.int64) * self.num_classes + pred[valid]",
        "pred[valid].astype(np.int64) * self.num_classes + target[valid]",
        "matrix[target, pred]",
        "metrics",
    ),
    Mutant(
        'self.protocol.scale, "right")',
        'self.protocol.scale, "left")',
        "at least, not above",
        "metrics",
    ),
    Mutant(
        "grey >= self.protocol.gt_min",
        "grey > self.protocol.gt_min",
        "where a mask is cut",
        "metrics",
    ),
    Mutant(
        "self.mae_count or np.nan",
        "self.count",
        "MAE is over the maps that define it",
        "metrics",
    ),
    Mutant(
        "not (high <= 0 and",
        "not (high < 0 and",
        "all-zero maps leave P and R's mean",
        "metrics",
    ),
    Mutant("[2 * (counts.sum(0)", "[1 * (counts.sum(0)", "twice the mean", "metrics"),
)


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
            f"{names}: mend MUTANTS in tools/mutants.py"
        )
    compile(files[found[0]].replace(mutant.old, mutant.new), found[0], "exec")
    return found[0]


def first_failure(mutant: Mutant | None) -> str | None:
    """The first test that fails on a mutant, or on the method as it is; None: all pass."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "broken"
        for name in COPIED:
            skip = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, root / name, ignore=skip)
        for name in COPIED_FILES:
            shutil.copy(ROOT / name, root / name)
        tests = sorted(
            f"tests/method/{f.name}" for f in root.glob("tests/method/test_*.py")
        )
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
    parser.add_argument("--jobs", type=int, default=2, help="at the same time (2)")
    asked = parser.parse_args(words)
    chosen = {mutant: place(mutant).name for mutant in MUTANTS}
    if asked.only:
        chosen = {
            mutant: name
            for mutant, name in chosen.items()
            if any(word in f"{name} {mutant.idea}" for word in asked.only)
        }
    with ThreadPoolExecutor(asked.jobs) as pool:
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
