"""Prompts from their source: generated or read, tokenised once, refused with every fault at once.

Generated sources (arithmetic, reasoning-gym) are split by a hash of the text, one part in eight held out, so that a
source at a key ending in `probe` never shares a problem with one at any other key, whatever the seeds and counts.
"""

import json
import random
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from orchestrator.config import ArithmeticPrompts, JsonlPrompts, ParquetPrompts, PromptSource, TaskPrompts
from policies.bad_input import BadInput, near, refuse, shown
from policies.prompt import Prompt
from policies.tokens import Tokenizer
from teachers.draws import draw
from teachers.rows import Row, Table, read_jsonl, read_parquet

HELD_OUT = 8
"""One generated problem in so many belongs to the probe."""

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


def load(
    source: PromptSource, tokenizer: Tokenizer, *, base: Path, context: int, max_tokens: int, key: str
) -> tuple[Prompt, ...]:
    """Every prompt of the source, in a fixed order.

    `base` is the pipeline file's folder, `key` the place in that file (prompts.train, prompts.probe), `context` the
    longest prompt plus response and `max_tokens` the response's share of it. Raises `BadInput` with all faults.
    """
    room = context - max_tokens
    faults: list[str] = []
    prompts: list[Prompt] = []
    for task in _tasks(source, base, key):
        try:
            tokens = tokenizer.prompt(task.text)
        except ValueError as error:
            faults.append(f"{task.place}: {error}")
            continue
        prompts.append(Prompt(task.id, task.text, tokens, task.reference, task.family))
        if len(tokens) > room:
            faults.append(
                f"{task.place}: prompt of {len(tokens)} tokens, but only {room} fit (context {context} less "
                f"max_tokens {max_tokens}) (got {shown(task.text)}); shorten it, lower sampling.max_tokens, "
                "or raise model.context"
            )
    refuse(faults)
    return tuple(prompts)


def _tasks(source: PromptSource, base: Path, key: str) -> list[_Task]:
    match source:
        case ArithmeticPrompts():
            return _generated(_arithmetic(source), source.count, key)
        case TaskPrompts():
            return _generated(_reasoning_gym(source, key), source.count, key)
        case JsonlPrompts():
            table = Table(base / source.path, (source.prompt, source.reference), key, source.count)
            return _from_rows(read_jsonl(table), source, key)
        case ParquetPrompts():
            table = Table(base / source.path, (source.prompt, source.reference), key, source.count)
            return _from_rows(read_parquet(table, optional=("id", "family")), source, key)
        case _:
            assert_never(source)


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
        if text not in found and _held_out(text) == (split == "probe"):
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
    """Whether a generated problem belongs to the probe: a stable hash of its text, the same on every machine."""
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


def _from_rows(rows: Sequence[Row], source: JsonlPrompts | ParquetPrompts, key: str) -> list[_Task]:
    split = key.rpartition(".")[2]
    faults: list[str] = []
    tasks: list[_Task] = []
    places: dict[str, str] = {}
    for index, row in enumerate(rows):
        task = _from_row(row, source, f"{split}-{index}")
        if isinstance(task, str):
            faults.append(task)
        elif task.id in places:
            faults.append(f"{row.place}: id: stands already at {places[task.id]} (got '{task.id}'); make ids unique")
        else:
            places[task.id] = row.place
            tasks.append(task)
    refuse(faults)
    return tasks


def _from_row(row: Row, source: JsonlPrompts | ParquetPrompts, default_id: str) -> _Task | str:
    """The task, or the fault in words."""
    text = row.values[source.prompt]
    if not isinstance(text, str) or not text:
        return f"{row.place}: {source.prompt}: not a text (got {shown(text)}); a prompt is a non-empty string"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"{row.place}: {source.prompt}: holds a lone surrogate at {error.start} (got {shown(text)}); remove it"
    reference = row.values[source.reference]
    try:
        dumped = json.dumps(reference)
    except (TypeError, ValueError):
        kind = type(reference).__name__
        return f"{row.place}: {source.reference}: {kind} has no JSON form (got {shown(reference)}); store it as text"
    name = row.values.get("id")
    return _Task(
        place=row.place,
        id=default_id if name is None else str(name),
        text=text,
        reference=dumped,
        family=str(row.values.get("family") or ""),
    )


# ---------------------------------------------------------------- use


def disjoint(train: Sequence[Prompt], probe: Sequence[Prompt]) -> None:
    """Raise `BadInput` when a held-out prompt also stands in train, by text: it would measure memory."""
    trained: Mapping[str, str] = {prompt.text.strip(): prompt.id for prompt in train}
    refuse(
        [
            f"prompts.probe: {p.id} also stands in prompts.train as {trained[p.text.strip()]} (got {shown(p.text)}); "
            "take it out of one of them"
            for p in probe
            if p.text.strip() in trained
        ]
    )


def at_step(prompts: Sequence[Prompt], step: int, count: int, seed: int) -> list[Prompt]:
    """The prompts of a step: a pure function, so that a resumed run draws what the unbroken one would have."""
    return [prompts[index] for index in draw(len(prompts), step, count, seed)]
