"""What README and docs/ show of what was measured: `python -m tools.blocks` writes it.

A page names a block in two comments, `<!-- block: NAME (python -m tools.blocks) -->` and
`<!-- end: NAME -->`, each on a line of its own; what stands between them is what BLOCKS
gives for that name.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import jsws_lib
from data_utils.errors import JswsError
from data_utils.files import write_bytes
from jsws_lib.cli import settings
from jsws_lib.config import ROOT, SETTINGS
from jsws_lib.experiments.claims import claims_table
from jsws_lib.experiments.results import (
    PUBLISHED,
    RESULTS,
    ROWS,
    ablation_table,
    markdown,
    speed_page,
    spread,
    study_table,
)
from jsws_lib.experiments.studies import followed, paper_schedule, paper_size, stays
from jsws_lib.experiments.studies.objective import objective_table
from tools.stamp import read_stamp

# What a reader of each notebook builds. Its sections and files are in `jsws_lib.__doc__`.
LESSONS = {
    "00_start": "the result first; what labels, saliency masks and a CAM can say",
    "01_data": "two data sets with two kinds of labels, and what neither says",
    "02_backbone": "a classifier that keeps its feature map large: stride and dilation",
    "03_saliency_aggregation": "scores *v* that turn category maps into one saliency map",
    "04_losses": "*L_c*, *L_s1*, *L_s2* in log space, and what each reading wants",
    "05_stage1": "SSNet-1 with labels alone and with saliency",
    "06_pseudo_labels": "suppression by image labels and a dense CRF",
    "07_stage2": "SSNet-2, a student that beats its teacher",
    "08_evaluation": "mIoU, MAE and five protocols of the *F*-measure",
}


def _read(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def _rows(name: str) -> list[dict]:
    return followed.known(RESULTS / f"{name}.json")


def reading_order() -> list[dict[str, str]]:
    """The rows of the table in `jsws_lib.__doc__`, by its head."""
    lines = [line for line in jsws_lib.__doc__.splitlines() if line.startswith("|")]
    head, _, *rows = ([cell.strip() for cell in line[1:-1].split("|")] for line in lines)
    return [dict(zip(head, row, strict=True)) for row in rows]


def notebooks() -> str:
    """The course: a row a notebook, with the seconds of its last execution."""
    course, stamp, order = _read("course"), read_stamp(), reading_order()
    rows = []
    for name, builds in LESSONS.items():
        path = f"notebooks/{name}.ipynb"
        number, words = name.split("_", 1)
        title = words.replace("_", " ").replace("stage", "stage ").capitalize()
        mine = [row for row in order if row["notebook"] == number]
        sections = sorted({part for row in mine for part in row["paper"].split(", ")})
        files = [f"[`{row['file']}`]({_place(row['file'])})" for row in mine]
        seconds = 10 * math.ceil(course["seconds"][name] / 10)
        row = [f"[{int(number)} {title}]({path})", builds]
        row += [", ".join(sections), ", ".join(files), f"{seconds} s"]
        rows.append(row + [stamp.badge(path)] * stamp.given)
    head = ["notebook", "what you build", "in the paper", "in the library", "CPU"]
    table = markdown(head + [""] * stamp.given, rows, "llllr" + "l" * stamp.given)
    return (
        f"{table}\n\n*CPU: executing all cells on {course['cores']} cores, rounded up; "
        "your reading and the exercises take hours. Nobody has timed a T4.*"
    )


def headline() -> str:
    """What comes out, in two sentences: the mIoU of S, M and M-M, and the paper's."""
    settings = _read("ablation_mini")["settings"]

    def percent(rows, *names):
        return [spread(rows[name]["miou"], "miou") for name in names]

    *ours, cam = percent(settings, "S", "M", "MM", "S_cam")
    paper = percent(PUBLISHED, "S", "M", "MM")
    return (
        f"**What comes out** on held-out drawings: {ours[0]} % of mIoU from labels alone "
        f"({cam} % read as CAM,\nthe labels given, its threshold the best of nine), "
        f"{ours[1]} % with saliency, {ours[2]} % after stage 2. The paper has\n"
        f"{', '.join(paper[:2])} and {paper[2]} % on photographs: other pictures, so "
        "compare directions only."
    )


def contrasts() -> str:
    """The trainings beside Table 5 that read a loss otherwise."""
    words = {
        "S_odds": "S, *L_c* on odds against the background",
        "S_mean_probs": "S, *L_c* on mean probabilities, as printed",
        "M_odds": "M, *L_c* on odds against the background",
        "M_nll_probs": "M, the released code's saliency term",
    }
    result = _read("ablation_mini")
    rows = {name: result["settings"][name] for name in ("S", "M")} | result["contrasts"]
    rows["M"]["max_f_no_sam"] = result["settings"]["M_no_sam"]["max_f"]
    head = ["", "seeds", "mIoU, %", "max *F*", "the SAM adds", "gap of *v*"]
    table = []
    for name, row in sorted(rows.items()):
        cells = [words.get(name, ROWS.get(name)), str(len(row["miou"]))]
        cells.append(spread(row["miou"], "miou"))
        if "max_f" in row:
            bare = row.get("max_f_no_sam", math.nan)
            gain = np.subtract(row["max_f"], bare)
            cells += [spread(row["max_f"], "max_f"), spread(gain, "max_f", sign="+")]
            cells.append(spread(row["v_gap"], "v_gap"))
        table.append(cells + [None] * (len(head) - len(cells)))
    return markdown(head, table, "lrrrrr")


def _place(file: str) -> str:
    """Where a file of the reading order lies, from the top of the repository."""
    return file if "/" in file else f"jsws_lib/{file}"


def photographs() -> str:
    """The rows that were run on photographs, then each category's IoU."""
    result = _read("photographs")
    rows = result["settings"].items()
    rows = {name: row for name, row in rows if "iou" in row and name in SETTINGS}
    head = ["IoU, %", *(ROWS[name].split(":")[0] for name in rows)]
    means = [100 * np.mean(row["iou"], 0) for row in rows.values()]  # over the seeds
    table = [
        [category, *(f"{mean[k]:.1f}" for mean in means)]
        for k, category in enumerate(result["categories"])
    ]
    shares = markdown(head, table, "l" + "r" * len(rows))
    return f"{ablation_table(result)}\n\n{shares}"


def photograph_trials() -> str:
    """The M-M that were trained or read on photographs, and their teachers."""
    head = ("M-M", "steps of its M", "mIoU of M, %", "mIoU, %", "MAE", "max *F*")
    table = [
        [
            row["mm"],
            str(row["steps"]),
            *(f"{100 * row[name]:.1f}" for name in ("m_miou", "miou")),
            *(f"{row[name]:.3f}" for name in ("mae", "max_f")),
        ]
        for row in _read("photograph_trials")["rows"]
    ]
    return markdown(head, table, "l" + "r" * 5)


def trials() -> str:
    """Loss terms that were tried and not kept, then what `jsws study` measured."""
    results = (_read("losses_tried"), _read("study_mini"))
    return "\n\n".join(f"{one['words']}\n\n{study_table(one)}" for one in results)


def sam_trials() -> str:
    """What was tried to make the SAM work, a row a network."""
    head = ("trial", "seed", "steps", "from", "mIoU, %", "background IoU, %")
    head += ("gap of *v*", "max *F*", "*v* = 1", "best *v*")
    table = []
    for row in _rows("sam_trials"):
        found, start = row, "M" if row.get("start") else "–"
        if "student" in row:  # its M is the same as the trial's of that seed
            found, start = row["student"], "its M"
        cells = [row["trial"], str(row["seed"]), str(row["steps"]), start]
        cells += [f"{100 * found[key]:.1f}" for key in ("miou", "iou_background")]
        cells.append(f"{found['v_gap']:.2f}")
        cells += [f"{found[f'max_f{key}']:.3f}" for key in ("", "_no_sam", "_best_v")]
        table.append(cells)
    return markdown(head, table, "lrrl" + "r" * 6)


def fields() -> str:
    """Every setting: its default, where it differs, what it takes and means."""
    head, *rows = settings.table()
    return markdown(head, [[f"`{name}`", *row] for name, *row in rows], "l" * len(head))


BY = "(python -m tools.blocks)"  # in each block's first line: who writes it
BLOCKS: dict[str, Callable[[], str]] = {
    "notebooks": notebooks,
    "headline": headline,
    "ablation": lambda: ablation_table(_read("ablation_mini")),
    "paper_rows": lambda: ablation_table(_read("ablation_mini"), {*PUBLISHED, "S_cam"}),
    "contrasts": contrasts,
    "claims": lambda: claims_table(_read("ablation_mini")),
    "photographs": photographs,
    "photograph_trials": photograph_trials,
    "objective": lambda: objective_table(_read("objective")),
    "objective_soft": lambda: objective_table(_read("objective"), rows="soft_rows"),
    "stays": lambda: followed.table(_rows("stays"), "reading", stays.MEASURES),
    "paper_schedule": lambda: followed.table(
        _rows("paper_schedule"), "reading", paper_schedule.MEASURES
    ),
    "paper_size": lambda: followed.table(_rows("paper_size"), "rate", paper_size.MEASURES),
    "sam_trials": sam_trials,
    "trials": trials,
    "settings": fields,
    "speed": speed_page,
}


def renewed(page: str) -> str:
    """The text of a page, each block as it should be.

    Raises:
        JswsError: a block has no end, or a name that BLOCKS does not know.
    """

    def write(found: re.Match) -> str:
        name = found[1]
        if name not in BLOCKS:
            raise JswsError(f"no block is called '{name}'; there are {', '.join(BLOCKS)}")
        return f"<!-- block: {name} {BY} -->\n{BLOCKS[name]()}\n<!-- end: {name} -->"

    by = re.escape(BY)
    pattern = rf"<!-- block: (\S+) {by} -->\n(?:(?!<!-- block:).)*?<!-- end: \1 -->"
    text, count = re.subn(pattern, write, page, flags=re.S)
    if page.count("<!-- block:") != count or page.count("<!-- end:") != count:
        raise JswsError("a block has no end, or an end has no block")
    return text


def pages() -> list[Path]:
    """Where blocks may stand."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def main(argv: Sequence[str] | None = None) -> int:
    """Write every block anew, or only say which pages are not in step."""
    about = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser("python -m tools.blocks", description=about)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args(argv).check
    late = []
    for path in pages():
        text = path.read_text(encoding="utf-8")
        try:
            new = renewed(text)
        except JswsError as error:
            print(f"{path.name}: {error}", file=sys.stderr)
            return 1
        if new != text:
            late.append(path.name)
            if not check:
                write_bytes(path, new.encode())
    state = "is not in step: run python -m tools.blocks" if check else "renewed"
    print(*(f"{name} {state}" for name in late), sep="\n", end="\n" * bool(late))
    return 1 if check and late else 0


if __name__ == "__main__":
    sys.exit(main())
