"""Our results as rows beside the paper's Tables 1 to 4 and as columns beside 5 and 6.

One table as Markdown, LaTeX (booktabs), HTML, text for a terminal and a chart. A result
counts as measured on other pictures, and is set apart, unless it is said to be on the
table's own. The paper's numbers are in `results/paper_tables.toml`, transcribed once, and
in `results.PUBLISHED`.
"""

import html
import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tabulate import LATEX_ESCAPE_RULES, SEPARATING_LINE, tabulate

from data_utils.errors import JswsError
from data_utils.files import read_json
from data_utils.real.download import sources
from data_utils.voc import VOC_CLASSES
from jsws_lib.course.figures.common import INK, SHORT
from jsws_lib.experiments.ablation import RESULTS, mean_sd
from jsws_lib.experiments.results import PUBLISHED, markdown, spread

MEASURES = ("miou", "iou", "mae", "max_f", "mae_crf", "max_f_crf")
SETS = {3: "val", 4: "test"}  # of PASCAL VOC 2012; Tables 1 and 2 have one a column
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
# Their measures: the name in our files, in the table, and what a fraction is multiplied by.
COLUMNS = {5: [("miou", "mIoU", 100)], 6: [("mae", "MAE", 1), ("max_f", "max F", 1)]}
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
PAGE = """\
<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; margin: 2em; }}
table {{ border-collapse: collapse; }}
td, th {{ padding: .2em .6em; border-bottom: 1px solid #8884; }}
</style>
<h1>{title}</h1>
{table}
<ul>{notes}</ul>
</html>"""


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
    """A table of the paper with our figures in it, mean and standard deviation apart."""

    number: int
    title: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[tuple[float, float] | None, ...]]  # (mean, sd), sd may be nan
    ours: frozenset[str]  # names of the rows (1 to 4) or columns (5, 6) that are ours
    notes: tuple[str, ...]
    apart: bool  # ours were measured on other pictures

    def markdown(self) -> str:
        """A Markdown table; what is ours is bold."""
        notes = "\n".join(f"- {_md(note)}" for note in self.notes)
        return f"**{_md(self.title)}**\n\n{self._written('pipe', '**{}**', _md)}\n\n{notes}"

    def terminal(self) -> str:
        """Aligned columns to read where they are printed; `>` marks what is ours."""
        body = self._written("simple", "> {}")
        return "\n".join((self.title, "", body, "", *self.notes))

    def latex(self) -> str:
        """A `table` environment for the package booktabs; a rule parts our rows."""
        caption = ". ".join((self.title, " ".join(self.notes)))
        caption = "".join(LATEX_ESCAPE_RULES.get(sign, sign) for sign in caption)
        body = self._written("latex_booktabs")
        return (
            f"\\begin{{table}}\n\\centering\n\\caption{{{caption}}}\n{body}\n\\end{{table}}"
        )

    def html(self) -> str:
        """A page with the table, readable in light and dark; what is ours is bold."""
        return PAGE.format(
            title=html.escape(self.title),
            table=self._written("unsafehtml", "<b>{}</b>", html.escape),
            notes="".join(f"<li>{html.escape(note)}</li>" for note in self.notes),
        )

    def _written(self, form: str, mark: str = "{}", escape: Callable = str) -> str:
        """The table in one of tabulate's forms, with names that are escaped and marked."""
        own_rows = self.number <= 4  # a result may well be called like a test set

        def named(name: str, is_row: bool) -> str:
            ours = name in self.ours and is_row == own_rows
            return (mark if ours else "{}").format(escape(name))

        head = ["", *(named(column, False) for column in self.columns)]
        lines = [
            [named(name, True), *map(self._number, row)] for name, row in self.rows.items()
        ]
        if form == "latex_booktabs" and own_rows and self.ours:  # they come last
            lines.insert(-len(self.ours), SEPARATING_LINE)
        sides = ("left", *["right"] * len(self.columns))
        return tabulate(lines, head, tablefmt=form, colalign=sides, disable_numparse=True)

    def _number(self, cell: tuple[float, float] | None) -> str:
        if cell is None:
            return "–"
        digits = 3 if self.number in (1, 2, 6) else 1
        mean, sd = (f"{value:.{digits}f}" for value in cell)
        return mean if math.isnan(cell[1]) else f"{mean} ± {sd}"


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
    advice = "give a file of `jsws ablate`, or what `jsws evaluate ... --json` printed"
    found = read_json(file, advice=advice)
    for key, kind in {"setting": str, "protocol": str, "images": int}.items():
        if found.get(key) is not None and type(found[key]) is not kind:
            raise JswsError(f"{file}: {key} is {str(found[key])[:40]!r}; {advice}")
    own = found.get("categories", [*VOC_CLASSES]) != [*VOC_CLASSES]
    if isinstance(found.get("settings"), dict):
        rows = {
            name: _checked(row, f"{file}, setting {name}")
            for name, row in found["settings"].items()
        }
        return Result(file.stem, file, rows, "toolbox", own)
    row = {name: [found[name]] for name in MEASURES if found.get(name) is not None}
    if not row:
        raise JswsError(f"{file} holds none of {', '.join(MEASURES)}; {advice}")
    rows = {str(found.get("setting", "?")): _checked(row, str(file))}
    return Result(file.stem, file, rows, found.get("protocol"), own, found.get("images"))


def _checked(row: object, where: str) -> dict[str, list]:
    """The measures of one setting, by seed; JswsError for what `jsws` never writes."""
    if not isinstance(row, dict):
        raise JswsError(
            f"{where} is no object of measures, but {row!r:.40}: give a file "
            "as `jsws ablate` wrote it"
        )
    row = {
        name: row[name]
        for name in MEASURES
        if name in row and (name in ("miou", "iou") or not _undefined(row[name]))
    }
    for name, seeds in row.items():
        if not _all(seeds, _iou if name == "iou" else _fraction):
            raise JswsError(
                f"{where}: {name} is {seeds!r:.60}, but results are fractions "
                "from 0 to 1, one a seed: give the file as `jsws` wrote it, or "
                "divide percent by 100"
            )
    return row


def _undefined(seeds: object) -> bool:
    """Whether a seed has no MAE or F: every map is constant."""
    return isinstance(seeds, list) and None in seeds


def _all(values: object, fits: Callable) -> bool:
    return isinstance(values, list) and values != [] and all(map(fits, values))


def _iou(seed: object) -> bool:
    return _all(seed, lambda value: value is None or _fraction(value))


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
    _check(number, results)
    if number > 4:
        if on:
            raise JswsError(f"--on {on}: Table {number} has one test set; leave it out")
        return _ablation(number, results)
    table, put = paper_table(number), _saliency if number <= 2 else _segmentation
    columns, rows, notes = put(number, table, results, on)
    methods = table["rows"].items()
    known = {_method(name, row): _printed(row, columns) for name, row in methods}
    return Table(
        number,
        f"{table['title']} ({table['source']}; {table['better']} is better)",
        columns,
        known | rows,
        frozenset(rows),
        _notes(results, on, *notes),
        on is None,
    )


def _method(name: str, row: dict) -> str:
    return name + row.get("mark", "") + (f" '{row['year']}" if "year" in row else "")


def _printed(row: dict, columns: tuple[str, ...]) -> tuple:
    """What the paper prints of a method, in the order of the columns."""
    values = dict(zip(columns, row.get("values", ()), strict=False))
    values |= {"mean": row["mean"]} if "mean" in row else {}
    return tuple((values[c], math.nan) if c in values else None for c in columns)


def _check(number: int, results: list[Result]):
    """Raise JswsError if a result could be taken for another, or for the paper's, or was
    measured otherwise than the table."""
    names = [result.name for result in results]
    if len(set(names)) < len(names):
        raise JswsError(
            f"two results are called {max(names, key=names.count)}: rename a file"
        )
    taken, kind = {"paper"}, "column"
    if number <= 4:
        rows, kind = paper_table(number)["rows"].items(), "row"
        taken = {name for method, row in rows for name in (method, _method(method, row))}
    for result in results:
        if result.name in taken:
            raise JswsError(
                f"{result.file}: Table {number} has a {kind} {result.name} of its own; "
                "rename the file"
            )
        if number in (1, 2, 6) and result.protocol not in (None, "toolbox"):
            raise JswsError(
                f"{result.file} was measured under {result.protocol}, Table {number} under "
                "toolbox; measure again with --protocol toolbox"
            )


def _saliency(number: int, table: dict, results: list[Result], on: str | None):
    """Columns, our rows and notes of Tables 1 and 2."""
    known, measure = table["columns"], table["measure"]
    if on is not None and on not in known:
        raise JswsError(f"--on {on}: the columns of Table {number} are {', '.join(known)}")
    columns = (*known, *(() if on or not results else (APART,)))
    count = on and max(sources()[on.replace("-test", "-TE")].holds.values())  # of images
    rows, notes = {}, list(table["notes"])
    for result in results:
        if on and result.images not in (None, count):
            raise JswsError(
                f"{result.file} was measured on {result.images} images, but {on} has "
                f"{count:,}: leave --on out"
            )
        values = result.best(f"{measure}_crf", measure)
        _needs(values, result, f"{measure} of M-M", number)
        crf = "without" if result.best(f"{measure}_crf") is None else "after"
        notes.append(f"{result.name}: {crf} CRF; the row Ours is after CRF.")
        mine = {on or APART: mean_sd(values)}
        rows[result.name] = tuple(map(mine.get, columns))
    return columns, rows, notes


def _segmentation(number: int, table: dict, results: list[Result], on: str | None):
    """Columns, our rows and notes of Tables 3 and 4."""
    if on is not None and on != SETS[number]:
        raise JswsError(f"--on {on}: Table {number} is about VOC {SETS[number]}")
    rows, count = {}, len(table["columns"])
    for result in results:
        miou = result.best("miou")
        _needs(miou, result, "miou", number)
        iou = result.best("iou") or [[None] * count]
        if result.own or {len(seed) for seed in iou} != {count}:
            raise JswsError(
                f"{result.file}: iou is not of the background and VOC's "
                f"{count - 1} categories, which Table {number} is about"
            )
        by_category = 100 * np.array(iou, float).T
        cells = [None if np.isnan(c).any() else mean_sd(c) for c in by_category]
        rows[result.name] = (*cells, mean_sd([100 * value for value in miou]))
    return (*table["columns"], "mean"), rows, (MEANING, *table["notes"])


def _ablation(number: int, results: list[Result]) -> Table:
    """Tables 5 and 6: a row a setting, a column a source and measure."""
    measures, columns = COLUMNS[number], {}
    for measure, words, _ in measures:  # one figure each, printed in %
        column = _column(number, PUBLISHED, measure)
        columns[f"paper: {words}"] = [x if x is None else (x, math.nan) for x in column]
    for result in results:
        mine = {
            f"{result.name}: {words}": [
                values and mean_sd([factor * value for value in values])
                for values in _column(number, result.settings, measure)
            ]
            for measure, words, factor in measures
        }
        what = " or ".join(measure for measure, *_ in measures)
        some = any(cell for column in mine.values() for cell in column) or None
        _needs(some, result, f"{what} of a setting", number)
        columns |= mine
    return Table(
        number,
        TITLES[number],
        tuple(columns),
        dict(zip(ROWS[number], zip(*columns.values(), strict=True), strict=True)),
        frozenset([*columns][len(measures) :]),
        _notes(results, None, "The paper: PASCAL VOC 2012 val and ECSSD; no spread given."),
        True,
    )


def _column(number: int, settings: dict, measure: str) -> list:
    """What each row's setting has of a measure, None where there is nothing."""
    rows = ROWS[number].values()
    return [settings.get(name, {}).get(measure + suffix) for name, suffix in rows]


def _needs(values, result: Result, what: str, number: int):
    if values is None:
        raise JswsError(f"{result.file} has no {what}, which Table {number} is about")


def _notes(results: list[Result], on: str | None, *notes: str) -> tuple[str, ...]:
    own = []
    if results:
        where = f"on {on}" if on else f"on {APART}: not to be compared in value"
        names = ", ".join(result.name for result in results)
        own.append(f"{names}: measured here, {where}.")
        rows = [row for result in results for row in result.settings.values()]
        if any(len(values) > 1 for row in rows for values in row.values()):
            own.append("±: standard deviation over seeds.")
    return (*own, *notes)


# --- as a chart ----------------------------------------------------------------------


def chart(table: Table) -> Figure:
    """A mark for each figure: Tables 1 to 4 by test set or category, 5 and 6 by setting."""
    fig = Figure(figsize=(max(7, 0.55 * len(table.columns) + 2), 4.2), layout="constrained")
    if table.number <= 4:
        panels = {"": (table.columns, table.rows, table.ours)}
    else:
        measures, panels = COLUMNS[table.number], {}
        for k, (_, words, _) in enumerate(measures):
            names = [c.rpartition(": ")[0] for c in table.columns[k :: len(measures)]]
            cells = zip(
                *(row[k :: len(measures)] for row in table.rows.values()), strict=True
            )
            series = dict(zip(names, cells, strict=True))
            panels[words] = (tuple(table.rows), series, names[1:])
    axes = np.atleast_1d(fig.subplots(1, len(panels)))
    for ax, (title, (places, series, own)) in zip(axes, panels.items(), strict=True):
        labels = {name: _plain(name) + f" ({APART})" * table.apart for name in own}
        _marks(ax, places, series, labels)
        ax.set_title(title, fontsize=9)
    axes[-1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    fig.suptitle(table.title, fontsize=10)
    return fig


def _marks(ax, places: tuple[str, ...], series: dict[str, tuple], own: dict[str, str]):
    """Others in grey, the paper's own figures as diamonds, ours in colour with spread."""
    labelled, ours = False, 0
    for name, row in series.items():
        at = np.array([k for k, cell in enumerate(row) if cell is not None])
        means, sds = np.array([row[k] for k in at], float).reshape(-1, 2).T
        style = {"fmt": "o", "color": INK["grey"], "alpha": 0.5, "ms": 4}
        if name in own:
            style = {"fmt": "*osv^P"[ours % 6], "color": INK["acd"[ours % 3]], "ms": 9}
            style |= {"label": own[name], "mec": "black", "mew": 0.5, "capsize": 3}
            at, sds = at + 0.12 * (ours + 1), np.nan_to_num(sds)
            ours += 1
        elif name in ("Ours", "paper"):
            style = {"fmt": "D", "color": INK["b"], "mec": "black", "ms": 6}
            style |= {"label": "the paper's method"}
        elif not labelled:
            style |= {"label": "others, in the paper"}
            labelled = True
        ax.errorbar(at, means, sds, **style)
    if places[: len(VOC_CLASSES)] == VOC_CLASSES:
        places = (*SHORT, *places[len(VOC_CLASSES) :])
    ax.set_xticks(range(len(places)), places, rotation=45, ha="right", fontsize=8)
    ax.set_xlim(-0.5, len(places) - 0.5)
    ax.spines[["top", "right"]].set_visible(False)


def _plain(name: str) -> str:
    """A name for a legend: no formula, and not hidden by a `_` at its start."""
    return "\N{WORD JOINER}" * name.startswith("_") + name.replace("$", r"\$")
