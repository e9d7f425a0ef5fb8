"""Preference files: every form of TRL, ranked lists, what trajectories say, and what is refused with which words."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from policies.bad_input import BadInput
from policies.tokens import Tokenizer
from policies.trajectory import FinishReason, Origin, Producer
from teachers.config import Preferences
from teachers.draws import draw
from teachers.given import Reading
from teachers.preferences import PreferenceSet, load
from tests.chat_folder import chat_folder

USER = {"role": "user", "content": "What color is the sky?"}
BLUE = {"role": "assistant", "content": "It is blue."}
GREEN = {"role": "assistant", "content": "It is green."}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(chat_folder(tmp_path_factory.mktemp("chat")))


def loaded(folder: Path, tokenizer: Tokenizer, *records: Any, context: int = 256, **options: Any) -> PreferenceSet:
    (folder / "pairs.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return load(Preferences(kind="jsonl", path="pairs.jsonl", **options), Reading(tokenizer, folder, context))


def faults(folder: Path, tokenizer: Tokenizer, *records: Any, **options: Any) -> list[str]:
    with pytest.raises(BadInput) as caught:
        loaded(folder, tokenizer, *records, **options)
    return [line.replace(f"{folder}/", "") for line in caught.value.lines]


def tokens(one: PreferenceSet) -> list[tuple[list[int], list[int]]]:
    return [(t.train_context.tolist(), t.tokens.tolist()) for t in one.sets[0]]


def test_a_pair_says_who_is_chosen_and_where_it_came_from(tmp_path: Path, tokenizer: Tokenizer) -> None:
    found = loaded(tmp_path, tokenizer, {"prompt": "Sky?", "chosen": "blue", "rejected": "green", "id": "row"})
    chosen, rejected = found.sets[0]
    assert (len(found), found.name) == (1, "pairs")
    for one, text, label in ((chosen, "blue", 1.0), (rejected, "green", 0.0)):
        assert one.preference is not None
        assert (one.text, one.preference.label, one.preference.set_id) == (text, label, "pairs-0")
        assert math.isnan(one.preference.margin)
        assert (one.producer, one.model, one.version) == (Producer.DEMONSTRATION, "pairs", -1)
        assert one.finish_reason == FinishReason.GIVEN and one.prompt_id == "row"
        assert set(one.origin) == {Origin.DEMONSTRATION} and one.train_mask.all()
        assert np.isnan(one.behavior_logps).all()
        assert one.train_context.tolist() == tokenizer.prompt("Sky?").tolist()
        assert one.tokens.tolist() == tokenizer.response(text).tolist()
    assert chosen.id != rejected.id


def test_every_conversational_form_gives_the_same_tokens(tmp_path: Path, tokenizer: Tokenizer) -> None:
    explicit = {"prompt": [USER], "chosen": [BLUE], "rejected": [GREEN]}
    expected = tokens(loaded(tmp_path, tokenizer, explicit))
    context = tokenizer.prompt(USER["content"]).tolist()
    assert expected == [(context, tokenizer.response(one["content"]).tolist()) for one in (BLUE, GREEN)]
    for record in (
        {"chosen": [USER, BLUE], "rejected": [USER, GREEN]},
        {"prompt": None, "chosen": [USER, BLUE], "rejected": [USER, GREEN]},
        {"prompt": USER["content"], "chosen": [USER, BLUE], "rejected": [USER, GREEN]},
        {"prompt": USER["content"], "chosen": [BLUE], "rejected": [GREEN]},
    ):
        assert tokens(loaded(tmp_path, tokenizer, record)) == expected


def test_the_prompt_of_two_texts_is_what_they_share(tmp_path: Path, tokenizer: Tokenizer) -> None:
    found = loaded(tmp_path, tokenizer, {"chosen": "The sky is blue.", "rejected": "The sky is green."}).sets[0]
    assert [one.text for one in found] == [" blue.", " green."]
    assert found[0].train_context.tolist() == tokenizer.prompt("The sky is").tolist()


def test_margins_scores_and_log_probabilities_are_kept(tmp_path: Path, tokenizer: Tokenizer) -> None:
    size = len(tokenizer.response("blue"))
    pair = {"prompt": "Sky?", "chosen": "blue", "rejected": "green"}
    found = loaded(
        tmp_path,
        tokenizer,
        {**pair, "margin": 1.5, "chosen_logps": [*([-0.5] * (size - 1)), None]},
        {**pair, "score_chosen": 8, "score_rejected": 5.5},
    )
    (first, second), (third, fourth) = found.sets
    assert first.preference is not None and first.preference.margin == 1.5
    assert first.behavior_logps[:-1].tolist() == [-0.5] * (size - 1) and math.isnan(first.behavior_logps[-1])
    assert np.isnan(second.behavior_logps).all()
    assert third.preference is not None and third.preference.margin == 2.5
    assert [(s.name, s.value) for one in (third, fourth) for s in one.scores] == [("score", 8.0), ("score", 5.5)]


def test_columns_go_by_other_names(tmp_path: Path, tokenizer: Tokenizer) -> None:
    record = {"question": "Sky?", "good": "blue", "bad": "green", "gap": 2}
    names = {"prompt": "question", "chosen": "good", "rejected": "bad", "margin": "gap"}
    found = loaded(tmp_path, tokenizer, record, **names).sets[0]
    assert [one.text for one in found] == ["blue", "green"]
    assert found[0].preference is not None and found[0].preference.margin == 2
    (line,) = faults(tmp_path, tokenizer, {"prompt": "a", "chosn": "b", "rejected": "c"})
    assert "pairs.jsonl:1: no column 'chosen' (got prompt, chosn, rejected); did you mean 'chosn'?" in line


@pytest.mark.parametrize(("column", "values"), [("scores", [0.1, 0.9, 0.4]), ("ranks", [3, 1, 2])])
def test_of_a_ranked_list_the_best_is_chosen(
    tmp_path: Path, tokenizer: Tokenizer, column: str, values: list[float]
) -> None:
    record = {"prompt": "Sky?", "completions": ["red", "blue", "green"], column: values}
    found = loaded(tmp_path, tokenizer, record).sets[0]
    assert [one.text for one in found] == ["blue", "green", "red"]
    assert [one.preference.label for one in found if one.preference] == [1.0, 0.0, 0.0]
    assert len({one.preference.set_id for one in found if one.preference}) == 1
    worth = [one.scores[0].value for one in found]
    assert worth == sorted(worth, reverse=True)


def test_parquet_gives_what_json_lines_give(tmp_path: Path, tokenizer: Tokenizer) -> None:
    records = [{"prompt": [USER], "chosen": [BLUE], "rejected": [GREEN], "margin": float(n)} for n in range(5)]
    (tmp_path / "many").mkdir()
    for shard in range(2):
        pq.write_table(pa.Table.from_pylist(records[shard * 3 : shard * 3 + 3]), tmp_path / f"many/{shard}.parquet")
    lines = loaded(tmp_path, tokenizer, *records)
    table = load(Preferences(kind="parquet", path="many"), Reading(tokenizer, tmp_path, 256))
    for ours, theirs in zip(lines.sets, table.sets, strict=True):
        assert [one.tokens.tolist() for one in ours] == [one.tokens.tolist() for one in theirs]
        assert [one.preference.margin for one in ours if one.preference] == [
            one.preference.margin for one in theirs if one.preference
        ]


def test_a_steps_sets_are_drawn_as_everything_else_is(tmp_path: Path, tokenizer: Tokenizer) -> None:
    records = [{"prompt": f"{n}", "chosen": "yes", "rejected": "no"} for n in range(11)]
    found = loaded(tmp_path, tokenizer, *records)
    for step in range(4):
        ids = [one[0].prompt_id for one in found.at_step(step, 3, seed=5)]
        assert ids == [f"pairs-{index}" for index in draw(11, step, 3, 5)]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen, rejected: are the same (got 'b'); take the row out"),
        ({"prompt": "a", "chosen": "", "rejected": "b"}, "chosen: not a text (got '')"),
        ({"prompt": "a", "chosen": None, "rejected": "b"}, "chosen: not a text (got 'None')"),
        ({"chosen": "x", "rejected": "y"}, "begin with nothing in common that could be the prompt; add a prompt"),
        ({"chosen": "x", "rejected": [GREEN]}, "one is a text and the other a conversation"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "margin": "x"}, "margin: not a number (got 'x')"),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c", "chosen_logps": [0.0]},
            "chosen_logps: want a number for each",
        ),
        ({"prompt": "a", "chosen": "b" * 400, "rejected": "c"}, "chosen: response of "),
        ({"prompt": "a", "completions": ["b"], "scores": [1]}, "completions: not a list of two or more"),
        ({"prompt": "a", "completions": ["b", "c"], "scores": [1, 1]}, "scores: all alike"),
        ({"prompt": "a", "completions": ["b", "c"], "ranks": [1, None]}, "ranks: holds null"),
        ({"prompt": "a", "completions": ["b", "c"], "ranks": [1, 2, 3]}, "ranks: 3 for 2 completions"),
        ({"prompt": "a", "completions": ["b", 5], "ranks": [1, 2]}, "completions[1]: not a text (got '5')"),
    ],
)
def test_a_row_that_compares_nothing_says_why(
    tmp_path: Path, tokenizer: Tokenizer, record: dict[str, Any], reason: str
) -> None:
    good = {"prompt": "a", "chosen": "b", "rejected": "c"}
    (line,) = faults(tmp_path, tokenizer, good, record)
    assert line.startswith("pairs.jsonl:2: ") and reason in line
    found = loaded(tmp_path, tokenizer, good, record, on_bad_row="skip")
    assert found.report is not None and len(found) == 1
    assert (found.report.read, found.report.kept, found.report.lost) == (2, 1, 1)
    ((place, told),) = found.report.bad
    assert place.endswith("pairs.jsonl:2") and reason in told
