"""Search over a corpus: ranked, shown in pieces, and bad rows told by their line."""

import json
import random
from pathlib import Path

import pytest

from verifiers.environments.config import Search
from verifiers.environments.search import answer, corpus, snippet


def corpus_of(folder: Path, rows: list[dict[str, str]]) -> str:
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_search_ranks_and_shows_the_piece_with_the_words(tmp_path: Path) -> None:
    rows = [{"text": f"Passage {at} is about nothing. " * 20} for at in range(30)]
    rows[7] = {"title": "Paris", "text": "filler " * 20 + "Paris is the capital of France. " + "filler " * 20}
    rows[8] = {"text": "capital letters are large"}
    own = Search(path=corpus_of(tmp_path, rows), top=2, characters=60)
    found = answer(own, "what is the CAPITAL of France?")
    first, second = found.split("\n")
    assert first.startswith("(1) Paris: ... ") and "capital of France" in first and first.endswith(" ...")
    assert second.startswith("(2) ")
    assert answer(own, "zebra") == answer(own, "") == answer(own, "☃ !?") == "nothing found"
    assert len(answer(own, "passage " * 100_000)) < 500


def test_search_reads_plain_text_and_names_bad_rows(tmp_path: Path) -> None:
    plain = tmp_path / "notes.txt"
    plain.write_text("one cat\n\n \n two dogs \n of mine\n", encoding="utf-8")
    assert answer(Search(path=str(plain)), "dogs") == "(1) two dogs of mine"
    with pytest.raises(ValueError, match="no such file"):
        corpus(str(tmp_path / "absent.txt"))
    for line, why in (("{", "no JSON"), ('{"title": "x"}', "has no text"), ("3", "has no text")):
        bad = tmp_path / f"bad{len(line)}{why[:3].strip()}.jsonl"
        bad.write_text('{"text": "fine"}\n' + line + "\n", encoding="utf-8")
        with pytest.raises(ValueError, match=f":2: {why}"):
            corpus(str(bad))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="no passage"):
        corpus(str(tmp_path / "empty.jsonl"))


def test_search_is_right_on_a_corpus_counted_by_hand(tmp_path: Path) -> None:
    """A query of one word finds exactly the passages that hold it, those with more of it a word first."""
    draws = random.Random(1)
    words = [f"w{at}" for at in range(12)]
    rows = [{"text": " ".join(draws.choices(words, k=8))} for _ in range(40)]
    opened = corpus(corpus_of(tmp_path, rows))
    for word in words:
        found = [one.text for one in opened.find(word, 40)]
        counts = [text.split().count(word) for text in found]
        assert sorted(found) == sorted(row["text"] for row in rows if word in row["text"].split())
        assert counts == sorted(counts, reverse=True)


def test_a_snippet_is_never_longer_than_asked() -> None:
    text = "alpha beta gamma delta " * 50
    for characters in (20, 33, 100):
        piece = snippet(text, {"gamma", "delta"}, characters)
        assert len(piece.replace("... ", "").replace(" ...", "")) <= characters
        assert "gamma delta" in piece
