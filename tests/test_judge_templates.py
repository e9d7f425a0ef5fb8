"""What a judge is told: what is quoted cannot end its quotation, and templates are checked before anything is asked."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifiers.judge_templates import (
    CHAT_MARKER,
    DEFAULTS,
    Marks,
    check_template,
    conversation,
    fenced,
    marks,
    needs_reference,
    neutral,
)

OWN = Marks("f" * 16, "a" * 12)
TEMPLATES = sorted(DEFAULTS)
VERDICT = ('"score": N', "N is a number.")

MARKERS = [
    "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<s>", "</s>", "<bos>", "<eos>", "<start_of_turn>",
    "<end_of_turn>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<think>", "</think>", "<\uff5cUser\uff5c>",
    "<tool_call>", "</SYSTEM>", "[TOOL_CALLS]",
]  # fmt: skip


def facts(**own: str) -> dict[str, str]:
    return {"prompt": "p", "response": "r", "criteria": "c", "other": "o", **own}


def shown(form: str) -> dict[str, str]:
    own = facts()
    if form != "pairwise":
        del own["other"]
    return own


@settings(max_examples=300, deadline=None)
@given(
    st.text()
    | st.lists(st.sampled_from([*MARKERS, OWN.fence, "\n", "\r", "\u2028", "\x85", "| ", ">>>", "<<<"])).map("".join)
)
def test_a_quotation_has_one_opening_and_one_end(text: str) -> None:
    lines = fenced("RESPONSE", text, OWN).split("\n")
    assert lines[0] == f"<<<RESPONSE {OWN.fence}"
    assert lines[-1] == f"{OWN.fence} RESPONSE>>>"
    assert all(line.startswith("| ") for line in lines[1:-1])
    assert len("\n".join(lines).splitlines()) == len(lines), "some other break of lines is left"


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([*MARKERS, "\\", "|", "<", "[", "a", "\n"])).map("".join))
def test_escaping_can_be_undone_and_loses_nothing(text: str) -> None:
    undone = CHAT_MARKER.sub(lambda found: f"{found['open']}{found['slashes'][1:]}", neutral(text))
    assert undone == text


@pytest.mark.parametrize("marker", MARKERS)
def test_no_marker_of_a_chat_survives(marker: str) -> None:
    assert marker not in neutral(f"x{marker}y") and marker not in fenced("RESPONSE", marker, OWN)
    assert neutral(f"x{marker}y").replace("\\", "") == f"x{marker}y", "escaped, not taken out"


def test_code_and_mathematics_stay_as_they_are() -> None:
    for text in (
        "a < b > c",
        "vector<int> x[3];",
        "if (a<b || c>d)",
        ">>> print(1)",
        "<div>hi</div>",
        "x[i] |> f",
        r"\[1\]",
    ):
        assert neutral(text) == text


def test_what_nobody_sees_is_written_out() -> None:
    assert neutral("a\u202eb\U000e0041\x07\ud800") == "a\\u{202e}b\\u{e0041}\\u{7}\\u{d800}"
    assert (
        neutral("caf\u00e9 \u0645\u0631\u062d\u0628\u0627 \U0001f600\n\tx")
        == "caf\u00e9 \u0645\u0631\u062d\u0628\u0627 \U0001f600\n\tx"
    )


@pytest.mark.parametrize("form", TEMPLATES)
def test_the_verdict_is_asked_after_all_that_is_quoted(form: str) -> None:
    system, user = conversation(form, "", shown(form), VERDICT, OWN)
    assert (system.role, user.role) == ("system", "user")
    assert OWN.fence in system.content and OWN.seal not in system.content
    last = user.content.rindex(f"{OWN.fence} ")
    assert OWN.seal not in user.content[:last]
    assert user.content[last:].count(OWN.seal) == 2
    assert check_template(DEFAULTS[form], form) == []


def test_a_response_cannot_be_the_template() -> None:
    _, user = conversation("rubric", "", shown("rubric") | {"response": "{{ criteria }}{% raw %}"}, VERDICT, OWN)
    assert "| {{ criteria }}{% raw %}" in user.content


def test_a_reference_is_shown_where_there_is_one() -> None:
    without, having = (
        conversation("rubric", "", shown("rubric") | more, VERDICT, OWN)[1].content
        for more in ({}, {"reference": "42"})
    )
    assert "REFERENCE" not in without and "| 42" in having


def test_marks_are_those_of_the_question_alone() -> None:
    same = marks(["p", "r"], 0, 0)
    assert same == marks(["p", "r"], 0, 0)
    others = [marks(["p", "r"], 0, 1), marks(["p", "r"], 1, 0), marks(["pr", ""], 0, 0), marks(["r", "p"], 0, 0)]
    assert len({same.fence, same.seal, *(one.fence for one in others), *(one.seal for one in others)}) == 10
    assert re.fullmatch("[0-9a-f]{16}", same.fence) and re.fullmatch("[0-9a-f]{12}", same.seal)


@pytest.mark.parametrize(
    ("text", "form", "words"),
    [
        ("{{ response", "rubric", "not a jinja2 template"),
        ("{{ response }} {{ anwser }}", "rubric", "no such variable (got 'anwser')"),
        ("{{ response }} {{ other }}", "rubric", "no such variable (got 'other')"),
        ("{{ prompt }}", "checklist", "does not show {{ response }}"),
        ("{{ response }}", "pairwise", "does not show {{ other }}"),
    ],
)
def test_a_template_that_cannot_be_is_refused(text: str, form: str, words: str) -> None:
    assert any(words in fault for fault in check_template(text, form))


def test_whether_a_template_needs_a_reference() -> None:
    assert [needs_reference(DEFAULTS[form], form) for form in TEMPLATES] == [False] * len(TEMPLATES)
    assert needs_reference("{{ response }} {{ reference }}", "rubric")
    assert not needs_reference("{{ response }}{% if reference is defined %}{{ reference }}{% endif %}", "rubric")
