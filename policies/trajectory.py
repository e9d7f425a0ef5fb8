"""`Trajectory`: what was written, by whom, with which weights and probability, and what was said of it.

Host record, ragged, frozen, no torch. One Arrow schema serves the wire and the ledger: `to_table` and `from_table`
convert; arrays that come out of a table are read-only views of its buffers.
Axes: T = response tokens, C = context tokens.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Literal

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]
Int8 = npt.NDArray[np.int8]
Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]


class Origin(IntEnum):
    """Who wrote a token."""

    LEARNER = 0
    DEMONSTRATION = 1
    TEACHER = 2
    HINT = 3
    ENVIRONMENT = 4


class Producer(StrEnum):
    """What kind of source a whole trajectory came from."""

    ROLLOUT = "rollout"
    DEMONSTRATION = "demonstration"
    TEACHER = "teacher"
    REPLAY = "replay"
    SEARCH = "search"
    CORRECTION = "correction"
    REVISION = "revision"


class FinishReason(StrEnum):
    """Why the tokens end."""

    STOP = "stop"
    """The end token or a stop string."""
    LENGTH = "length"
    """The token budget ran out: the response is cut."""
    ABORT = "abort"
    """The engine was told to stop; the tokens so far are kept."""
    ERROR = "error"
    """The engine failed; see the ledger's events."""
    GIVEN = "given"
    """Not sampled here: a demonstration or another's text."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the behavior policy was decoded. `logprobs` says of which distribution behavior_logps are."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    max_tokens: int = 64
    stop: tuple[str, ...] = ()
    logprobs: Literal["raw", "processed"] = "processed"


@dataclass(frozen=True, slots=True)
class ScoreEntry:
    """One thing that was said of a trajectory; the one named `reward` is what credit reads."""

    name: str
    value: float
    """NaN when unknown: a verifier that failed has not said 0."""
    passed: bool | None = None
    status: str = "ok"
    """ok, or why there is no verdict: timeout, error, unscored."""
    reason: str = ""
    start: int | None = None
    end: int | None = None
    """Token span [start, end) for process scores; None for the whole response."""
    scorer: str = ""
    scorer_version: str = ""


@dataclass(frozen=True, slots=True)
class Preference:
    """Membership in a preference set: label 1 chosen, 0 rejected; margin where the source states one."""

    set_id: str
    label: float
    margin: float = float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """One response and everything known of where it came from (design: records). Arrays are read-only."""

    id: str
    prompt_id: str
    group_id: str
    producer: Producer
    model: str
    """Which weights wrote it: the run's learner, or a teacher's or data set's name."""
    version: int
    """Policy version at the first token; -1 if the learner did not write it."""
    train_context: Int32
    behavior_context: Int32
    teacher_context: Int32
    tokens: Int32
    origin: Int8
    token_version: Int32
    train_mask: Bool
    behavior_logps: Float32
    """Log-probability at sampling, NaN where unknown."""
    parent_id: str = ""
    scores: tuple[ScoreEntry, ...] = ()
    preference: Preference | None = None
    finish_reason: FinishReason = FinishReason.GIVEN
    sampling: Sampling | None = None
    seed: int = -1
    text: str = ""
    created_at: float = 0.0
    seconds: float = 0.0
    tokens_generated: int = 0
