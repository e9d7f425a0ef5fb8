"""Prompts from their source: generated, or checked and read from files when drawn; refused with every fault at once.

Generated sources (arithmetic, reasoning-gym) are split by a hash of the text, one part in eight held out, so that a
source at a key that is measured on (`MEASURED`) never shares a problem with one that is trained on, whatever the seeds
and counts.
"""

import json
import random
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from orchestrator.config import ArithmeticPrompts, JsonlPrompts, ParquetPrompts, PromptSource, TaskPrompts
from policies.bad_input import MOST_LINES, BadInput, near, refuse, shown
from policies.prompt import Message, Prompt
from policies.tokens import Tokenizer
from teachers.conversations import Text, last_said, one_text, plain, prompt_tokens, read_text
from teachers.draws import draw
from teachers.lookup import digest
from teachers.prompt_book import Numbered, PromptBook, alike, marks, said_by, streamed
from teachers.rows import Bad, Row, Table
from teachers.streams import Report, stream

HELD_OUT = 8
"""One generated problem in so many belongs to the sets that are measured on."""

MEASURED = ("probe", "shifted", "guard")
"""Last words of the keys of such sets."""

MISSES = 20_000
"""Candidates in a row that bring nothing new before a source counts as exhausted."""

LARGEST = 64
"""A task source may be read up to so many times the prompts asked for."""


@dataclass(frozen=True, slots=True)
class _Task:
    """A prompt before it is tokenised; `place` names it in an error."""

    place: str
    id: str
    text: str
    reference: str
    family: str = ""
    messages: tuple[Message, ...] = ()

    @property
    def asked(self) -> Text:
        """What the tokenizer is given."""
        return self.messages or self.text


@dataclass(frozen=True, slots=True)
class Loaded:
    """A source's prompts, and what became of its rows where it is a file."""

    prompts: PromptBook
    report: Report | None = None


def load(
    source: PromptSource, tokenizer: Tokenizer, *, base: Path, context: int, max_tokens: int, key: str
) -> PromptBook:
    """Every prompt of the source, in a fixed order; those of a file are read and tokenised when they are drawn.

    `base` is the pipeline file's folder, `key` the place in that file (prompts.train, prompts.probe), `context` the
    longest prompt plus response and `max_tokens` the response's share of it. Raises `BadInput` with all faults.
    """
    return read(source, tokenizer, base=base, context=context, max_tokens=max_tokens, key=key).prompts


def read(source: PromptSource, tokenizer: Tokenizer, *, base: Path, context: int, max_tokens: int, key: str) -> Loaded:
    """As `load`, with the count of a file's bad rows."""
    frame = _Frame(tokenizer, context, max_tokens)
    match source:
        case ArithmeticPrompts():
            tasks = _generated(_arithmetic(source), source.count, key)
        case TaskPrompts():
            tasks = _generated(_reasoning_gym(source, key), source.count, key)
        case JsonlPrompts() | ParquetPrompts():
            return _of_file(source, base, key, frame)
        case _:
            assert_never(source)
    made = [frame.prompt(task) for task in tasks]
    refuse([str(one) for one in made if isinstance(one, Bad)])
    return Loaded(PromptBook.of([one for one in made if isinstance(one, Prompt)]))


@dataclass(frozen=True, slots=True)
class _Frame:
    """What a task becomes a prompt with."""

    tokenizer: Tokenizer
    context: int
    max_tokens: int

    def prompt(self, task: _Task) -> Prompt | Bad:
        """The task tokenised, or why it cannot be used."""
        try:
            tokens = prompt_tokens(self.tokenizer, task.asked) if task.messages else self.tokenizer.prompt(task.text)
        except ValueError as error:
            return Bad(task.place, str(error))
        room = self.context - self.max_tokens
        if len(tokens) > room:
            return Bad(
                task.place,
                f"prompt of {len(tokens)} tokens, but only {room} fit (context {self.context} less "
                f"max_tokens {self.max_tokens}) (got {shown(task.text)}); shorten it, lower sampling.max_tokens, "
                "or raise model.context",
            )
        return Prompt(task.id, task.text, tokens, task.reference, task.family, task.messages)


# ---------------------------------------------------------------- generated


def _generated(candidates: Iterable[tuple[str, str, str]], count: int, key: str) -> list[_Task]:
    """The first `count` distinct problems (text, reference, family) that fall in this key's split."""
    split = key.rpartition(".")[2]
    found: dict[str, _Task] = {}
    misses = 0
    for text, reference, family in candidates:
        if len(found) == count or misses >= MISSES:
            break
        misses += 1
        if text not in found and _held_out(text) == (split in MEASURED):
            misses = 0
            found[text] = _Task(f"{key}: problem {len(found)}", f"{split}-{len(found)}", text, reference, family)
    if len(found) < count:
        raise BadInput(
            [
                f"{key}.count: this source gave only {len(found)} distinct problems (got {count}); "
                "lower count, or widen the source"
            ]
        )
    return list(found.values())


def _held_out(text: str) -> bool:
    """Whether a generated problem is one to measure on: a stable hash of its text, the same on every machine."""
    return zlib.crc32(text.encode()) % HELD_OUT == 0


def _arithmetic(source: ArithmeticPrompts) -> Iterator[tuple[str, str, str]]:
    """Endless problems a+b= and a-b= with a >= b."""
    draws = random.Random(source.seed)
    while True:
        a, b = (_number(draws, draws.choice(source.digits)) for _ in range(2))
        sign = draws.choice("+-")
        if sign == "-" and a < b:
            a, b = b, a
        answer = a + b if sign == "+" else a - b
        yield f"{a}{sign}{b}=", json.dumps(str(answer)), f"{max(len(str(a)), len(str(b)))}-digit{sign}"


def _number(draws: random.Random, digits: int) -> int:
    return draws.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits)


def _reasoning_gym(source: TaskPrompts, key: str) -> Iterator[tuple[str, str, str]]:
    """Problems of a reasoning-gym data set; the reference is the whole entry, which its own scorer reads."""
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if source.dataset not in DATASETS:
        raise BadInput(
            [
                f"{key}.dataset: reasoning-gym has no such data set (got '{source.dataset}')"
                f"{near(source.dataset, DATASETS)}; it has {len(DATASETS)}, such as chain_sum"
            ]
        )
    try:
        tasks = reasoning_gym.create_dataset(
            source.dataset, seed=source.seed, size=LARGEST * source.count, **source.options
        )
    except (TypeError, ValueError, AssertionError) as error:
        raise BadInput([f"{key}.options: reasoning-gym refuses them: {error} (got {source.options})"]) from error
    suffix = f"\n\n{source.instruction}" if source.instruction else ""
    for index in range(LARGEST * source.count):
        entry = tasks[index]
        yield entry["question"] + suffix, json.dumps(entry, default=str), source.dataset


# ---------------------------------------------------------------- files


_Source = JsonlPrompts | ParquetPrompts


def _of_file(source: _Source, base: Path, key: str, frame: _Frame) -> Loaded:
    """Check every row; what stays is where the rows lie, and hashes of what they say."""
    split = key.rpartition(".")[2]
    bear_ids = False

    def name(row: Row) -> str:
        own = row.values.get("id")
        return f"{split}-{row.ordinal}" if own is None else str(own)

    def make(row: Row) -> Prompt | str:
        task = _from_row(row, source, name(row))
        made = task if isinstance(task, str) else frame.prompt(task)
        return made.reason if isinstance(made, Bad) else made

    def called(row: Row, made: Prompt) -> int:
        nonlocal bear_ids
        bear_ids = bear_ids or row.values.get("id") is not None
        return digest(made.id)

    said = [lambda _, made, which=which: marks(said_by(made))[which] for which in (0, 1)]
    found, report = stream(table_of(source, key, base), make, [called, *said], name)
    names = (lambda number: name(found.row(number))) if bear_ids else Numbered(split, found.ordinals)
    return Loaded(streamed(found, found.take_tags(), names), report)


def table_of(source: JsonlPrompts | ParquetPrompts, key: str, base: Path = Path()) -> Table:
    """The rows that the source names; `key` as for `load`."""
    forms = tuple((source.prompt, one) for one in _references(source)) or ((source.prompt,),)
    skip = source.on_bad_row == "skip"
    return Table(base / source.path, source.kind, forms, key, ("id", "family"), source.count, skip)


def _references(source: _Source) -> tuple[str, ...]:
    """Columns that may hold the reference, the first that a row has; none where the verifier reads nothing."""
    if source.reference is None:
        return ()
    return (source.reference, *(("answer", "solution") if source.reference == "reference" else ()))


def _from_row(row: Row, source: _Source, name: str) -> _Task | str:
    """The task that is called `name`, or the fault in words."""
    family = row.values.get("family") or ""
    try:
        prompt = one_text(read_text(row.values[source.prompt], source.prompt))
        reference = _reference(row, source)
        own_id = plain(name, "id")
        family = plain(str(family), "family") if family else ""
    except ValueError as error:
        return str(error)
    return _Task(
        place=row.place,
        id=own_id,
        text=last_said(prompt),
        reference=reference,
        family=family,
        messages=() if isinstance(prompt, str) else prompt,
    )


def _reference(row: Row, source: _Source) -> str:
    """The reference as JSON. ValueError where it has no such form."""
    column = next((one for one in _references(source) if one in row.values), None)
    value = None if column is None else row.values[column]
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        kind = type(value).__name__
        raise ValueError(f"{column}: {kind} has no JSON form (got {shown(value)}); store it as text") from error


# ---------------------------------------------------------------- use


def disjoint(train: Sequence[Prompt], probe: Sequence[Prompt], *, key: str = "prompts.probe") -> None:
    """Raise `BadInput` when a held-out prompt also stands in train, by text: it would measure memory.

    `key` is where the held-out ones are configured. They are compared by a hash, and those that are told by their
    texts.
    """
    ours, theirs = PromptBook.of(train), PromptBook.of(probe)
    faults: list[str] = []
    for number in theirs.texts.shared(ours.texts):
        fault = _standing(ours, theirs[number], key) if len(faults) < MOST_LINES else "one more, only counted"
        faults += [] if fault is None else [fault]
    refuse(faults)


def _standing(train: PromptBook, held: Prompt, key: str) -> str | None:
    """In words, where a held-out prompt stands in train; None where nothing but the hash is the same."""
    said = alike(said_by(held))
    for number in train.texts.find(digest(said)):
        if alike(said_by(train[number])) == said:
            where = f"{held.id} also stands in prompts.train as {train.name(number)}"
            return f"{key}: {where} (got {shown(held.text)}); take it out of one of them"
    return None


def at_step(prompts: Sequence[Prompt], step: int, count: int, seed: int) -> list[Prompt]:
    """The prompts of a step: a pure function, so that a resumed run draws what the unbroken one would have."""
    return [prompts[index] for index in draw(len(prompts), step, count, seed)]
