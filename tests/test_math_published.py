r"""Agreement with math-verify's own published tests, and why we differ where we do."""

import pytest

import verifiers
from tests.math_cases import PUBLISHED, RESPONSES
from verifiers import Item, Status

PROSE = "an answer is not picked out of a sentence: a box, a marker or `answer is` says which it is"
CHAIN = "a row of equations is not one answer, and `4=3` is none: x = 5+5+1 = 7 = 11"
UNWORKED = "arithmetic that is not worked out repeats the question"
COMMA = "a reference with a comma and no decimal point is a list, or has thousands; its decimal comma must be a point"
SEVERAL = "two boxes are two answers, unless `boxes` says all"

DELIBERATE = {
    ("1,22", "1.22"): COMMA,
    ("0,111", "0.111"): COMMA,
    ("40/9", "4 + 4/9"): UNWORKED,
    ("10", "(9+1)"): UNWORKED,
    ("(1,3)", "{1,3}"): "a pair in round brackets is in order, or an interval; a set is neither",
    ("x = 11", "x = 5+5+1 = 7 =11"): CHAIN,
    ("x = 1/3", r"x = 5+5+1 = 1/3 \approx 11"): CHAIN,
    ("1/3", r"x=1/3\approx1.3"): CHAIN,
    ("10/9", r"\frac{1}{2} \$ = \frac{10}{9}"): CHAIN,
    (r"\text{13}", "13"): "how a number is set in type changes nothing",
}
"""(reference, answer in a box) -> why our verdict is the other one."""

DELIBERATE_RESPONSES = {
    ("9", "Answer \\[ \n 9 \n \\]"): PROSE,
    ("9", "Answer $$ \n 9 \n $$"): PROSE,
    ("2.74", "Cost: 2,74 $ a.."): PROSE,
    ("1000.99", "it is not 10, it is 1,000.99€"): PROSE,
    ("1000.99", "it is not 10, it's 1,000.99m²"): PROSE,
    (r"28\%", "$28$ percent"): PROSE,
    ("4/9", "There are 4 objects and 4/9 remain."): PROSE,
    ("x >= 5", r"Therefore $x \geq 5$ is the solution."): PROSE,
    ("x < 3", r"We find that $x \lt 3$."): PROSE,
    ("2/3", "Therefore, the probability that Alice wins the game is 2/3. <|im_start|>user"): PROSE,
    ("12", "Therefore, there are 12 sequences that meet the conditions. I hope it is correct."): PROSE,
    ("120", "Final Answer: The volume of $ABCDEFGH$ is 120. I hope it is correct."): PROSE,
    ("3", "Final Answer: Jane started growing Sphere 3 hours ago. I hope it is correct."): PROSE,
    ("19", "Final Answer: The maximum number of points that could be in the domain is 19."): PROSE,
    ("34", "Final Answer: The largest $n$ is 34."): PROSE,
    (r"100\%", "Therefore, the minimum error increases by 100%."): PROSE,
    ("10455", r"the first gives $\boxed{200}$, the second $\boxed{255}$. The final answer is $10,455$."): SEVERAL,
    ("1,2", r"$\boxed{1}\boxed{2}$"): SEVERAL,
    ("1,-2", r"the integers are \boxed{-2} and \boxed{1}."): SEVERAL,
}

AGREEMENT = {"in a box": 0.95, "in a response": 0.63}
"""Share of the published verdicts that are ours, too; measured 210/220 and 33/52."""


def judged(rows):
    """Our verdicts on (reference, response) rows."""
    verifier = verifiers.build({"kind": "math", "workers": 1, "timeout": 20.0})
    scores = verifier.score_many([Item("", response, reference) for reference, response in rows])
    verifier.close()
    return scores


@pytest.fixture(scope="module")
def boxed():
    rows = [row for rows in PUBLISHED.values() for row in rows]
    scores = judged([(reference, f"\\boxed{{{answer}}}") for reference, answer, _ in rows])
    return list(zip(rows, scores, strict=True))


@pytest.fixture(scope="module")
def free():
    return list(zip(RESPONSES, judged([row[:2] for row in RESPONSES]), strict=True))


def differing(verdicts):
    return {(reference, answer) for (reference, answer, same), score in verdicts if score.passed is not same}


def test_there_are_enough_of_every_kind():
    assert len(PUBLISHED) >= 12 and all(rows for rows in PUBLISHED.values())
    everything = [row for rows in PUBLISHED.values() for row in rows] + RESPONSES
    assert len(set(everything)) == len(everything) >= 250
    assert sum(same for _, _, same in everything) > 60 < sum(not same for _, _, same in everything)


def test_we_differ_only_where_we_mean_to(boxed):
    assert differing(boxed) == set(DELIBERATE)


def test_we_read_responses_otherwise_only_where_we_mean_to(free):
    assert differing(free) == set(DELIBERATE_RESPONSES)


def test_every_verdict_is_one(boxed, free):
    assert {score.status for _, score in [*boxed, *free]} == {Status.OK}


def test_the_agreement_is_no_less_than_it_was(boxed, free):
    for name, verdicts in (("in a box", boxed), ("in a response", free)):
        agree = 1 - len(differing(verdicts)) / len(verdicts)
        assert agree >= AGREEMENT[name], f"{name}: {agree:.3f} of {len(verdicts)}"


def test_no_published_falsehood_passes(boxed, free):
    """Save one, which is about type alone."""
    passed = {row[:2] for row, score in [*boxed, *free] if score.passed and not row[2]}
    assert passed == {(r"\text{13}", "13")}


def test_all_boxes_are_one_list_where_that_is_asked():
    verifier = verifiers.build({"kind": "math", "boxes": "all", "workers": 1})
    for reference, response, same in RESPONSES[-2:]:
        assert verifier.score("", response, reference).passed is same
    verifier.close()
