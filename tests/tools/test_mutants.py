"""The list of mutants fits the method; `make mutants` makes them."""

import pytest

from tools.mutants import MUTANTS, Mutant, place


def test_each_mutant_has_its_place(root):
    assert len(MUTANTS) >= 30
    for mutant in MUTANTS:
        assert place(mutant).is_file() and mutant.old != mutant.new
        assert (root / "tests/method" / f"test_{mutant.tests}.py").is_file()


@pytest.mark.parametrize("old", ["no such text", "import"])
def test_a_text_that_is_not_there_once_is_said(old):
    with pytest.raises(ValueError, match=f"must occur once.*{old}.*mend MISTAKES"):
        place(Mutant(old, "", "", "losses"))
