"""Checks: each passes the solution and nothing else, and tells its mistakes apart."""

import contextlib
import importlib
import io
import pkgutil
import re
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pytest
import torch

from jsws_lib.course import checks
from jsws_lib.course.checks import Wrong, ask, check, judge
from jsws_lib.course.checks.losses import _price, _truth, check_rival
from jsws_lib.course.checks.pseudo_labels import check_repaired
from jsws_lib.course.checks.sam import check_experiment
from jsws_lib.course.from_solutions import unsolved
from jsws_lib.experiments.studies.objective import made_by_hand
from jsws_lib.ssnet import SSNetOutput

SOLUTIONS = Path(__file__).resolve().parents[2] / "notebooks" / "solutions"
PATHS = sorted(SOLUTIONS.glob("*.ipynb"))


def run(source, namespace):
    """Run one cell; return what it prints."""
    source = re.sub(r"^( *)[%!].*$", r"\1pass", source, flags=re.M)  # for IPython alone
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(source, namespace)
    return printed.getvalue()


def printed(cell):
    return "".join(output.get("text", "") for output in cell.get("outputs", ()))


@pytest.fixture
def judged(monkeypatch):
    """What the checks hand to `judge`: the right answer, the mistakes, the settings."""
    seen = []

    def spy(got, want, mistakes, **how):
        seen.append((want, mistakes, how))
        judge(got, want, mistakes, **how)

    for found in pkgutil.iter_modules(checks.__path__, f"{checks.__name__}."):
        monkeypatch.setattr(importlib.import_module(found.name), "judge", spy)
    return seen


def not_told(judged):
    """Sentences whose mistake passes for right, or for another one, on every input."""
    told = {}
    for want, mistakes, how in judged:
        for words, mistake in mistakes.items():
            values = mistake if isinstance(mistake, tuple) else (mistake,)
            for value in values:
                if callable(value) or isinstance(value, bool | np.bool_):
                    continue  # a condition on the answer, which no value stands for
                kind = re.sub(r"[\d.,]+", "#", words)
                told.setdefault(kind, False)
                try:
                    judge(value, want, mistakes, **how)
                except Wrong as wrong:
                    told[kind] |= words in str(wrong)
    return [words for words, ever in told.items() if not ever]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_checks_pass_the_solution_and_nothing_else(path, monkeypatch, judged):
    monkeypatch.chdir(SOLUTIONS)
    monkeypatch.delenv("JSWS_TRAIN", raising=False)
    monkeypatch.setenv("JSWS_COURSE", "static")
    matplotlib.use("agg")
    namespace, solved, wrong, pending = {"__name__": "solutions"}, 0, 0, None
    cells = nbformat.read(path, as_version=4).cells
    learner = nbformat.read(SOLUTIONS.parent / path.name, as_version=4)
    unsolved_outputs = {c.id: printed(c) for c in learner.cells}
    for cell in (c for c in cells if c.cell_type == "code"):
        tags = cell.metadata.get("tags", ())
        stored = printed(cell)
        if "solution" in tags:
            pending = cell.source
        elif "check" in tags:
            with contextlib.suppress(Exception):  # an unsolved cell may not even run
                run(unsolved(pending), namespace)
            said = run(cell.source, namespace)
            assert "✗" in said and "✓" not in said, f"unsolved passes: {cell.source}"
            assert said == unsolved_outputs[cell.id], "other words are stored"
            run(pending, namespace)
            judged.clear()
            said = run(cell.source, namespace)
            assert "✓" in said and "✗" not in said, said
            assert "✓" in stored and not not_told(judged), cell.source
            solved += 1
        elif "wrong" in tags:
            said = run(cell.source, namespace)
            assert "✗" in said and "✓" not in said, f"wrong passes: {cell.source}"
            assert "it stopped with" not in said and "is still there" not in said, said
            assert said == stored, "other words are stored in the solutions"
            wrong += 1
            run(pending, namespace)  # later cells build on the right answer
        else:
            run(cell.source, namespace)
    assert wrong >= solved >= 3


def test_a_check_says_what_is_wrong_in_words(capsys):
    @check
    def check_half(answer):
        """Half of four and of two."""
        mistakes = {
            "that is the double": [8, 4],
            "that is the same": ([4, 2], [2, 4]),
            "cannot show": False,
            "nothing is negative": lambda got: (got < 0).any(),
        }
        got = ask(answer, np.array([4.0, 2]))
        judge(got, (2, 1), mistakes, where="of 4: ")
        return "Two."

    def spoil(x):
        x /= 2
        return x

    for answer, words in [
        (lambda x: x / 2, "✓ Right. Two."),
        (lambda x: 2 * x, "✗ Not yet: of 4: that is the double"),
        (lambda x: torch.tensor([2, 4]), "of 4: that is the same"),
        (lambda x: -x, "of 4: nothing is negative"),
        (lambda x: x + 1, "of 4: the result differs from the right answer by up to 3"),
        (spoil, "changes its arguments"),
        (lambda x: None, "✗ Not yet: the result is missing"),
        (lambda x: [1, 2, 3], "has shape (3,), not (2,)"),
        (lambda x: [float("nan"), 0], "holds NaN"),
        (lambda x: "two", "is a str, not an array of numbers"),
        (lambda x: 1 // 0, "it stopped with ZeroDivisionError"),
        (..., "the ... is still there"),
    ]:
        state = torch.get_rng_state()
        check_half(answer)
        assert words in capsys.readouterr().out
        assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(Wrong):
        check_half.__wrapped__(lambda x: x)


def kept(labels):
    return np.concatenate([[1], labels])[:, None, None]


def softmax(x):
    e = np.exp(x - x.max(0))
    return e / e.sum(0)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x, t: (softmax(x) * kept(t)).argmax(0), "✓ Right"),
        (lambda x, t: (x + 100 * (kept(t) - 1)).argmax(0), "which number"),
        (lambda x, t: np.where(kept(t), x, -900).argmax(0), "-1000 on all"),
        (lambda x, t: (np.exp(x) * kept(t)).argmax(0), "infinities or zeros"),
    ],
)
def test_a_slip_on_logits_is_called_by_its_own_name(answer, words, capsys):
    check_repaired(answer)
    assert words in capsys.readouterr().out


def verdict(before, after, sign):
    moved = sign * (after - before)
    sizes = moved.mean() / (moved.std(ddof=1) / len(moved) ** 0.5)
    return "supported" if sizes > 2 else "refuted" if sizes < -2 else "open"


def noisy(image):
    noise = np.random.default_rng().normal(0, 60, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda image: 255 - image, "is supported"),
        (lambda image: 0 * image, "is supported"),
        (noisy, "is supported"),
        (lambda image: image[:, ::-1], "your change moves objects"),
        (lambda image: np.roll(image, 8, 0), "your change moves objects"),
        (lambda image: image[24:72, 24:72].repeat(2, 0).repeat(2, 1), "moves objects"),
    ],
)
def test_a_change_that_moves_objects_is_no_experiment(change, words, capsys):
    before = np.random.default_rng(0).gamma(2, 0.04, 100)
    results = iter((before, before + np.random.default_rng(1).normal(0.02, 0.01, 100)))
    check_experiment(change, 1, verdict, lambda _: next(results))
    assert words in capsys.readouterr().out


def test_a_rival_is_wrong_and_a_dear_one_no_hole(capsys):
    mask = torch.zeros(12, 12, dtype=torch.uint8)
    mask[:, :6] = 12

    def experiment(mask, out):
        wrong = (out.probs[0].argmax(0) != mask).float().mean().item()
        return wrong, sum(_price(mask, out)) - sum(_price(mask, _truth(mask)))

    logits = made_by_hand("fill", mask).seg_logits_low.clone()
    logits[:, 7] = 20.0  # a bird everywhere
    bird = SSNetOutput(logits.log_softmax(1), logits, torch.zeros(1, 20))
    for rival, predicted, words in [
        (bird, "dearer", "is supported. No hole yet"),
        (made_by_hand("truth", mask), "cheaper", "only 0% of the pixels"),
    ]:
        check_rival(experiment, lambda rival=rival: (mask, rival), predicted)
        assert words in capsys.readouterr().out
