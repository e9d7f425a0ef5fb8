"""Steps as spans of tokens, and spans of characters as spans of tokens: against bytes that are walked by hand."""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.spans import in_tokens
from policies.config import TinyModel
from policies.model_folder import materialise
from policies.step_config import StepCut
from policies.step_spans import step_spans
from policies.tokens import Tokenizer
from policies.trajectory import Int32, ScoreEntry
from tests.fakes import trajectory
from tests.tokenizer_cases import byte_fallback, byte_level, bytes_of

TEXTS = (
    "12;3;#4",
    "a\n\nb\n\nc",
    "héllo 😀\n\n中文字\n\nend",
    "\n\n\n\nx\n\n\n\ny\n\n",
    "😀😀😀",
    "Step 1: a\nStep 2: b",
)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return byte_level(tmp_path_factory.mktemp("bytes"))


@pytest.fixture(scope="module")
def fallback(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return byte_fallback(tmp_path_factory.mktemp("fallback"))


def ids(values: Sequence[int]) -> Int32:
    return np.asarray(values, np.int32)


@cache
def by_bytes_alone(tokenizer: Tokenizer) -> dict[bytes, int]:
    return {bytes_of(tokenizer, one): one for one in range(tokenizer.vocab_size)}


def bytewise(tokenizer: Tokenizer, text: str) -> Int32:
    """The text with a token for each byte: every character that has several is cut."""
    by_byte = by_bytes_alone(tokenizer)
    return ids([by_byte[bytes([one])] for one in text.encode()])


def texts(tokenizer: Tokenizer, tokens: Int32, cut: StepCut) -> list[str]:
    return [tokenizer.decode(tokens[start:end]) for start, end in step_spans(tokenizer, tokens, cut)]


# ---------------------------------------------------------------- pieces


@given(st.lists(st.integers(0, 310), max_size=24))
@settings(deadline=None)
def test_pieces_of_any_bytes_join_to_the_text(ours: Tokenizer, tokens: list[int]) -> None:
    assert "".join(ours.pieces(tokens)) == ours.decode(tokens)


@given(st.lists(st.integers(0, 274), max_size=24))
@settings(max_examples=300, deadline=None)
def test_pieces_join_to_the_text_where_a_bad_byte_undoes_characters(fallback: Tokenizer, tokens: list[int]) -> None:
    assert "".join(fallback.pieces(tokens)) == fallback.decode(tokens)


@pytest.mark.parametrize("text", TEXTS)
def test_a_character_belongs_to_the_last_of_its_tokens(ours: Tokenizer, text: str) -> None:
    pieces = ours.pieces(bytewise(ours, text))
    walked = [one for character in text for one in [*[""] * (len(character.encode()) - 1), character]]
    assert pieces == walked


def test_special_tokens_complete_nothing(ours: Tokenizer) -> None:
    tokens = [1, *ours.encode("sky").tolist(), ours.eos_id, ours.eos_id]
    pieces = ours.pieces(tokens)
    assert "".join(pieces) == "sky" and pieces[0] == pieces[-1] == pieces[-2] == ""


# ---------------------------------------------------------------- spans of characters


def walked(tokenizer: Tokenizer, tokens: Int32, text: str, start: int, end: int) -> tuple[int, int]:
    """The tokens that hold any byte of the characters [start, end)."""
    low, high = len(text[:start].encode()), len(text[:end].encode())
    offsets = np.cumsum([0, *(len(bytes_of(tokenizer, int(one))) for one in tokens)])
    inside = [at for at, (a, b) in enumerate(pairwise(offsets)) if max(a, low) < min(b, high)]
    return inside[0], inside[-1] + 1


@given(st.sampled_from(TEXTS), st.data())
@settings(deadline=None)
def test_spans_of_characters_cover_their_bytes(ours: Tokenizer, text: str, data: st.DataObject) -> None:
    whole = data.draw(st.booleans())
    tokens = ours.encode(text) if whole else bytewise(ours, text)
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    one = trajectory("t", len(tokens), tokens=tokens, text=text)
    (moved,) = in_tokens(one, [ScoreEntry("step", 1.0, start=start, end=end)], ours)
    assert (moved.start, moved.end) == walked(ours, tokens, text, start, end)


@pytest.mark.parametrize("text", ["中\n文", "é中\nb", "a\n中文"])
def test_spans_of_characters_where_a_cut_character_reads_as_several(fallback: Tokenizer, text: str) -> None:
    tokens = ids([3 + byte for byte in text.encode()])
    at = text.index("\n") + 1
    first = len(text[:at].encode())
    one = trajectory("t", len(tokens), tokens=tokens, text=text)
    said = [ScoreEntry("step", 1.0, start=0, end=at), ScoreEntry("step", 1.0, start=at, end=len(text))]
    moved = in_tokens(one, said, fallback)
    assert [(entry.start, entry.end) for entry in moved] == [(0, first), (first, len(tokens))]


# ---------------------------------------------------------------- steps


def by_bytes(tokenizer: Tokenizer, tokens: Int32, separator: bytes) -> list[int]:
    """Where steps end by the bytes: after the token that completes a separator; blank steps are kept."""
    raw, ends = b"", []
    for one in tokens.tolist():
        raw += bytes_of(tokenizer, one)
        ends.append(len(raw))
    bounds, at = [], raw.find(separator)
    while at >= 0:
        bounds.append(next(place for place, end in enumerate(ends) if end >= at + len(separator)) + 1)
        at = raw.find(separator, at + len(separator))
    return sorted(set(bounds))


WORD_TOKENS = st.lists(st.integers(0, 310), min_size=1, max_size=30)


@given(WORD_TOKENS, st.sampled_from(["\n\n", "\n", " ", "e"]))
@settings(max_examples=300, deadline=None)
def test_steps_cover_all_tokens_and_end_where_bytes_say(ours: Tokenizer, tokens: list[int], separator: str) -> None:
    spans = step_spans(ours, ids(tokens), StepCut(separator=separator, max_steps=99))
    assert spans[0][0] == 0 and spans[-1][1] == len(tokens)
    assert all(left[1] == right[0] and left[0] < left[1] for left, right in pairwise(spans))
    ends = by_bytes(ours, ids(tokens), separator.encode())
    assert {end for _, end in spans[:-1]} <= set(ends), "a step ends with the token that completes its separator"
    for end in set(ends) - {end for _, end in spans}:
        step = next(span for span in spans if span[0] < end < span[1])
        told = [
            ours.decode(tokens[low:high]).replace(separator, "").strip()
            for low, high in pairwise((step[0], end, step[1]))
        ]
        assert "" in told, "only what says nothing is joined"


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("a\n\nb\n\nc", ["a\n\n", "b\n\n", "c"]),
        ("héllo 😀\n\n中文字\n\nend", ["héllo 😀\n\n", "中文字\n\n", "end"]),
        ("\n\n\n\nx\n\n\n\ny\n\n", ["\n\n\n\nx\n\n\n\n", "y\n\n"]),
        ("no separator at all", ["no separator at all"]),
        ("cut in the mid\n\ndle of wha", ["cut in the mid\n\n", "dle of wha"]),
        ("\n\n", ["\n\n"]),
    ],
)
def test_steps_of_a_text_however_it_is_tokenised(ours: Tokenizer, text: str, steps: list[str]) -> None:
    for tokens in (ours.encode(text), bytewise(ours, text)):
        assert texts(ours, tokens, StepCut(separator="\n\n")) == steps
        ended = ids([*tokens, ours.eos_id])
        assert texts(ours, ended, StepCut(separator="\n\n")) == steps
        assert step_spans(ours, ended, StepCut(separator="\n\n"))[-1][1] == len(ended), (
            "the end token is the last step's"
        )


def test_a_merge_across_the_separator_belongs_to_the_step_that_it_ends(fallback: Tokenizer) -> None:
    named = {fallback.codec.id_to_token(at): at for at in range(fallback.vocab_size)}
    tokens = ids([named[one] for one in ("a", ".\n\n", "b", "▁1.\n", "▁2", "</s>")])
    assert step_spans(fallback, tokens, StepCut(separator="\n\n")) == [(0, 2), (2, 6)]
    assert step_spans(fallback, tokens, StepCut(separator="\n")) == [(0, 2), (2, 4), (4, 6)]
    assert step_spans(fallback, tokens, StepCut(separator="1")) == [(0, 4), (4, 6)], "one token, two steps: the first's"
    assert step_spans(fallback, tokens, StepCut(separator=named["b"])) == [(0, 3), (3, 6)], "by a token's id"


def test_headings_sentences_and_lengths(ours: Tokenizer) -> None:
    headed = "Plan first.\nStep 1: see step 2\n## Step 2\nb\n**step 3** c"
    assert texts(ours, ours.encode(headed), StepCut(at="heading")) == [
        "Plan first.\n",
        "Step 1: see step 2\n",
        "## Step 2\nb\n",
        "**step 3** c",
    ]
    told = 'It is 3.5 m, e.g. here. So what?! "Yes." Then\n1. First is a. 2\n中文。字'
    assert texts(ours, bytewise(ours, told), StepCut(at="sentence")) == [
        "It is 3.5 m, e.g. here. ",
        "So what?! ",
        '"Yes." ',
        "Then\n",
        "1. First is a. 2\n",
        "中文。",
        "字",
    ]
    long = bytewise(ours, "abcdefgh😀ij")
    assert texts(ours, long, StepCut(at="length", size=4)) == ["abcd", "efgh", "😀", "ij"]
    assert texts(ours, long, StepCut(at="length", size=5)) == ["abcde", "fgh😀", "ij"], "no character is cut"
    assert texts(ours, ours.encode("a\nbb\nc"), StepCut(size=2)) == ["a\n", "bb\n", "c"], (
        "blanks belong to the step before"
    )
    with pytest.raises(ValueError, match="size is 0"):
        StepCut(at="length")


def test_neighbours_are_joined_where_there_are_too_many(ours: Tokenizer) -> None:
    text = "".join(f"{at}\n" for at in range(7))
    assert texts(ours, ours.encode(text), StepCut(max_steps=3)) == ["0\n1\n", "2\n3\n", "4\n5\n6\n"]
    assert texts(ours, ours.encode(text), StepCut(max_steps=1)) == [text]


def test_an_empty_response_has_no_steps_and_a_character_model_has_them(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(materialise(TinyModel(preset="arithmetic-small"), tmp_path))
    assert step_spans(tokenizer, ids([]), StepCut()) == []
    tokens = tokenizer.response("12;3;#4")
    assert step_spans(tokenizer, tokens, StepCut(separator=";")) == [(0, 3), (3, 5), (5, 8)]
