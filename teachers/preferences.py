"""Preferences: responses to one prompt that somebody compared, as sets of trajectories."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policies.bad_input import shown
from policies.trajectory import Float32, Preference, ScoreEntry, Trajectory
from teachers.config import Preferences
from teachers.conversations import Text, Written, common_prompt, read_text, written
from teachers.draws import draw
from teachers.given import Names, Reading, fitting, row_name, stem, trajectory
from teachers.rows import Row, Table, form_of
from teachers.streams import Report, Stream, stream

KEY = "preferences"
"""Where they are configured in the pipeline file."""

Compared = tuple[Trajectory, ...]
"""A preference set: the chosen ones first."""


@dataclass(frozen=True, slots=True)
class PreferenceSet:
    """Sets of compared trajectories. Draws are pure functions: a resumed run needs no cursor."""

    name: str
    sets: Sequence[Compared] | Stream[Compared]
    report: Report | None = None
    """What became of the file's rows."""

    def __len__(self) -> int:
        return len(self.sets)

    def at_step(self, step: int, count: int, seed: int) -> list[Compared]:
        """`count` sets for a step, epoch by epoch through a seeded order."""
        return [self.sets[index] for index in draw(len(self.sets), step, count, seed)]


def load(config: Preferences, reading: Reading) -> PreferenceSet:
    """Every set of the file, checked in one pass and tokenised when drawn. Raises `BadInput` with the bad rows."""
    name = stem(config.path)

    def make(row: Row) -> Compared | str:
        try:
            return _compared(row, config, reading, name)
        except ValueError as error:
            return str(error)

    return PreferenceSet(name, *stream(table_of(config, reading.base), make))


def table_of(config: Preferences, base: Path = Path()) -> Table:
    """The rows that the config names."""
    optional = ("id", config.prompt, config.margin, *_LOGPS, *_SCORES)
    skip = config.on_bad_row == "skip"
    return Table(base / config.path, config.kind, _forms(config), KEY, optional, config.count, skip)


_LOGPS = ("chosen_logps", "rejected_logps")
"""Columns with the log-probability of each token where it was sampled, if the file has them."""

_SCORES = ("score_chosen", "score_rejected")
"""Columns with a judge's numbers; without a margin, the margin is their difference."""


def _forms(config: Preferences) -> tuple[tuple[str, ...], ...]:
    ranked = [config.scores, *(["ranks"] if config.scores == "scores" else [])]
    pair = (config.chosen, config.rejected)
    return pair, *((config.prompt, config.completions, one) for one in ranked)


@dataclass(frozen=True, slots=True)
class _Choice:
    """One response of a set, before it is a trajectory."""

    column: str
    written: Written
    label: float
    score: float = math.nan
    logps: Float32 | None = None


def _compared(row: Row, config: Preferences, reading: Reading, name: str) -> Compared:
    """The row's set. ValueError says what is wrong with it."""
    pair = len(form_of(row, _forms(config)) or ()) == 2
    choices = _pair(row, config, reading) if pair else _ranked(row, config, reading)
    own, margin = f"{name}-{row.ordinal}", _margin(row, config) if pair else math.nan
    prompt_id = row_name(row, name)
    found = []
    for index, one in enumerate(choices):
        scores = () if math.isnan(one.score) else (ScoreEntry("score", one.score, scorer=name),)
        preference = Preference(own, one.label, margin)
        names = Names(f"{own}-{index}", prompt_id, name)
        found.append(trajectory(names, one.written, logps=one.logps, preference=preference, scores=scores))
    return tuple(found)


# ---------------------------------------------------------------- pairs


def _pair(row: Row, config: Preferences, reading: Reading) -> list[_Choice]:
    prompt, *answers = _parts(row, config)
    if answers[0] == answers[1]:
        raise ValueError(
            f"{config.chosen}, {config.rejected}: are the same (got {shown(answers[0])}); take the row out"
        )
    found = []
    columns = zip((config.chosen, config.rejected), answers, (1.0, 0.0), _SCORES, _LOGPS, strict=True)
    for column, answer, label, score, logps in columns:
        response = _written(reading, prompt, answer, column)
        stated = _logps(row.values.get(logps), len(response.tokens), logps)
        found.append(_Choice(column, response, label, _number(row.values.get(score), score), stated))
    return found


def _parts(row: Row, config: Preferences) -> tuple[Text, Text, Text]:
    """(prompt, chosen, rejected), the prompt taken from the other two where the row has none of their form.

    A text beside two conversations is TRL's redundant column: the conversations begin with the prompt. Where they do
    not, the text is what the user says.
    """
    chosen, rejected = (read_text(row.values[name], name) for name in (config.chosen, config.rejected))
    if row.values.get(config.prompt) is None:
        return common_prompt(chosen, rejected)
    prompt = read_text(row.values[config.prompt], config.prompt)
    if isinstance(prompt, str) and not isinstance(chosen, str) and chosen[0].role != "assistant":
        return common_prompt(chosen, rejected)
    return prompt, chosen, rejected


def _written(reading: Reading, prompt: Text, answer: Text, column: str) -> Written:
    try:
        return fitting(written(reading.tokenizer, prompt, answer), reading.context)
    except ValueError as error:
        raise ValueError(f"{column}: {error}") from error


def _margin(row: Row, config: Preferences) -> float:
    stated = _number(row.values.get(config.margin), config.margin)
    if not math.isnan(stated):
        return stated
    chosen, rejected = (_number(row.values.get(name), name) for name in _SCORES)
    return chosen - rejected


def _number(value: object, name: str) -> float:
    """A finite number; NaN where the row says nothing. ValueError where it is something else."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        raise ValueError(f"{name}: not a number (got {shown(value)}); write a finite number, or nothing")
    return float(value)


def _logps(value: object, size: int, name: str) -> Float32 | None:
    """[T] log-probabilities that the file states; NaN at its nulls."""
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != size:
        got = f"a list of {len(value)}" if isinstance(value, list | tuple) else shown(value)
        raise ValueError(f"{name}: want a number for each of the response's {size} tokens (got {got}); leave it out")
    return np.asarray([_number(one, name) for one in value], np.float32)


# ---------------------------------------------------------------- ranked lists


def _ranked(row: Row, config: Preferences, reading: Reading) -> list[_Choice]:
    """The best completions are chosen, all others rejected; the scores stay beside them."""
    _, _, column = form_of(row, _forms(config)) or ("", "", config.scores)
    prompt = read_text(row.values[config.prompt], config.prompt)
    answers = _list(row.values[config.completions], config.completions)
    scores = [_number(one, f"{column}[{index}]") for index, one in enumerate(_list(row.values[column], column))]
    if len(answers) != len(scores):
        raise ValueError(f"{column}: {len(scores)} for {len(answers)} {config.completions}; give one for each")
    if any(map(math.isnan, scores)):
        raise ValueError(f"{column}: holds null; give a number for each of {config.completions}, or take one out")
    worth = [-one for one in scores] if column == "ranks" else scores
    if min(worth) == max(worth):
        raise ValueError(f"{column}: all alike (got {shown(scores)}), so that none is chosen; take the row out")
    found = []
    for index in sorted(range(len(answers)), key=lambda one: -worth[one]):
        name = f"{config.completions}[{index}]"
        response = _written(reading, prompt, read_text(answers[index], name), name)
        found.append(_Choice(name, response, float(worth[index] == max(worth)), worth[index]))
    return found


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list | tuple) or len(value) < 2:
        raise ValueError(f"{name}: not a list of two or more (got {shown(value)}); give one entry for each completion")
    return list(value)
