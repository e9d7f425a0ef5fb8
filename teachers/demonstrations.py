"""Demonstrations: responses that somebody else wrote, by prompt, as trajectories with their provenance."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

import numpy as np

from policies.bad_input import MOST_LINES, BadInput, refuse, shown
from policies.prompt import Prompt
from policies.tokens import Tokenizer
from policies.trajectory import Int32, Trajectory
from teachers import careless, chain_solver
from teachers.config import (
    CarelessTeacher,
    ChainSolver,
    Demonstrations,
    JsonlDemonstrations,
    ModelDemonstrations,
    ParquetDemonstrations,
    ToolCaller,
)
from teachers.conversations import Text, Written, one_text, plain, read_text, whole, written
from teachers.draws import draw
from teachers.given import Names, Reading, fitting, row_name, stem, trajectory
from teachers.lookup import Int64
from teachers.prompt_book import PromptBook
from teachers.rows import Row, Table, form_of
from teachers.streams import Report, Stream, stream
from verifiers.environments.config import AnyEnvironment

KEY = "demonstrations"
"""Where they are configured in the pipeline file."""


@dataclass(frozen=True, slots=True)
class DemonstrationSet:
    """Trajectories that teach, by prompt. Draws are pure functions: a resumed run needs no cursor."""

    name: str
    by_prompt: Mapping[str, Sequence[int]]
    """Prompt of prompts.train -> the numbers of its demonstrations in `flat`."""
    flat: Sequence[Trajectory] | Stream[Trajectory]
    """Every demonstration, in a fixed order; those of a file are made when they are asked for."""
    report: Report | None = None
    """What became of a file's rows."""
    strangers: tuple[str, ...] = ()
    """The first rows, in words, that answer no prompt of prompts.train."""
    strange: int = 0
    """How many such rows there are."""

    @classmethod
    def of(cls, name: str, trajectories: Sequence[Trajectory]) -> "DemonstrationSet":
        """Group trajectories by their prompt."""
        by_prompt: dict[str, list[int]] = defaultdict(list)
        for index, one in enumerate(trajectories):
            by_prompt[one.prompt_id].append(index)
        return cls(name, dict(by_prompt), tuple(trajectories))

    def __len__(self) -> int:
        return len(self.flat)

    def for_prompt(self, prompt_id: str, index: int = 0) -> Trajectory | None:
        """The prompt's demonstration number `index`, or None when it has not so many."""
        found = self.by_prompt.get(prompt_id, ())
        return self.flat[found[index]] if index < len(found) else None

    def at_step(self, step: int, count: int, seed: int) -> list[Trajectory]:
        """`count` demonstrations for a step, epoch by epoch through a seeded order."""
        return [self.flat[index] for index in draw(len(self.flat), step, count, seed)]

    def refuse_strangers(self) -> None:
        """Raise `BadInput` where rows answer no training prompt: a strand that asks by prompt would never see them."""
        rest = self.strange - len(self.strangers)
        more = [f"... and {rest} more fault{'s' if rest > 1 else ''} of the same input"] if rest else []
        if self.strange:
            raise BadInput([*self.strangers, *more])


def load(  # noqa: PLR0913  (what each kind needs to be read)
    config: Demonstrations,
    prompts: Sequence[Prompt],
    tokenizer: Tokenizer,
    *,
    base: Path,
    seed: int,
    context: int,
    environment: AnyEnvironment | None = None,
) -> DemonstrationSet:
    """Demonstrations, tokenised, each ending with the end token; those of a file may be of prompts of their own.

    `base` is the pipeline file's folder, `context` the longest prompt plus response, `environment` the pipeline's.
    Raises `BadInput` with all faults.
    """
    match config:
        case CarelessTeacher():
            work = _worked(prompts, lambda p: careless.work(p.text, config.carelessness, _draws(seed, p)))
        case ChainSolver():
            work = _worked(prompts, lambda p: chain_solver.work(p.text, p.reference, config.marker))
        case ToolCaller():
            return DemonstrationSet.of(config.kind, _played(config, prompts, tokenizer, environment, context))
        case JsonlDemonstrations() | ParquetDemonstrations():
            return _of_file(config, PromptBook.of(prompts), Reading(tokenizer, base, context))
        case ModelDemonstrations():
            raise BadInput([f"{KEY}.kind: a model writes these when the run starts; they cannot be read (got 'model')"])
        case _:
            assert_never(config)
    return DemonstrationSet.of(config.kind, _tokenised(work, config.kind, tokenizer, context))


def given(prompt: Prompt, tokens: Int32, text: str, *, name: str, index: int) -> Trajectory:
    """A response that was written elsewhere: every token a demonstration's, its probability unknown."""
    return _of_prompt(prompt, Written(prompt.tokens, tokens, np.ones(len(tokens), np.bool_), text), name, index)


def _of_prompt(prompt: Prompt, response: Written, name: str, index: int = 0) -> Trajectory:
    return trajectory(Names(f"{name}-{prompt.id}-{index}", prompt.id, name), response)


# ---------------------------------------------------------------- written by rule


def _draws(seed: int, prompt: Prompt) -> random.Random:
    """A prompt's own randomness: the same demonstration whatever else is in the set."""
    return random.Random(f"{seed}:{prompt.text}")


def _worked(prompts: Sequence[Prompt], teacher: Callable[[Prompt], str]) -> list[tuple[Prompt, str]]:
    faults: list[str] = []
    work: list[tuple[Prompt, str]] = []
    for prompt in prompts:
        try:
            work.append((prompt, teacher(prompt)))
        except ValueError as error:
            faults.append(f"{KEY}: prompt {prompt.id}: {error} (got {shown(prompt.text)}); choose another teacher")
    refuse(faults)
    return work


def _tokenised(work: Sequence[tuple[Prompt, str]], name: str, tokenizer: Tokenizer, context: int) -> list[Trajectory]:
    faults: list[str] = []
    found: list[Trajectory] = []
    for prompt, text in work:
        try:
            tokens = tokenizer.response(text)
            fitting(Written(prompt.tokens, tokens, np.ones(len(tokens), np.bool_), text), context)
        except ValueError as error:
            faults.append(f"{KEY}: prompt {prompt.id}: {error}")
            continue
        found.append(given(prompt, tokens, text, name=name, index=0))
    refuse(faults)
    return found


def _played(
    config: ToolCaller,
    prompts: Sequence[Prompt],
    tokenizer: Tokenizer,
    environment: AnyEnvironment | None,
    context: int,
) -> list[Trajectory]:
    """Episodes in the environment, whose tokens are the environment's own."""
    from teachers.tool_caller import ToolCaller as Caller

    try:
        caller = Caller.of(environment, tokenizer, config.marker)
    except ValueError as error:
        raise BadInput([f"{KEY}.kind: {error} (got 'tool_caller')"]) from error
    faults: list[str] = []
    found: list[Trajectory] = []
    for prompt in prompts:
        try:
            found.append(_of_prompt(prompt, fitting(caller.work(prompt), context), config.kind))
        except ValueError as error:
            faults.append(f"{KEY}: prompt {prompt.id}: {error} (got {shown(prompt.text)})")
    refuse(faults)
    return found


# ---------------------------------------------------------------- files

_Config = JsonlDemonstrations | ParquetDemonstrations


def _of_file(config: _Config, prompts: PromptBook, reading: Reading) -> DemonstrationSet:
    """The rows of a file, each checked; of which prompt they are is kept, what they say is not."""
    name = stem(config.path)
    strangers = _Strangers(config.prompt)

    def make(row: Row) -> Trajectory | str:
        try:
            asked, response = _response(row, config, reading.tokenizer)
            response = fitting(response, reading.context)
            number = prompts.saying(asked)
            prompt_id = row_name(row, name) if number is None else prompts.name(number)
        except ValueError as error:
            return str(error)
        return trajectory(Names(f"{name}-{prompt_id}-{row.ordinal}", prompt_id, name), response)

    def tag(row: Row, _: Trajectory) -> int:
        asked = _asked(row, config)
        number = prompts.saying(asked)
        if number is None:
            strangers.add(row, asked)
            return -1
        return number

    flat, report = stream(table_of(config, reading.base), make, [tag])
    (owners,) = flat.take_tags()
    return DemonstrationSet(name, _Answers(prompts, owners), flat, report, tuple(strangers.told), strangers.count)


class _Answers(Mapping[str, Sequence[int]]):
    """The numbers of a file's demonstrations by the id of the prompt that they answer: 8 bytes a demonstration."""

    def __init__(self, prompts: PromptBook, owners: Int64) -> None:
        """`owners` has the prompt's number of each demonstration, -1 for none; [N]."""
        order = np.argsort(owners, kind="stable")
        order = order[np.searchsorted(owners[order], 0) :]
        self._prompts, self._owners, self._numbers = prompts, owners[order].astype(np.int32), order.astype(np.int32)

    def __getitem__(self, name: str) -> Sequence[int]:
        number = self._prompts.number(name)
        low, high = (0, 0) if number is None else np.searchsorted(self._owners, [number, number + 1])
        if low == high:
            raise KeyError(name)
        return [int(one) for one in self._numbers[low:high]]

    def __iter__(self) -> Iterator[str]:
        return (self._prompts.name(int(number)) for number in np.unique(self._owners))

    def __len__(self) -> int:
        return len(np.unique(self._owners))


@dataclass(slots=True)
class _Strangers:
    """Rows that answer no training prompt."""

    column: str
    told: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, row: Row, asked: Text) -> None:
        """One more; the first ones are told."""
        self.count += 1
        if len(self.told) < MOST_LINES:
            self.told.append(
                f"{row.place}: {self.column}: no such prompt among prompts.train (got {shown(asked)}), and a strand "
                "asks by prompt; remove the row, or add the prompt there (its count may leave it out)"
            )


def _forms(config: _Config) -> tuple[tuple[str, ...], ...]:
    """The sets of columns that make a demonstration; names that are TRL's serve beside the defaults."""
    responses = [config.response, *(["completion"] if config.response == "response" else [])]
    talks = [config.messages, *(["conversations"] if config.messages == "messages" else [])]
    return tuple([(config.prompt, one) for one in responses] + [(one,) for one in (*talks, config.text)])


def table_of(config: JsonlDemonstrations | ParquetDemonstrations, base: Path = Path()) -> Table:
    """The rows that the config names."""
    forms = _forms(config)
    skip = config.on_bad_row == "skip"
    # an id may be the prompt's, which several responses answer
    return Table(base / config.path, config.kind, forms, KEY, ("id",), config.count, skip, unique="")


def _asked(row: Row, config: _Config) -> Text:
    """The row's prompt; empty where it is plain text without one."""
    form = form_of(row, _forms(config)) or ()
    if len(form) == 2:
        return one_text(read_text(row.values[config.prompt], config.prompt))
    messages = read_text(row.values[form[0]], form[0]) if form != (config.text,) else ""
    if isinstance(messages, str):
        return ""
    first = next((index for index, one in enumerate(messages) if one.role == "assistant"), 0)
    return one_text(messages[:first])


def _response(row: Row, config: _Config, tokenizer: Tokenizer) -> tuple[Text, Written]:
    """The prompt and the response after it. ValueError says what is wrong with the row."""
    form = form_of(row, _forms(config)) or ()
    values = [row.values[name] for name in form]
    if len(form) == 2:
        prompt, response = read_text(values[0], form[0]), read_text(values[1], form[1])
        return _asked(row, config), written(tokenizer, prompt, response)
    if form == (config.text,):
        return "", _alone(tokenizer, plain(values[0], config.text))
    messages = read_text(values[0], form[0])
    if isinstance(messages, str):
        raise ValueError(f"{form[0]}: not a list of messages (got {shown(messages)}); it is [{{role, content}}, ...]")
    return _asked(row, config), whole(tokenizer, messages)


def _alone(tokenizer: Tokenizer, text: str) -> Written:
    """Plain text without a prompt: nothing comes before its first token, which therefore is the context."""
    tokens = tokenizer.response(text)
    return Written(tokens[:1], tokens[1:], np.ones(len(tokens) - 1, np.bool_), text)
