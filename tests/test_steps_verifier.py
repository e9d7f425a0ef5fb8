"""Step verdicts: spans that cover the text, an unknown step that is not a wrong one, and the whole's own outcome."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.scorer import ScorerReplica
from verifiers import build
from verifiers.config import AnswerVerifier, FormatVerifier, RubricVerifier, StepsVerifier
from verifiers.score import Status
from verifiers.steps import cut

EVEN = FormatVerifier(pattern=r"(?s).*[02468];?")
CONFIG = StepsVerifier(separator=";", step=EVEN, outcome=AnswerVerifier())


def test_each_step_is_judged_by_itself_and_the_whole_by_its_outcome() -> None:
    said = build(CONFIG).score("", "12;13;4;#16", "16")
    assert (said.value, said.passed) == (1.0, True)
    assert [(span.start, span.end, span.value) for span in said.spans] == [
        (0, 3, 1.0),
        (3, 6, 0.0),
        (6, 8, 1.0),
        (8, 11, 1.0),
    ]
    wrong = build(CONFIG).score("", "12;#15", "16")
    assert (wrong.value, wrong.passed, len(wrong.spans)) == (0.0, False, 2)


@given(st.text(alphabet="a1;\n", max_size=30), st.sampled_from([";", "\n", ";;"]))
def test_steps_lie_in_order_and_leave_out_separators_alone(text: str, separator: str) -> None:
    spans = cut(text, separator)
    assert all(left[1] <= right[0] for left, right in pairwise(spans))
    kept = "".join(text[start:end] for start, end in spans)
    assert kept.replace(separator, "").replace(";", "") == text.replace(separator, "").replace(";", "")
    assert all(text[start:end].strip(separator) for start, end in spans)


def test_a_step_that_cannot_be_judged_makes_the_whole_unknown_and_not_wrong() -> None:
    slow = FormatVerifier(pattern=r"(a|aa)+$", timeout=0.01)
    said = build(StepsVerifier(separator=";", step=slow, outcome=AnswerVerifier())).score("", "a" * 60 + "b;#1", "1")
    assert said.status is Status.TIMEOUT
    assert math.isnan(said.value) and said.passed is None and said.spans == ()
    assert said.reason.startswith("step 0: ")


def test_spans_become_entries_named_step_and_in_a_rubric_by_the_parts_name() -> None:
    alone = ScorerReplica(CONFIG).score([("t", "", "2;#1", '"1"')])[0]
    assert [(entry.name, entry.start, entry.end) for entry in alone] == [
        ("reward", None, None),
        ("step", 0, 2),
        ("step", 2, 4),
    ]
    parts = RubricVerifier(parts=(CONFIG.model_copy(update={"name": "part"}),))
    assert [entry.name for entry in ScorerReplica(parts).score([("t", "", "2;#1", '"1"')])[0]] == [
        "reward",
        "part",
        "part",
        "part",
    ]


def test_an_empty_separator_is_refused() -> None:
    with pytest.raises(ValueError, match="separator"):
        StepsVerifier(separator="", step=EVEN, outcome=AnswerVerifier())
