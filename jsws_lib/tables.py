"""Our results as rows beside the paper's Tables 1 to 4 and as columns beside 5 and 6.

One table, four forms: Markdown, LaTeX (booktabs), HTML and a chart. A result counts as
measured on other pictures, and is set apart, unless it is said to be on the table's own.
"""

import html
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from data_utils.errors import JswsError
from data_utils.voc import VOC_CLASSES
from jsws_lib.ablation import mean_sd
from jsws_lib.compare import paper_table
from jsws_lib.pictures import INK, SHORT
from jsws_lib.results import PAPER

MEASURES = ("miou", "iou", "mae", "max_f", "mae_crf", "max_f_crf")
SETS = {3: "val", 4: "test"}  # of PASCAL VOC 2012; Tables 1 and 2 have one a column
SIZES = {"ECSSD": 1000, "PASCAL-S": 850, "HKU-IS": 4447, "DUTS-test": 5019}  # images
APART = "other pictures"
MARKS = ("*", "o", "s", "^", "v", "P")  # of our results in a chart
MEANING = ("As the table prints it: * a pre-trained saliency model helps, † boxes, "
           "‡ scribbles.")  # fmt: skip
# Row: the setting and the measure's suffix. Table 6 names the CRF.
TABLE_5 = {"S": ("S", ""), "M": ("M", ""), "S-S": ("SS", ""), "M-S": ("MS", ""),
           "M-M": ("MM", "")}  # fmt: skip
TABLE_6 = {"2S": ("2S", ""), "M-M": ("MM", ""), "2S + CRF": ("2S", "_crf"),
           "M-M + CRF": ("MM", "_crf")}  # fmt: skip


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
    digits: int
    notes: tuple[str, ...]
    apart: bool = False  # ours were measured on other pictures

    def _cells(self, sign: str) -> list[list[str]]:
        """Header and rows as text; `sign` stands between mean and deviation."""
        lines = [["", *self.columns]]
        for name, row in self.rows.items():
            lines.append([name, *(self._number(cell, sign) for cell in row)])
        return lines

    def _number(self, cell: tuple[float, float] | None, sign: str) -> str:
        if cell is None:
            return "–"
        mean, sd = (f"{value:.{self.digits}f}" for value in cell)
        return mean if math.isnan(cell[1]) else f"{mean}{sign}{sd}"

    def _mine(self, row: str, column: str) -> bool:
        """Whether a cell is ours; a result may well be called like a test set."""
        return (row if self.number <= 4 else column) in self.ours

    def markdown(self) -> str:
        """A Markdown table; what is ours is bold."""
        head, *rows = self._cells(" ± ")

        def bold(name: str, mine: bool) -> str:
            return f"**{_md(name)}**" if mine else _md(name)

        lines = [[bold(name, self._mine("", name)) for name in head],
                 ["---"] + ["---:"] * (len(head) - 1)]  # fmt: skip
        lines += [[bold(row[0], self._mine(row[0], "")), *row[1:]] for row in rows]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        notes = "\n".join(f"- {_md(note)}" for note in self.notes)
        return f"**{_md(self.title)}**\n\n{body}\n\n{notes}"

    def latex(self) -> str:
        """A `table` environment for the package booktabs."""
        head, *rows = self._cells(r" $\pm$ ")
        lines = [" & ".join(map(_tex, head)) + r" \\", r"\midrule"]
        ruled = False
        for row in rows:
            if self._mine(row[0], "") and not ruled:
                lines.append(r"\midrule")
                ruled = True
            lines.append(" & ".join([_tex(row[0]), *row[1:]]).replace("–", "--") + r" \\")
        notes = " ".join(_tex(note) for note in self.notes)
        return "\n".join([
            r"\begin{table}", r"\centering", rf"\caption{{{_tex(self.title)}. {notes}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule", *lines,
            r"\bottomrule", r"\end{tabular}", r"\end{table}",
        ])  # fmt: skip

    def html(self) -> str:
        """A page with the table, readable in light and dark."""
        head, *rows = self._cells(" ± ")

        def line(cells: list[str], kind: str) -> str:
            out = []
            for k, cell in enumerate(cells):
                tag = "th" if kind == "col" or k == 0 else "td"
                scope = f' scope="{kind if k or kind == "col" else "row"}"'
                mine = self._mine(cells[0], head[k])
                out.append(f"<{tag}{scope if tag == 'th' else ''}"
                           f"{' class=ours' if mine else ''}>{html.escape(cell)}</{tag}>")
            return f"<tr>{''.join(out)}</tr>"

        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        return f"""\
<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="color-scheme" content="light dark">
<title>{html.escape(self.title)}</title>
<style>
body {{ font-family: sans-serif; margin: 2em; }}
table {{ border-collapse: collapse; }}
caption {{ font-weight: bold; padding: .5em; text-align: left; }}
td, th {{ padding: .2em .6em; text-align: right; border-bottom: 1px solid #8884; }}
th:first-child {{ text-align: left; }}
.ours {{ font-weight: bold; background: #f0e44240; }}
</style>
<table><caption>{html.escape(self.title)}</caption>
<thead>{line(head, "col")}</thead>
<tbody>
{chr(10).join(line(row, "row") for row in rows)}
</tbody></table>
<ul>{notes}</ul>
</html>"""


TEX = str.maketrans({
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&",
    "%": r"\%", "_": r"\_", "#": r"\#", "^": r"\^{}", "~": r"\~{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$",
    "†": r"$^\dagger$", "‡": r"$^\ddagger$", "–": "--", "*": r"$^*$",
})  # fmt: skip
MD = str.maketrans({sign: f"\\{sign}" for sign in "\\|*`<"})


def _tex(text: str) -> str:
    return text.translate(TEX)


def _md(text: str) -> str:
    return text.translate(MD)


def read(file: Path | str) -> Result:
    """Read a result: a file of `jsws ablate`, or what `jsws evaluate --json` printed.

    Raises:
        JswsError: no such file, no JSON, none of these, or a measure that is no fraction
            of 1.
    """
    file = Path(file)
    try:
        found = json.loads(file.read_bytes())  # some shells write UTF-16
    except OSError as error:
        raise JswsError(f"{file} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise JswsError(f"{file} is not JSON ({error})") from None
    found = found if isinstance(found, dict) else {}
    own = found.get("categories", [*VOC_CLASSES]) != [*VOC_CLASSES]
    if isinstance(found.get("settings"), dict):
        rows = {name: _checked(row, f"{file}, setting {name}")
                for name, row in found["settings"].items()}  # fmt: skip
        return Result(file.stem, file, rows, "toolbox", own)
    row = {name: [found[name]] for name in MEASURES if found.get(name) is not None}
    if not row:
        raise JswsError(f"{file} holds none of {', '.join(MEASURES)}: give a file of "
                        "`jsws ablate`, or what `jsws evaluate ... --json` printed")
    setting = str(found.get("setting", "?"))
    return Result(file.stem, file, {setting: _checked(row, str(file))},
                  found.get("protocol"), own, found.get("images"))  # fmt: skip


def _checked(row: object, where: str) -> dict[str, list]:
    """The measures of one setting, by seed; JswsError for what `jsws` never writes."""
    if not isinstance(row, dict):
        raise JswsError(f"{where} is no object of measures, but {row!r:.40}: give a file "
                        "as `jsws ablate` wrote it")  # fmt: skip
    row = {name: row[name] for name in MEASURES if name in row}
    for name, seeds in row.items():
        if not _all(seeds, _iou if name == "iou" else _fraction):
            raise JswsError(f"{where}: {name} is {seeds!r:.60}, but results are fractions "
                            "from 0 to 1, one a seed: give the file as `jsws` wrote it, or "
                            "divide percent by 100")  # fmt: skip
    return row


def _all(values: object, fits: Callable) -> bool:
    return isinstance(values, list) and values != [] and all(map(fits, values))


def _iou(seed: object) -> bool:
    return _all(seed, lambda value: value is None or _fraction(value))


def _fraction(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def beside(number: int, results: list[Result], *, on: str | None = None) -> Table:
    """Put results beside a table of the paper.

    Args:
        number: 1 to 6.
        results: ours.
        on: the table's own test set that they were measured on; None: other pictures.

    Raises:
        JswsError: a result lacks the table's measure or has it under another protocol;
            no such test set, or only a part of it was measured; two results of one name.
    """
    names = [result.name for result in results]
    if len(set(names)) < len(names):
        raise JswsError(f"two results are called {max(names, key=names.count)}: rename a "
                        "file")  # fmt: skip
    taken, kind = {"paper"}, "column"
    if number <= 4:
        rows, kind = paper_table(number)["rows"].items(), "row"
        taken = {name for method, row in rows for name in (method, _method(method, row))}
    for result in results:
        if result.name in taken:
            raise JswsError(f"{result.file}: Table {number} has a {kind} {result.name} of "
                            "its own; rename the file")  # fmt: skip
        if number in (1, 2, 6) and result.protocol not in (None, "toolbox"):
            raise JswsError(f"{result.file} was measured under {result.protocol}, Table "
                            f"{number} under toolbox; measure again with --protocol "
                            "toolbox")  # fmt: skip
        count = SIZES.get(on)
        if count and result.images not in (None, count):
            raise JswsError(f"{result.file} was measured on {result.images} images, but "
                            f"{on} has {count:,}: leave --on out")  # fmt: skip
    if number <= 2:
        return _saliency(number, results, on)
    if number <= 4:
        return _segmentation(number, results, on)
    if on:
        raise JswsError(f"--on {on}: Table {number} has one test set; leave it out")
    return _ablation(number, results)


def _saliency(number: int, results: list[Result], on: str | None) -> Table:
    table = paper_table(number)
    known = table["columns"]
    if on is not None and on not in known:
        raise JswsError(f"--on {on}: the columns of Table {number} are {', '.join(known)}")
    columns = (*known, *(() if on or not results else (APART,)))
    rows = {_method(name, row): _known(row["values"], len(columns))
            for name, row in table["rows"].items()}  # fmt: skip
    notes = list(table["notes"])
    for result in results:
        measure = table["measure"]
        values = result.best(f"{measure}_crf", measure)
        _needs(values, result, f"{measure} of M-M", number)
        crf = result.best(f"{measure}_crf") is not None
        notes.append(f"{result.name}: {'after' if crf else 'without'} CRF; the row Ours "
                     "is after CRF.")  # fmt: skip
        at = columns.index(on or APART)
        row = [None] * len(columns)
        row[at] = mean_sd(values)
        rows[result.name] = tuple(row)
    return Table(number, _title(table, number), columns, rows, frozenset(_names(results)),
                 3, _notes(notes, results, on))  # fmt: skip


def _segmentation(number: int, results: list[Result], on: str | None) -> Table:
    table = paper_table(number)
    if on is not None and on != SETS[number]:
        raise JswsError(f"--on {on}: Table {number} is about VOC {SETS[number]}")
    columns = (*table["columns"], "mean")
    rows = {}
    for name, row in table["rows"].items():
        values = row.get("values", [None] * len(table["columns"]))
        rows[_method(name, row)] = _known([*values, row["mean"]], len(columns))
    for result in results:
        miou = result.best("miou")
        _needs(miou, result, "miou", number)
        count = len(table["columns"])
        iou = result.best("iou") or [[None] * count]
        if result.own or {len(seed) for seed in iou} != {count}:
            raise JswsError(f"{result.file}: iou is not of the background and VOC's "
                            f"{count - 1} categories, which Table {number} is about")
        iou = np.array(iou, float)
        cells = [None if np.isnan(column).any() else mean_sd(100 * column)
                 for column in iou.T]  # fmt: skip
        rows[result.name] = (*cells, mean_sd([100 * value for value in miou]))
    notes = (MEANING, *table["notes"])
    return Table(number, _title(table, number), columns, rows, frozenset(_names(results)),
                 1, _notes(notes, results, on), on is None)  # fmt: skip


def _ablation(number: int, results: list[Result]) -> Table:
    measures = {5: ("miou",), 6: ("mae", "max_f")}[number]
    kinds = {5: TABLE_5, 6: TABLE_6}[number]
    sources = {"paper": PAPER} | {result.name: result.settings for result in results}
    factor = {5: 100, 6: 1}[number]
    words = {"miou": "mIoU", "mae": "MAE", "max_f": "max F"}
    columns = tuple(f"{name}: {words[measure]}" for name in sources for measure in measures)
    rows = {}
    for label, (setting, suffix) in kinds.items():
        cells = []
        for name, settings in sources.items():
            for measure in measures:
                value = settings.get(setting, {}).get(measure + suffix)
                if name == "paper":  # printed in %
                    cells.append(value if value is None else (value, math.nan))
                else:
                    cells.append(value and mean_sd([factor * v for v in value]))
        rows[label] = tuple(cells)
    for k, result in enumerate(results, 1):  # 0: the paper
        mine = slice(k * len(measures), (k + 1) * len(measures))
        if not any(cell for row in rows.values() for cell in row[mine]):
            _needs(None, result, f"{' or '.join(measures)} of a setting", number)
    title = {5: "mean IoU in % of the settings (Section 4.4, Table 5)",
             6: "saliency maps of the settings (Section 4.4, Table 6)"}[number]  # fmt: skip
    ours = frozenset(c for c in columns if not c.startswith("paper:"))
    notes = ("The paper: PASCAL VOC 2012 val and ECSSD; no spread given.",)
    return Table(number, title, columns, rows, ours, {5: 1, 6: 3}[number],
                 _notes(notes, results, None))  # fmt: skip


def _title(table: dict, number: int) -> str:
    return f"{table['title']} ({table['source']}; {table['better']} is better)"


def _method(name: str, row: dict) -> str:
    return name + row.get("mark", "") + (f" '{row['year']}" if "year" in row else "")


def _known(values: list, count: int) -> tuple:
    cells = [None if value is None else (value, math.nan) for value in values]
    return (*cells, *[None] * (count - len(cells)))


def _needs(values, result: Result, what: str, number: int):
    if values is None:
        raise JswsError(f"{result.file} has no {what}, which Table {number} is about")


def _names(results: list[Result]) -> list[str]:
    return [result.name for result in results]


def _notes(notes, results: list[Result], on: str | None) -> tuple[str, ...]:
    own = []
    if results:
        where = f"on {on}" if on else f"on {APART}: not to be compared in value"
        own.append(f"{', '.join(_names(results))}: measured here, {where}.")
        rows = [row for result in results for row in result.settings.values()]
        if any(len(values) > 1 for row in rows for values in row.values()):
            own.append("±: standard deviation over seeds.")
    return (*own, *notes)


def chart(table: Table) -> Figure:
    """Tables 1 to 4: a dot for each method; 5 and 6: bars for each setting."""
    fig = Figure(figsize=(max(6, 0.55 * len(table.columns) + 2), 4.2), layout="constrained")
    if table.number <= 4:
        _dots(fig.subplots(), table)
    else:
        groups = 1 if table.number == 5 else 2
        for k, ax in enumerate(np.atleast_1d(fig.subplots(1, groups))):
            _bars(ax, table, slice(k, None, groups))
    fig.suptitle(table.title, fontsize=10)
    return fig


def _plain(name: str) -> str:
    """A name for a legend: no formula, and not hidden by a `_` at its start."""
    return "\N{WORD JOINER}" * name.startswith("_") + name.replace("$", r"\$")


def _dots(ax, table: Table):
    """Each column a test set or category: others in grey, the paper's own, ours."""
    ours = 0
    for name, row in table.rows.items():
        at = [k for k, cell in enumerate(row) if cell is not None]
        means, sds = np.array([row[k] for k in at], float).reshape(-1, 2).T
        if name in table.ours:
            ax.errorbar(at, means, np.nan_to_num(sds), fmt=MARKS[ours % len(MARKS)], ms=9,
                        color=INK["acd"[ours % 3]], mec="black", mew=0.5, capsize=3,
                        label=_plain(name) + f" ({APART})" * table.apart)  # fmt: skip
            ours += 1
        elif name == "Ours":
            ax.plot(at, means, "D", color=INK["b"], mec="black", ms=6,
                    label="the paper's method")  # fmt: skip
        else:
            first = name == next(iter(table.rows))
            ax.plot(at, means, "o", color=INK["grey"], alpha=0.5, ms=4,
                    label="others, in the paper" if first else None)  # fmt: skip
    if APART in table.columns:  # a column of its own, Tables 1 and 2
        edge = table.columns.index(APART) - 0.5
        ax.axvspan(edge, edge + 1, color=INK["lit"], alpha=0.25, lw=0,
                   label="other pictures: no comparison")  # fmt: skip
    short = [SHORT[k] if len(table.columns) == 22 and k < 21 else name
             for k, name in enumerate(table.columns)]  # fmt: skip
    ax.set_xticks(range(len(table.columns)), short, rotation=45, ha="right", fontsize=8)
    ax.set_xlim(-0.5, len(table.columns) - 0.5)
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    ax.spines[["top", "right"]].set_visible(False)


def _bars(ax, table: Table, part: slice):
    """Each group a setting, each bar a source."""
    columns = table.columns[part]
    shades = (INK["grey"], INK["a"], INK["b"], INK["c"], INK["d"])
    hatches = ("", "//", "..", "xx", "\\\\")
    for k, column in enumerate(columns):
        for j, row in enumerate(table.rows.values()):
            if (cell := row[part][k]) is not None:
                mean, sd = cell
                ax.bar(j + (k - (len(columns) - 1) / 2) * 0.8 / len(columns), mean,
                       0.8 / len(columns), yerr=None if math.isnan(sd) else sd, capsize=3,
                       color=shades[k % 5], hatch=hatches[k % 5], ec="white")  # fmt: skip
        ax.bar(0, 0, color=shades[k % 5], hatch=hatches[k % 5], ec="white",
               label=_plain(column.rpartition(": ")[0]))  # fmt: skip
    ax.set_xticks(range(len(table.rows)), list(table.rows), fontsize=8)
    ax.set_title(columns[0].rpartition(": ")[2], fontsize=9)
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.1))
    ax.spines[["top", "right"]].set_visible(False)
