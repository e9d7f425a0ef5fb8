"""A response that somebody else wrote, as a trajectory with its provenance."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from policies.bad_input import shown
from policies.tokens import Tokenizer
from policies.trajectory import FinishReason, Float32, Origin, Preference, Producer, ScoreEntry, Trajectory
from teachers.conversations import Written, plain
from teachers.rows import Row


@dataclass(frozen=True, slots=True)
class Reading:
    """What every data file is read with."""

    tokenizer: Tokenizer
    base: Path
    """The pipeline file's folder."""
    context: int
    """Longest prompt plus response, in tokens."""


@dataclass(frozen=True, slots=True)
class Names:
    """What a given trajectory is called."""

    id: str
    prompt_id: str
    model: str
    """The data set's name."""


def trajectory(
    names: Names,
    written: Written,
    *,
    logps: Float32 | None = None,
    preference: Preference | None = None,
    scores: Sequence[ScoreEntry] = (),
) -> Trajectory:
    """Every token a demonstration's, its probability unknown unless `logps`, [T], states it; only `own` are trained."""
    size = len(written.tokens)
    return Trajectory(
        id=names.id,
        prompt_id=names.prompt_id,
        group_id=names.prompt_id,
        producer=Producer.DEMONSTRATION,
        model=names.model,
        version=-1,
        train_context=written.context,
        behavior_context=written.context,
        teacher_context=written.context,
        tokens=written.tokens,
        origin=np.where(written.own, Origin.DEMONSTRATION, Origin.ENVIRONMENT).astype(np.int8),
        token_version=np.full(size, -1, np.int32),
        train_mask=written.own,
        behavior_logps=np.full(size, np.nan, np.float32) if logps is None else logps,
        scores=tuple(scores),
        preference=preference,
        finish_reason=FinishReason.GIVEN,
        text=written.text,
    )


def fitting(written: Written, context: int) -> Written:
    """The response, if it fits. ValueError says how much room there is."""
    asked, size = len(written.context), len(written.tokens)
    if asked + size > context:
        raise ValueError(
            f"response of {size} tokens, but only {max(context - asked, 0)} fit (context {context} less the prompt's "
            f"{asked}) (got {shown(written.text)}); shorten it, or raise model.context"
        )
    return written


def row_name(row: Row, name: str) -> str:
    """The row's own id, or the data set's name and the row's number. ValueError where the id cannot be stored."""
    own = row.values.get("id")
    return f"{name}-{row.ordinal}" if own is None else plain(str(own), "id")


def stem(path: str) -> str:
    """What a data set is called: the file's name without its endings, or the folder's."""
    return Path(path).name.partition(".")[0] or "data"
