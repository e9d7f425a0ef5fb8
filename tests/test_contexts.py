"""Contexts: what a template may read, what is missing rather than empty, and where a hint is cut."""

import json

import numpy as np
import pytest
from fakes import prompt

from policies.config import TinyModel
from policies.model_folder import materialise
from policies.tokens import Tokenizer
from teachers.contexts import (
    VARIABLES,
    Facts,
    Unavailable,
    answer,
    check_template,
    context,
    criteria,
    hint,
    hint_tokens,
    portion,
    reads,
    render,
)

FULL = Facts(
    prompt="P", answer="A", demonstration="D", hint="H", parent="Y", reason="R", sibling="S", attributes={"a": 2.0}
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(materialise(TinyModel(preset="arithmetic-small"), tmp_path_factory.mktemp("model")))


def test_a_template_reads_every_variable_that_the_schema_names() -> None:
    text = " ".join(f"{{{{ {name} }}}}" for name in VARIABLES)
    assert render(text, FULL) == "P A D H Y R S {'a': 2.0} "
    assert check_template(text) == []
    assert reads(text) == set(VARIABLES)


def test_the_empty_template_is_the_prompt_itself(tokenizer: Tokenizer) -> None:
    one = prompt("p", text="1+1=")
    assert render("", FULL) == "P"
    assert context("", one, FULL, tokenizer) is one.tokens


def test_what_a_prompt_lacks_is_missing_not_empty() -> None:
    bare = Facts(prompt="P")
    for name in ("answer", "demonstration", "parent", "reason", "sibling", "attributes"):
        lost = render(f"{{{{ {name} }}}}", bare)
        assert isinstance(lost, Unavailable) and name in lost.reason
        assert render(f"{{% if {name} is defined %}}x{{% endif %}}ok", bare) == "ok"
    assert render("{{ hint }}{{ criteria }}|", bare) == "|", "no hint asked for is an empty hint"
    assert isinstance(render("{{ attributes.b }}", FULL), Unavailable)


def test_a_template_is_sandboxed() -> None:
    assert isinstance(render("{{ prompt.__class__.__mro__ }}", FULL), Unavailable)


def test_a_bad_template_is_told_with_the_nearest_name() -> None:
    (fault,) = check_template("{{ demonstratoin }}")
    assert "demonstratoin" in fault and "demonstration" in fault
    assert "not a jinja2 template" in check_template("{{ prompt ")[0]


def test_a_text_without_tokens_is_unavailable(tokenizer: Tokenizer) -> None:
    made = context("{{ prompt }}\u2603", prompt("p"), Facts(prompt="1"), tokenizer)
    assert isinstance(made, Unavailable) and "\u2603" in made.reason
    got = context("{{ prompt }}2", prompt("p"), Facts(prompt="1"), tokenizer)
    assert isinstance(got, np.ndarray)
    np.testing.assert_array_equal(got, tokenizer.prompt("12"))


@pytest.mark.parametrize(
    ("reference", "told"), [('"7"', "7"), ("7", "7"), ('{"answer": "x", "q": 1}', "x"), ('{"cases": []}', None)]
)
def test_the_answer_is_read_from_the_reference(reference: str, told: str | None) -> None:
    assert answer(reference) == told


def test_a_share_of_the_rubric_is_shown() -> None:
    rubric = json.dumps([{"criterion": "short"}, {"criterion": "right", "points": 3}, "polite"])
    assert criteria(rubric, 0.0) == ""
    assert criteria(rubric, 1 / 3) == "- short"
    assert criteria(rubric, 1.0) == "- short\n- right\n- polite"
    assert criteria('"7"', 1.0) == ""


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("one\ntwo\nthree\n", "one\n"),
        ("12=3;45=9;#1", "12=3;"),
        ("First. Then. Last.", "First. "),
        ("a b c", "a "),
        ("abc", "a"),
    ],
)
def test_a_hint_is_cut_at_a_boundary(text: str, first: str) -> None:
    assert hint(text, 1 / 3) == first
    assert hint(text, 0) == "" and hint(text, 1) == text
    assert text.startswith(hint(text, 0.99)) and hint(text, 0.99) != text


def test_a_part_of_a_hint_is_never_all_of_it() -> None:
    for size in range(1, 7):
        counts = [portion(size, share) for share in np.linspace(0, 1, 21)]
        assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == size
        assert all(count < size for count in counts[:-1])


def test_hint_tokens_leave_out_the_end_token() -> None:
    tokens = np.array([5, 6, 7, 8, 1], np.int32)
    assert hint_tokens(tokens, 0.5, [1]).tolist() == [5, 6]
    assert hint_tokens(tokens, 1.0, [1]).tolist() == [5, 6, 7, 8]
    assert hint_tokens(tokens[:0], 1.0, [1]).tolist() == []
