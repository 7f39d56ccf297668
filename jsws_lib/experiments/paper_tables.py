"""Our results as rows of the paper's Tables 1 to 4 and as columns beside 5 and 6.

A result counts as measured on other pictures, and is set apart, unless it is said to be on
the table's own. The paper's numbers are in `results/paper_tables.toml`, transcribed once,
and in `results.PUBLISHED`.
"""

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import LATEX_ESCAPE_RULES, tabulate

from data_utils.errors import JswsError
from data_utils.files import read_json
from data_utils.real.download import sources
from data_utils.voc import VOC_CLASSES
from jsws_lib.experiments.ablation import RESULTS
from jsws_lib.experiments.results import PUBLISHED, markdown, spread

MEASURES = ("miou", "iou", "mae", "max_f", "mae_crf", "max_f_crf")
ADVICE = "give a file of `jsws ablate`, or what `jsws evaluate ... --json` printed"
# The test sets of VOC's tables; Tables 1 and 2 have one a column.
SETS = {3: ["val"], 4: ["test"], 5: [], 6: []}
APART = "other pictures"
MEANING = (
    "As the table prints it: * a pre-trained saliency model helps, † boxes, ‡ scribbles."
)
# Tables 5 and 6: the row's setting, and what follows the measure's name. Table 6 names
# the CRF.
ROWS = {
    5: {k: (k.replace("-", ""), "") for k in ("S", "M", "S-S", "M-S", "M-M")},
    6: {
        "2S": ("2S", ""),
        "M-M": ("MM", ""),
        "2S + CRF": ("2S", "_crf"),
        "M-M + CRF": ("MM", "_crf"),
    },
}
# Their measures: the name in our files, and in the table.
COLUMNS = {5: {"miou": "mIoU"}, 6: {"mae": "MAE", "max_f": "max F"}}
TITLES = {
    5: "mean IoU in % of the settings (Section 4.4, Table 5)",
    6: "saliency maps of the settings (Section 4.4, Table 6)",
}
OTHER = "pictures, network, image size, pre-training, loss recipe, schedule"
REFINED = (
    f"{OTHER}, CRF's parameters; photographs: trained on ECSSD itself, 100 test images"
)
# Table: the paper's row and column, our figure, what is the same and what is not.
BESIDE = {
    1: ("MAE, ECSSD", "mae_crf", "definition; after CRF", REFINED),
    2: ("max F, ECSSD", "max_f_crf", "protocol `toolbox`; after CRF", REFINED),
    3: (
        "mIoU %, VOC val",
        "miou",
        "definition; image labels and saliency masks, of other sets; no CRF",
        f"{OTHER}; photographs: 6 categories, 130 test images",
    ),
    4: ("mIoU %, VOC test", None, "–", "only the VOC server has the masks"),
}


def paper_table(number: int) -> dict:
    """One of Tables 1 to 4: title, source, measure, columns, notes and rows by method."""
    text = (RESULTS / "paper_tables.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["tables"][str(number)]


def beside_table(drawings: dict, photographs: dict) -> str:
    """The paper's own row of Tables 1 to 4 beside M-M here, as Markdown."""
    head = ("Table", "figure", "paper", "drawings", "photographs", "the same", "different")
    rows = []
    for number, (what, key, same, different) in BESIDE.items():
        ours = paper_table(number)["rows"]["Ours"]
        cells = [f"{ours['mean']:.1f}" if "mean" in ours else f"{ours['values'][0]:.3f}"]
        for result in (drawings, photographs):
            values = result["settings"].get("MM", {}).get(key)
            cells.append(spread(values, key) if values else None)
        rows.append([str(number), what, *cells, same, different])
    return markdown(head, rows, "llrrrll")


@dataclass(frozen=True)
class Result:
    """One of our JSON files, as lists over seeds: `settings[setting][measure]`."""

    name: str
    file: Path
    settings: dict[str, dict[str, list]]
    protocol: str | None = None  # of MAE and max F
    own: bool = False  # has other categories than VOC
    images: int | None = None  # measured on, where the file says it

    def best(self, *measures: str) -> list | None:
        """The first of these measures that setting M-M has, or else the only setting."""
        rows = self.settings
        row = rows.get("MM") or (next(iter(rows.values())) if len(rows) == 1 else {})
        return next((row[name] for name in measures if name in row), None)


@dataclass(frozen=True)
class Table:
    """A table of the paper with our figures in it, as text; None where there is none."""

    title: str
    columns: tuple[str, ...]
    rows: dict[str, Sequence[str | None]]
    notes: tuple[str, ...]

    def markdown(self) -> str:
        """A title, a Markdown table, and notes."""
        notes = "\n".join(f"- {_md(note)}" for note in self.notes)
        return f"**{_md(self.title)}**\n\n{self._written('pipe', _md)}\n\n{notes}"

    def latex(self) -> str:
        """A `table` environment for the package booktabs."""
        caption = ". ".join((self.title, " ".join(self.notes)))
        caption = "".join(LATEX_ESCAPE_RULES.get(sign, sign) for sign in caption)
        body = self._written("latex_booktabs", str)  # which escapes by itself
        return (
            f"\\begin{{table}}\n\\centering\n\\caption{{{caption}}}\n{body}\n\\end{{table}}"
        )

    def _written(self, form: str, escape: Callable) -> str:
        rows = [[escape(name), *cells] for name, cells in self.rows.items()]
        return tabulate(
            rows,
            ["", *map(escape, self.columns)],
            tablefmt=form,
            colalign=("left", *["right"] * len(self.columns)),
            disable_numparse=True,
            missingval="–",
        )


def _md(text: str) -> str:
    return text.translate(str.maketrans({sign: f"\\{sign}" for sign in "\\|*`<"}))


# --- reading -------------------------------------------------------------------------


def read(file: Path | str) -> Result:
    """Read a result: a file of `jsws ablate`, or what `jsws evaluate --json` printed.

    Raises:
        JswsError: no such file, no JSON, none of these, or a measure that is no fraction
            of 1.
    """
    file = Path(file)
    found = read_json(file, advice=ADVICE)
    for key, kind in {"setting": str, "protocol": str, "images": int}.items():
        if found.get(key) is not None and type(found[key]) is not kind:
            raise JswsError(f"{file}: {key} is {str(found[key])[:40]!r}; {ADVICE}")
    own = found.get("categories", [*VOC_CLASSES]) != [*VOC_CLASSES]
    if isinstance(found.get("settings"), dict):
        rows = {
            name: _checked(row, f"{file}, setting {name}")
            for name, row in found["settings"].items()
        }
        return Result(file.stem, file, rows, "toolbox", own, found.get("images"))
    row = {name: [found[name]] for name in MEASURES if found.get(name) is not None}
    if not row:
        raise JswsError(f"{file} holds none of {', '.join(MEASURES)}; {ADVICE}")
    rows = {found.get("setting") or "?": _checked(row, str(file))}
    return Result(file.stem, file, rows, found.get("protocol"), own, found.get("images"))


def _checked(row: object, where: str) -> dict[str, list]:
    """The measures of one setting, by seed; JswsError for what `jsws` never writes."""
    if not isinstance(row, dict):
        raise JswsError(f"{where} is no object of measures, but {row!r:.40}: {ADVICE}")
    found = {}
    for name in (measure for measure in MEASURES if measure in row):
        values = np.array(row[name], object)
        # A category may be absent, and MAE and F have no answer where maps are constant.
        fine = [_fraction(x) or (x is None and name != "miou") for x in values.flat]
        if values.ndim != (2 if name == "iou" else 1) or not fine or not all(fine):
            raise JswsError(
                f"{where}: {name} is {row[name]!r:.60}, but results are fractions from 0 "
                "to 1, one a seed: give the file as `jsws` wrote it, or divide percent by "
                "100"
            )
        if name == "iou" or None not in row[name]:
            found[name] = row[name]
    return found


def _fraction(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


# --- beside the paper ----------------------------------------------------------------


def beside(number: int, results: list[Result], *, on: str | None = None) -> Table:
    """Put our results beside a table of the paper, 1 to 6.

    `on` is the table's own test set that they were measured on; None: other pictures.

    Raises:
        JswsError: a result lacks the table's measure or has it under another protocol;
            no such test set, or only a part of it was measured; two results of one name.
    """
    sets = SETS[number] if number > 2 else paper_table(number)["columns"]
    if on and on not in sets:
        choice = " or ".join([*sets, "no --on"])
        raise JswsError(f"--on {on}: Table {number} takes {choice}")
    names = [result.name for result in results]
    if len(set(names)) < len(names):
        twice = max(names, key=names.count)
        raise JswsError(f"two results are called {twice}: rename a file")
    for result in results:
        if number in (1, 2, 6) and result.protocol not in (None, "toolbox"):
            raise JswsError(
                f"{result.file} was measured under {result.protocol}, Table {number} under "
                "toolbox; measure again with --protocol toolbox"
            )
    where = f"on {on}" if on else f"on {APART}: not to be compared in value"
    notes = [f"{', '.join(names)}: measured here, {where}; ± is over seeds."]
    if number > 4:
        return _settings(number, results, notes)
    return _methods(number, results, on, notes)


def _methods(number: int, results: list[Result], on: str | None, notes: list[str]) -> Table:
    """Tables 1 to 4: a row a method, and one for each result."""
    table, measure, last = paper_table(number), "miou", ["mean"]
    if number <= 2:
        measure, last = table["measure"], [] if on else [APART]
    columns, rows = (*table["columns"], *last), {}
    for method, row in table["rows"].items():
        printed = dict(zip(columns, row.get("values", ()), strict=False))
        printed |= {"mean": row["mean"]} if "mean" in row else {}
        cells = {column: spread(value, measure) for column, value in printed.items()}
        name = method + row.get("mark", "") + (f" '{row['year']}" if "year" in row else "")
        rows[name] = [*map(cells.get, columns)]
    for result in results:
        if number <= 2:
            cells = {on or APART: _saliency(number, measure, result, on)}
            crf = "without" if result.best(f"{measure}_crf") is None else "after"
            notes.append(f"{result.name}: {crf} CRF; the row Ours is after CRF.")
        else:
            cells = dict(zip(columns, _segmentation(number, result), strict=True))
        rows[f"{result.name}, here"] = [*map(cells.get, columns)]
    title = f"{table['title']} ({table['source']}; {table['better']} is better)"
    meaning = [MEANING] if number > 2 else []
    return Table(title, columns, rows, (*notes, *meaning, *table["notes"]))


def _saliency(number: int, measure: str, result: Result, on: str | None) -> str:
    """A result's figure for Tables 1 and 2."""
    values = result.best(f"{measure}_crf", measure)
    _needs(values, result, f"{measure} of M-M", number)
    count = on and max(sources()[on.replace("-test", "-TE")].holds.values())  # of images
    if on and result.images is None:
        raise JswsError(
            f"{result.file} does not say on how many images it was measured: leave --on "
            "out, or measure again"
        )
    if on and result.images != count:
        raise JswsError(
            f"{result.file} was measured on {result.images} images, but {on} has "
            f"{count:,}: leave --on out"
        )
    return spread(values, measure)


def _segmentation(number: int, result: Result) -> list[str]:
    """A result's figures for Tables 3 and 4: the IoU of each category, and their mean."""
    miou, count = result.best("miou"), len(VOC_CLASSES)
    _needs(miou, result, "miou", number)
    iou = result.best("iou") or [[None] * count]
    if result.own or {len(seed) for seed in iou} != {count}:
        raise JswsError(
            f"{result.file}: iou is not of the background and VOC's {count - 1} "
            f"categories, which Table {number} is about"
        )
    return [spread(values, "miou") for values in (*zip(*iou, strict=True), miou)]


def _settings(number: int, results: list[Result], notes: list[str]) -> Table:
    """Tables 5 and 6: a row a setting, a column a source and measure."""
    columns = {}
    known = {"paper": PUBLISHED} | {f"{one.name}, here": one.settings for one in results}
    for source, settings in known.items():
        for measure, words in COLUMNS[number].items():
            rows = ROWS[number].values()
            found = [settings.get(name, {}).get(measure + end) for name, end in rows]
            columns[f"{source}: {words}"] = [
                None if values is None else spread(values, measure) for values in found
            ]
    for result in results:
        mine = [columns[f"{result.name}, here: {w}"] for w in COLUMNS[number].values()]
        cells = [cell for column in mine for cell in column if cell is not None]
        what = " or ".join(COLUMNS[number])
        _needs(cells or None, result, f"{what} of a setting", number)
    rows = zip(*columns.values(), strict=True)
    return Table(
        TITLES[number],
        tuple(columns),
        dict(zip(ROWS[number], rows, strict=True)),
        (*notes, "The paper: PASCAL VOC 2012 val and ECSSD; no spread given."),
    )


def _needs(values, result: Result, what: str, number: int):
    if values is None:
        raise JswsError(f"{result.file} has no {what}, which Table {number} is about")
