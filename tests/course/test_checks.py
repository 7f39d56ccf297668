"""Checks: each passes the solution and nothing else, and tells its mistakes apart."""

import contextlib
import copy
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
from jsws_lib.course.checks import Wrong, ask, backbone, check, judge, stage1, stage2
from jsws_lib.course.checks.data import check_crop_and_flip
from jsws_lib.course.checks.evaluation import check_mae
from jsws_lib.course.checks.losses import _price, _truth, check_rival
from jsws_lib.course.checks.pseudo_labels import check_appearance, check_repaired
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


def cropped(draw):
    def answer(rng, image, mask, *, crop, size):
        at = np.arange(size)[:, None] / size * crop + np.multiply(draw(rng), 1 - crop)
        x, y = (at * mask.shape[::-1]).astype(int).T
        x = x[:: rng.choice((1, -1))]
        return image[y[:, None], x], mask[y[:, None], x]

    return answer


def appearance(difference):
    def answer(p, q, m, n, alpha, beta):
        far, unlike = (p - q) / alpha, difference(m, n) ** 2 / beta**2
        return np.exp(-(far @ far + unlike.sum()) / 2)

    return answer


def mae(s, m):
    return np.abs(s - m / m.max()).mean()


def with_ints(network):
    network, rate = copy.deepcopy(network), 1
    for c in network[::2]:
        rate, c.stride, c.dilation = rate * c.stride[0], 1, rate * c.dilation[0]
        c.padding = c.dilation * (c.kernel_size[0] // 2)
    return network


def losses_as(form):
    return lambda *given: form(torch.tensor(stage1._step()(*given), requires_grad=True))


def check_measured(measured):
    backbone.check_experiment(None, 0.85, measured, "averages")


def check_gains(gains):
    one, other = ({"share": 0.5, "spread": 1, "count": count} for count in (6, 0))
    stage2.check_experiment(
        one, other, "one", gains, "one", lambda seed, count, **_: count / (1 + seed)
    )


@pytest.mark.parametrize(
    ("check", "answer", "words"),
    [
        (check_repaired, lambda x, t: (softmax(x) * kept(t)).argmax(0), "✓ Right"),
        (check_repaired, lambda x, t: (x + 100 * (kept(t) - 1)).argmax(0), "which number"),
        (check_repaired, lambda x, t: np.where(kept(t), x, -900).argmax(0), "-1000 on all"),
        (check_repaired, lambda x, t: (np.exp(x) * kept(t)).argmax(0), "zeros. Softmax"),
        (check_crop_and_flip, cropped(lambda rng: rng.random(1)), "one number"),
        (check_crop_and_flip, cropped(lambda rng: (rng.random(), 0.5)), "hardly changes"),
        (backbone.check_surgery, with_ints, "✓ Right"),
        (check_measured, 0.5, "run the cell anew"),
        (stage1.check_step, losses_as(list), "✓ Right"),
        (stage1.check_step, losses_as(lambda pair: [pair.sum()] * 2), "not those of"),
        (check_appearance, appearance(lambda m, n: m - np.int16(n)), "int16 ends"),
        (check_appearance, appearance(lambda m, n: np.int8(m - n) * 1.0), "bytes"),
        (check_gains, (6, 3, 2), "✓ Right"),
        (check_gains, np.array([6, 3, 2]), "✓ Right"),
        (check_gains, [5, 3, 2], "seed 0: the result differs"),
        (check_gains, [6, 3, 6], "seed 2: that is seed 0"),
        (check_mae, lambda s, m: mae(s if s.dtype == "f8" else s / 255, m), "float32"),
        (check_mae, lambda s, m: mae(s / (255 if s.dtype == "u1" else 1), m), "NaN"),
    ],
)
def test_a_right_answer_passes_and_a_slip_has_its_own_name(
    check, answer, words, monkeypatch, capsys
):
    monkeypatch.setattr(backbone, "_agreement", lambda network: 1.0)
    check(answer)
    assert words in capsys.readouterr().out


def moved(before, after):
    apart = after - before
    return apart.mean(), apart.std(ddof=1) / len(apart) ** 0.5


def verdict(measure, fixed=0, errors=2):
    def answer(a, b, sign):
        size, error = measure(a, b)
        found = "supported" if sign * size > 0 else "refuted"
        return found if abs(size) > fixed + errors * error else "open"

    return answer


def errors(change):
    rng = np.random.default_rng(0)
    before, more = rng.gamma(2, 0.04, 100), rng.normal(0.02, 0.01, 100)
    return before + more * (change(np.full((1, 1, 3), 9, np.uint8)) != 9).any()


def noisy(image):
    noise = np.random.default_rng().normal(0, 60, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda image: 0 * image, "is supported"),
        (noisy, "is supported"),
        (lambda image: np.roll(image, 8, 0), "your change moves objects"),
        (lambda image: image[24:72, 24:72].repeat(2, 0).repeat(2, 1), "moves objects"),
    ],
)
def test_a_change_that_moves_objects_is_no_experiment(change, words, capsys):
    check_experiment(change, 1, verdict(moved), errors)
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("bar", "mark"),
    [((0.001, 0), "✗"), ((0.1, 0), "✗"), ((0, 1.3), "✗"), ((0, 1.6), "✓"), ((0, 3), "✓")],
)
def test_a_bar_is_a_number_of_standard_errors_and_more_than_one(bar, mark, capsys):
    check_experiment(lambda image: 255 - image, 1, verdict(moved, *bar), errors)
    tied = verdict(lambda x, y: (np.corrcoef(x, y)[0, 1], len(x) ** -0.5), *bar)
    stage1.check_experiment(tied, 1, range(20), range(20))
    assert capsys.readouterr().out.count(mark) == 2


def test_a_rival_is_wrong_and_a_dear_one_no_hole(capsys):
    mask = torch.zeros(12, 12, dtype=int)
    mask[:, :6] = 12

    def experiment(mask, out):
        torch.zeros(20)[mask.unique()[1:] - 1]  # as bytes they are no numbers, but a mask
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
