"""Label files: unary and step labels, the spans of steps, and what is refused with which words."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.bad_input import BadInput
from policies.config import TinyModel
from policies.model_folder import CHARACTERS, character_tokenizer, materialise
from policies.tokens import Tokenizer
from teachers.config import Labels
from teachers.given import Reading
from teachers.labels import LabelSet, load, tokens_of_steps
from tests.chat_folder import chat_folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(chat_folder(tmp_path_factory.mktemp("chat")))


def loaded(folder: Path, tokenizer: Tokenizer, *records: Any, **options: Any) -> LabelSet:
    (folder / "judged.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return load(Labels(kind="jsonl", path="judged.jsonl", **options), Reading(tokenizer, folder, 256))


def faults(folder: Path, tokenizer: Tokenizer, *records: Any, **options: Any) -> list[str]:
    with pytest.raises(BadInput) as caught:
        loaded(folder, tokenizer, *records, **options)
    return list(caught.value.lines)


def test_unary_labels_stand_in_no_set(tmp_path: Path, tokenizer: Tokenizer) -> None:
    talk = {"prompt": [{"role": "user", "content": "Sky?"}], "completion": [{"role": "assistant", "content": "blue"}]}
    found = loaded(
        tmp_path,
        tokenizer,
        {"prompt": "Sky?", "completion": "blue", "label": True},
        {"prompt": "Sky?", "completion": "green", "label": 0},
        {**talk, "label": 1.0},
    )
    assert [(one.text, one.preference.label, one.preference.set_id) for one in found.flat if one.preference] == [
        ("blue", 1.0, ""),
        ("green", 0.0, ""),
        ("blue", 1.0, ""),
    ]
    assert found.flat[0].tokens.tolist() == found.flat[2].tokens.tolist()
    assert len({one.id for one in found.flat}) == len(found) == 3
    assert [one.id for one in found.at_step(0, 3, seed=1)] == [one.id for one in found.at_step(0, 3, seed=1)]


def test_each_step_is_a_span_whose_last_token_is_the_separators(tmp_path: Path, tokenizer: Tokenizer) -> None:
    steps = ["2+2= 4", "so the sun is warm", "#4"]
    record = {"prompt": "what is 2+2=", "completions": steps, "labels": [True, False, None]}
    one = loaded(tmp_path, tokenizer, record).flat[0]
    assert [(s.name, s.status) for s in one.scores] == [("step", "ok"), ("step", "ok"), ("step", "unscored")]
    assert [s.value for s in one.scores][:2] == [1.0, 0.0] and math.isnan(one.scores[2].value)
    # TRL's rule for stepwise supervision, written out: each step and its separator tokenised alone, then chained
    expected = [id for step in steps for id in (*tokenizer.encode(step).tolist(), *tokenizer.encode("\n").tolist())]
    assert one.tokens.tolist() == expected
    assert one.train_context.tolist() == tokenizer.prompt("what is 2+2=").tolist()
    assert (one.scores[0].start, one.scores[-1].end) == (0, len(expected))
    for score, step in zip(one.scores, steps, strict=True):
        assert tokenizer.decode(one.tokens[score.start : score.end]) == f"{step}\n"
        assert score.end is not None and tokenizer.decode(one.tokens[score.end - 1 : score.end]).endswith("\n")
    assert one.preference is None


@given(
    st.lists(st.text(CHARACTERS, min_size=1, max_size=12), min_size=1, max_size=6), st.sampled_from(["\n", "", " # "])
)
def test_spans_tile_the_response_whatever_the_steps(tmp_path_factory: Any, steps: list[str], separator: str) -> None:
    folder = materialise(TinyModel(), tmp_path_factory.getbasetemp() / "tiny-labels")
    tokens, ends = tokens_of_steps(Tokenizer.load(folder), steps, separator)
    assert len(ends) == len(steps) and ends[-1] == len(tokens)
    starts = (0, *ends[:-1])
    parts = [character_tokenizer().decode(tokens[a:b].tolist()) for a, b in zip(starts, ends, strict=True)]
    assert parts == [f"{step}{separator}" for step in steps]


def test_columns_and_the_separator_go_by_what_the_file_says(tmp_path: Path, tokenizer: Tokenizer) -> None:
    record = {"problem": "2+2=", "steps": ["4", "#4"], "ratings": [0.25, -1]}
    names = {"prompt": "problem", "completions": "steps", "labels": "ratings", "separator": "\n\n"}
    one = loaded(tmp_path, tokenizer, record, **names).flat[0]
    assert one.text == "4\n\n#4\n\n" and [s.value for s in one.scores] == [0.25, -1.0]
    (line,) = faults(tmp_path, tokenizer, {"prompt": "a", "completion": "b", "lable": True})
    assert "no column 'label' (got prompt, completion, lable); did you mean 'lable'?" in line


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": "a", "completion": "b", "label": None}, "label: neither true nor false (got 'None')"),
        ({"prompt": "a", "completion": "b", "label": 0.5}, "label: neither true nor false (got '0.5')"),
        ({"prompt": "a", "completion": "b", "label": "yes"}, "label: neither true nor false (got 'yes')"),
        ({"prompt": "a", "completion": 3, "label": True}, "completion: not a text (got '3')"),
        ({"prompt": "a", "completions": [], "labels": []}, "completions: not a list (got '[]')"),
        ({"prompt": "a", "completions": ["b"], "labels": [True, True]}, "labels: 2 for 1 completions"),
        ({"prompt": "a", "completions": ["b", ""], "labels": [True, True]}, "completions[1]: not a text"),
        ({"prompt": "a", "completions": ["b"], "labels": ["good"]}, "labels[0]: no label (got 'good')"),
        ({"prompt": "a", "completions": ["b"] * 300, "labels": [1] * 300}, "response of 600 tokens, but only "),
    ],
)
def test_a_row_that_judges_nothing_says_why(
    tmp_path: Path, tokenizer: Tokenizer, record: dict[str, Any], reason: str
) -> None:
    good = {"prompt": "a", "completion": "b", "label": True}
    (line,) = faults(tmp_path, tokenizer, good, record)
    assert "judged.jsonl:2: " in line and reason in line
    found = loaded(tmp_path, tokenizer, good, record, on_bad_row="skip")
    assert found.report is not None and (found.report.read, found.report.kept) == (2, 1)
