"""Labels: responses that somebody judged one by one, or step by step, as trajectories."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from policies.bad_input import shown
from policies.tokens import Tokenizer
from policies.trajectory import Preference, ScoreEntry, Trajectory
from teachers.config import Labels
from teachers.conversations import Written, plain, prompt_tokens, read_text, written
from teachers.draws import draw
from teachers.given import Names, Reading, fitting, row_name, stem, trajectory
from teachers.rows import Row, Table, form_of
from teachers.streams import Report, Stream, stream

KEY = "labels"
"""Where they are configured in the pipeline file."""


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Judged trajectories. Draws are pure functions: a resumed run needs no cursor."""

    name: str
    flat: Sequence[Trajectory] | Stream[Trajectory]
    report: Report | None = None
    """What became of the file's rows."""

    def __len__(self) -> int:
        return len(self.flat)

    def at_step(self, step: int, count: int, seed: int) -> list[Trajectory]:
        """`count` trajectories for a step, epoch by epoch through a seeded order."""
        return [self.flat[index] for index in draw(len(self.flat), step, count, seed)]


def load(config: Labels, reading: Reading) -> LabelSet:
    """Every judged response of the file, checked in one pass and tokenised when drawn.

    A label of the whole is `preference.label`, in no set; one of a step is a score named `step` with a span of tokens.
    Raises `BadInput` with the bad rows.
    """
    name, forms = stem(config.path), _forms(config)

    def make(row: Row) -> Trajectory | str:
        try:
            names = Names(f"{name}-{row.ordinal}", row_name(row, name), name)
            steps = form_of(row, forms) == forms[1]
            return _steps(row, config, reading, names) if steps else _unary(row, config, reading, names)
        except ValueError as error:
            return str(error)

    return LabelSet(name, *stream(table_of(config, reading.base), make))


def table_of(config: Labels, base: Path = Path()) -> Table:
    """The rows that the config names."""
    skip = config.on_bad_row == "skip"
    return Table(base / config.path, config.kind, _forms(config), KEY, ("id",), config.count, skip)


def _forms(config: Labels) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
    return (
        (config.prompt, config.completion, config.label),
        (config.prompt, config.completions, config.labels),
    )


# ---------------------------------------------------------------- the whole response


def _unary(row: Row, config: Labels, reading: Reading, names: Names) -> Trajectory:
    prompt = read_text(row.values[config.prompt], config.prompt)
    completion = read_text(row.values[config.completion], config.completion)
    label = row.values[config.label]
    if not isinstance(label, int | float) or label not in (0, 1):
        raise ValueError(f"{config.label}: neither true nor false (got {shown(label)}); write one of the two")
    response = fitting(written(reading.tokenizer, prompt, completion), reading.context)
    return trajectory(names, response, preference=Preference("", float(label)))


# ---------------------------------------------------------------- steps


def _steps(row: Row, config: Labels, reading: Reading, names: Names) -> Trajectory:
    prompt = read_text(row.values[config.prompt], config.prompt)
    steps, labels = row.values[config.completions], row.values[config.labels]
    for name, value in ((config.completions, steps), (config.labels, labels)):
        if not isinstance(value, list | tuple) or not value:
            raise ValueError(f"{name}: not a list (got {shown(value)}); give one entry for each step")
    if len(steps) != len(labels):
        raise ValueError(f"{config.labels}: {len(labels)} for {len(steps)} {config.completions}; give one for each")
    texts = [plain(one, f"{config.completions}[{index}]") for index, one in enumerate(steps)]
    values = [_value(one, f"{config.labels}[{index}]") for index, one in enumerate(labels)]
    tokens, bounds = tokens_of_steps(reading.tokenizer, texts, config.separator)
    context = prompt_tokens(reading.tokenizer, prompt)
    text = "".join(f"{one}{config.separator}" for one in texts)
    response = fitting(Written(context, tokens, np.ones(len(tokens), np.bool_), text), reading.context)
    scores = [
        ScoreEntry("step", value, status="unscored" if math.isnan(value) else "ok", start=start, end=end)
        for value, start, end in zip(values, (0, *bounds), bounds, strict=False)
    ]
    return trajectory(names, response, scores=scores)


def tokens_of_steps(
    tokenizer: Tokenizer, steps: Sequence[str], separator: str
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int32]], tuple[int, ...]]:
    """The steps' tokens, [T], and where each ends; a step and its separator are tokenised on their own.

    Joined text would be tokenised otherwise over the boundaries, and the spans would shift. The last token of a span is
    the separator's (or, where that is empty, the step's): the one whose prediction bears the label (arXiv 2305.20050).
    """
    after = tokenizer.encode(separator) if separator else np.zeros(0, np.int32)
    pieces = [np.concatenate([tokenizer.encode(one), after]) for one in steps]
    bounds = np.cumsum([len(piece) for piece in pieces])
    return np.concatenate(pieces).astype(np.int32), tuple(int(bound) for bound in bounds)


def _value(label: object, name: str) -> float:
    """A step's label as a number; NaN where nothing is said of the step."""
    if label is None:
        return math.nan
    if not isinstance(label, int | float) or not abs(label) < 1e300:
        raise ValueError(f"{name}: no label (got {shown(label)}); write true, false, a number or null")
    return float(label)
