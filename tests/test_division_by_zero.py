"""An answer that divides by zero is no number, and math-verify is not asked whether it is."""

import pytest

from verifiers import Score
from verifiers.config import MathVerifier
from verifiers.equivalence import decide

ZERO = ["0 0/0", "0/0", "5/0", r"\frac{0}{0}", r"\frac10\cdot 0", r"\frac{0}{ 00 }", "1/{0}", r"\dfrac{x}0"]
OTHERS = ["1/0.5", "10/05", r"\frac{1}{0.5}", "2/1", r"\frac{0}{7}", "0/7", "1/02", r"\frac{1}{00.25}"]


@pytest.mark.parametrize("answer", ZERO)
def test_it_is_wrong_by_its_text(answer):
    score = decide(f"\\boxed{{{answer}}}", "0", MathVerifier())
    assert isinstance(score, Score) and score.passed is False
    assert "division by zero" in score.reason


@pytest.mark.parametrize("answer", OTHERS)
def test_a_zero_that_begins_a_number_divides(answer):
    found = decide(f"\\boxed{{{answer}}}", "x", MathVerifier())
    assert not isinstance(found, Score) or "zero" not in found.reason
