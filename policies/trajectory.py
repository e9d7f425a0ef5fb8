"""`Trajectory`: what was written, by whom, with which weights and probability, and what was said of it.

Host record, ragged, frozen, no torch. One Arrow schema (policies/arrow.py) serves the wire and the ledger: `to_table`
and `from_table` convert; arrays that come out of a table are read-only views of its buffers.
Axes: T = response tokens, C = context tokens.
"""

import math
from dataclasses import dataclass, fields
from enum import IntEnum, StrEnum
from typing import Any, Final, Literal

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


CONTEXTS: Final = ("train_context", "behavior_context", "teacher_context")
"""The [C] fields, all int32."""

PER_TOKEN: Final[dict[str, type[np.generic]]] = {
    "tokens": np.int32,
    "origin": np.int8,
    "token_version": np.int32,
    "train_mask": np.bool_,
    "behavior_logps": np.float32,
}
"""The [T] fields and their types."""


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """One response and everything known of where it came from (design: records). Arrays are read-only.

    Raises ValueError at construction when an array's type or length is wrong, or when versions contradict origins.
    """

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

    def __post_init__(self) -> None:
        for name in CONTEXTS:
            self._seal(name, np.int32)
        for name, dtype in PER_TOKEN.items():
            self._seal(name, dtype)
            size = len(getattr(self, name))
            if size != len(self.tokens):
                raise self._fault(name, f"one entry for each of the {len(self.tokens)} tokens", size)
        self._check_provenance()

    def _seal(self, name: str, dtype: type[np.generic]) -> None:
        """Check one array and keep a read-only view of it."""
        value: Any = getattr(self, name)
        if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype != dtype:
            got = f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            raise self._fault(name, f"a one-dimensional array of {np.dtype(dtype).name}", got)
        if value.flags.writeable:
            value = value.view()
            value.flags.writeable = False
            object.__setattr__(self, name, value)

    def _check_provenance(self) -> None:
        """Learner tokens, and they alone, carry the version that sampled them; environment tokens are not trained."""
        own = self.origin == _LEARNER
        ours, others = self.token_version[own], self.token_version[~own]
        if len(ours) and ours.min() < 0:
            raise self._fault("token_version", "a version >= 0 on every learner token", ours.min())
        if len(others):
            if (others != -1).any():
                raise self._fault("token_version", "-1 on tokens the learner did not write", others.max())
            if (self.train_mask & (self.origin == _ENVIRONMENT)).any():
                raise self._fault("train_mask", "false on environment tokens", "true")
        if len(others) and not len(ours) and self.version != -1:
            raise self._fault("version", "-1, for the learner wrote no token", self.version)
        if len(ours) and self.version != ours[0]:
            raise self._fault("version", f"{ours[0]}, as on the first learner token", self.version)

    def _fault(self, field: str, want: str, got: object) -> ValueError:
        return ValueError(f"Trajectory.{field} of {self.id!r}: want {want}, got {got}")


_LEARNER, _ENVIRONMENT = int(Origin.LEARNER), int(Origin.ENVIRONMENT)
_FIELDS: Final = tuple(field.name for field in fields(Trajectory))
_CHECKED: Final = frozenset((*PER_TOKEN, "version"))
"""Fields that are checked against each other."""


def changed(one: Trajectory, **changes: Any) -> Trajectory:
    """The record with other values in some fields: `dataclasses.replace`, which checks only what the change can break.

    Every response of a step is copied several times (lineage, scores, contexts), and checking its arrays each time is
    most of what the driver does.
    """
    if unknown := changes.keys() - set(_FIELDS):
        raise TypeError(f"Trajectory has no field {', '.join(sorted(unknown))}")
    made = object.__new__(Trajectory)
    for name in _FIELDS:
        object.__setattr__(made, name, changes[name] if name in changes else getattr(one, name))
    if changes.keys() & _CHECKED:
        made.__post_init__()
    else:
        for name in changes.keys() & set(CONTEXTS):
            made._seal(name, np.int32)
    return made


def reward(trajectory: Trajectory) -> float:
    """Value of the score named `reward`; NaN when there is none or its status is not ok."""
    for entry in trajectory.scores:
        if entry.name == "reward":
            return entry.value if entry.status == "ok" else math.nan
    return math.nan


def on_policy_share(trajectory: Trajectory, version: int) -> float:
    """Share of the trained tokens that policy `version` itself sampled; NaN when nothing is trained."""
    trained = trajectory.token_version[trajectory.train_mask]
    return float(np.mean(trained == version)) if len(trained) else math.nan
