"""Notebooks 1 to 4: symbols and their tables, rows that agree, words of two checks."""

import re
from pathlib import Path

import nbformat
import pytest
import torch

from jsws_lib.checks.backbone import check_conv
from jsws_lib.checks.losses import check_soft_dial
from jsws_lib.losses import LogPair

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def prose(name):
    """The markdown of a notebook, without its exercises."""
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    return "\n\n".join(c.source for c in cells if c.cell_type == "markdown"
                       and "exercise" not in c.metadata.get("tags", ()))  # fmt: skip


def symbols(formula):
    """The symbols of a formula without their indices, such as `s` of `s_m^n`."""
    formula = re.sub(r"\\(text\w*|operatorname\*?)\{[^}]*\}", " ", formula)
    found = set()
    for part in (r"\\mathcal\{?\w\}?_\{?\w+\}?", r"\\hat t", r"\\(?:lambda|eta)\b"):
        found |= {re.sub(r"[{} ]", "", symbol) for symbol in re.findall(part, formula)}
        formula = re.sub(part, " ", formula)
    formula = re.sub(r"[_^](\{[^}]*\}|\\?\w)", " ", formula)
    return found | set(re.findall(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", " ", formula)))


def test_symbols_are_found():
    assert symbols(r"-\frac1{N_s}\sum_n y_m^n\log s_m^n") == {"N", "y", "s"}
    assert symbols(r"\mathcal{L}_{s1}=\hat t_i + \text{all } \lambda") == {
        r"\mathcal" + "L_s1", r"\hatt", r"\lambda"}  # fmt: skip


@pytest.mark.parametrize("name", ["03_saliency_aggregation", "04_losses"])
def test_symbols_of_formulas_are_in_the_table(name):
    text = prose(name)
    rows = re.findall(r"^\| (.*?) \| .* \|$", text, re.M)
    known = {s for row in rows for f in re.findall(r"\$(.+?)\$", row) for s in symbols(f)}
    formulas = re.findall(r"\$\$(.+?)\$\$", text, re.S)
    assert len(formulas) >= 5
    for formula in formulas:
        assert symbols(formula) <= known, formula


def test_tables_agree_on_the_rate_of_the_sam():
    """The paper gives none, and the two notebooks may not differ about it."""
    for name in ("03_saliency_aggregation", "04_losses"):
        (row,) = re.findall(r"^\| SAM's learning rate \|(.*)$", prose(name), re.M)
        assert row.startswith(" not said | – |")


def test_a_border_of_the_wrong_width_is_told_how_far_a_tap_reaches(capsys):
    def narrow(x, weight, rate):
        padded = torch.nn.functional.pad(x, (rate,) * 4)
        h, w = x.shape
        return sum(weight[i, j] * padded[i * rate :, j * rate :][:h, :w]
                   for i in range(len(weight)) for j in range(len(weight)))  # fmt: skip

    check_conv(narrow)
    assert "is rate · (k - 1) / 2 away" in capsys.readouterr().out


def test_a_background_among_the_evidence_is_named(capsys):
    def with_background(out, rate):
        evidence = (rate * out.seg_logits_low.flatten(2)).logsumexp(2) / rate
        sides = evidence, -evidence
        return LogPair(*(torch.nn.functional.logsigmoid(side) for side in sides))

    check_soft_dial(with_background)
    assert "the background has no t-hat" in capsys.readouterr().out
