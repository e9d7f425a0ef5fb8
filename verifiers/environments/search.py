"""Search over a corpus on this machine: BM25 over its passages, indexed once, the best of them shown as snippets."""

import gzip
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from verifiers.environments.config import Search

LONGEST = 1000
"""Characters of a query that are read."""

WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Passage:
    """What is found and shown."""

    text: str
    title: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """Passages and their index."""

    passages: Sequence[Passage]
    index: Any

    def find(self, query: str, top: int) -> list[Passage]:
        """The passages that share a word with the query, best first, `top` at most."""
        words = _words(query[:LONGEST])
        known = [word for word in words if word in self.index.vocab_dict]
        if not known:
            return []
        wanted = min(top, len(self.passages))
        found, scores = self.index.retrieve([known], k=wanted, show_progress=False, n_threads=0)
        return [self.passages[int(at)] for at, score in zip(found[0], scores[0], strict=True) if score > 0]


@lru_cache(maxsize=8)
def corpus(path: str) -> Corpus:
    """Read and indexed once a process. ValueError says what is wrong with the file."""
    import bm25s

    passages = list(_passages(Path(path)))
    if not passages:
        raise ValueError(f"{path}: holds no passage; give JSON lines with `text`, or a text with blank lines between")
    index = bm25s.BM25()
    index.index([_words(f"{one.title} {one.text}") or [""] for one in passages], show_progress=False)
    return Corpus(passages, index)


def _words(text: str) -> list[str]:
    """Lower case, every word: what a model asks for may be one that lists of stop words leave out."""
    return WORD.findall(text.casefold())


def _passages(path: Path) -> Iterator[Passage]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; paths are relative to the pipeline file")
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        text = file.read()
    if ".jsonl" not in path.suffixes:
        yield from (Passage(one.strip()) for one in re.split(r"\n\s*\n", text) if one.strip())
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield _row(path, number, line)


def _row(path: Path, number: int, line: str) -> Passage:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}:{number}: no JSON ({error}); mend the line") from error
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{path}:{number}: has no text; each line is {{text, title}}")
    return Passage(text.strip(), str(row.get("title") or ""))


def answer(own: Search, query: str) -> str:
    """What the model reads: the best passages, one under the other, each with its number."""
    found = corpus(own.path).find(query, own.top)
    if not found:
        return "nothing found"
    wanted = set(_words(query))
    return "\n".join(f"({at}) {_shown(one, wanted, own.characters)}" for at, one in enumerate(found, 1))


def _shown(passage: Passage, wanted: set[str], characters: int) -> str:
    title = f"{passage.title}: " if passage.title else ""
    return title + snippet(" ".join(passage.text.split()), wanted, characters)


def snippet(text: str, wanted: set[str], characters: int) -> str:
    """The first piece of the text, of so many characters, that holds the most different words of the query."""
    if len(text) <= characters:
        return text
    places = [(match.start(), word) for match in WORD.finditer(text) if (word := match.group().casefold()) in wanted]

    def holds(start: int) -> int:
        return len({word for at, word in places if start <= at and at + len(word) <= start + characters})

    start = max((at for at, _ in places), key=holds, default=0)
    start = min(start, len(text) - characters)
    piece = text[start : start + characters]
    return f"{'... ' if start else ''}{piece.strip()}{' ...' if start + characters < len(text) else ''}"
