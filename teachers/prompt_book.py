"""`PromptBook`: a run's prompts by number, by id and by text, whether they are in memory or still in their files.

Of a prompt that stays in its file, 52 bytes are in memory: 32 for where its row lies and 20 for the hashes of its text;
12 more where rows bear ids of their own. The last prompts drawn stay made (`streams.RECORDS`).
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, overload

import numpy as np

from policies.prompt import Prompt
from teachers.conversations import Text
from teachers.lookup import Int64, Lookup, digest
from teachers.streams import Stream

_DIGITS = 18
"""Longest row number that an id is read as."""


class Names(Protocol):
    """Which number an id is, and the other way round."""

    def number(self, name: str) -> int | None:
        """The prompt's number, or None where there is no such id."""
        ...

    def name(self, number: int) -> str:
        """The prompt's id."""
        ...


@dataclass(frozen=True, slots=True)
class Numbered:
    """Ids that are made of the row's number: SPLIT-7 is row 7. Nothing is kept for them."""

    split: str
    rows: "array[int]"
    """Row number of each prompt, rising."""

    def number(self, name: str) -> int | None:
        """By what the id says."""
        split, _, digits = name.rpartition("-")
        if split != self.split or not (digits.isascii() and digits.isdecimal()) or len(digits) > _DIGITS:
            return None
        at = bisect_left(self.rows, int(digits))
        return at if at < len(self.rows) and self.name(at) == name else None

    def name(self, number: int) -> str:
        """As the row's number makes it."""
        return f"{self.split}-{self.rows[number]}"


@dataclass(frozen=True, slots=True, eq=False)
class Named:
    """Ids that stand in the rows: found by their hash, and compared with the prompt that is found."""

    lookup: Lookup
    records: Sequence[Prompt] | Stream[Prompt]
    read: Callable[[int], str]
    """A prompt's id, read without the cost of its tokens."""

    def number(self, name: str) -> int | None:
        """By hash; of several prompts with the id, the last."""
        return next((one for one in self.lookup.find(digest(name)) if self.records[one].id == name), None)

    def name(self, number: int) -> str:
        """As it stands there."""
        return self.read(number)


class PromptBook(Sequence[Prompt]):
    """Prompts in a fixed order."""

    def __init__(self, records: Sequence[Prompt] | Stream[Prompt], names: Names, texts: Lookup) -> None:
        """`texts` has the two columns of `marks`."""
        self._records, self._names, self.texts = records, names, texts

    @classmethod
    def of(cls, prompts: Sequence[Prompt]) -> "PromptBook":
        """A book of prompts that are in memory; a book stays as it is."""
        if isinstance(prompts, PromptBook):
            return prompts
        whole = tuple(prompts)
        said = np.array([marks(said_by(one)) for one in whole], np.int64).reshape(-1, 2)
        ids = np.array([digest(one.id) for one in whole], np.int64)
        names = Named(Lookup([ids]), whole, lambda number: whole[number].id)
        return cls(whole, names, Lookup([said[:, 0], said[:, 1]]))

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Prompt: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Prompt]: ...

    def __getitem__(self, index: int | slice) -> Prompt | Sequence[Prompt]:
        if isinstance(index, slice):
            return tuple(self._records[number] for number in range(*index.indices(len(self))))
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(index)
        return self._records[number]

    def __iter__(self) -> Iterator[Prompt]:
        return iter(self._records)

    @property
    def by_id(self) -> Mapping[str, Prompt]:
        """The prompts by their ids: a view."""
        return _ById(self)

    def number(self, name: str) -> int | None:
        """Which number the id is, or None where there is no such prompt."""
        return self._names.number(name)

    def name(self, number: int) -> str:
        """The id of a prompt, without making the prompt."""
        return self._names.name(number)

    def saying(self, text: Text) -> int | None:
        """The last prompt that says exactly this, by two hashes."""
        return self.texts.last(*marks(text))


class _ById(Mapping[str, Prompt]):
    """A book's prompts by id."""

    def __init__(self, book: PromptBook) -> None:
        self._book = book

    def __getitem__(self, name: str) -> Prompt:
        number = self._book.number(name)
        if number is None:
            raise KeyError(name)
        return self._book[number]

    def __iter__(self) -> Iterator[str]:
        return (self._book.name(number) for number in range(len(self._book)))

    def __len__(self) -> int:
        return len(self._book)


def streamed(stream: Stream[Prompt], tags: Sequence[Int64], names: Numbered | Callable[[int], str]) -> PromptBook:
    """A book of prompts in their files; `tags` are their hashes: of the id, and the two `marks` of what they say."""
    ids, *said = tags
    if not isinstance(names, Numbered):
        return PromptBook(stream, Named(Lookup([ids]), stream, names), Lookup(said))
    return PromptBook(stream, names, Lookup(said))


def said_by(prompt: Prompt) -> Text:
    """What a prompt says: its conversation, or its text."""
    return prompt.messages or prompt.text


def alike(text: Text) -> Text:
    """What tells a prompt from others: its conversation, or its text without the blanks around."""
    return text.strip() if isinstance(text, str) else text


def marks(text: Text) -> tuple[int, int]:
    """Two hashes of 8 bytes: of what tells the prompt from others, and of every character."""
    return digest(alike(text)), digest(text)
