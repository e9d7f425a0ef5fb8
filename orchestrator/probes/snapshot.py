"""What one probe saw of one checkpoint, as arrays: the records that every later measure is a function of.

P = prompts of a set, T = tokens of a response. Rows of the run directory's Parquet files and these records say the
same (`orchestrator.probe_files`): what was measured can be measured anew, of a run that ended long ago.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

SetName = Literal["probe", "scaffolded", "shifted", "guard"]
"""probe: held-out prompts of the task; scaffolded: the same under the pipeline's scaffold; shifted: like them, from
elsewhere; guard: prompts that were solved before and are not to be lost."""

Who = Literal["before", "after", "teacher", "bank"]
"""A model (the policy as the stage found it, as it left it, the stage's teacher), or the bank as a writer."""


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """Verdicts on the responses drawn for each prompt of one set. A response without a verdict is in no count but
    `unknown_P`."""

    prompts: tuple[str, ...]
    """[P] ids, in the order of the prompt set: two snapshots of a run have the same."""
    families: tuple[str, ...]
    n_P: Int64
    """Sampled responses with a verdict; prompts may differ where sampling stopped early (probes.sequential)."""
    c_P: Int64
    """Those of them that passed."""
    unknown_P: Int64
    greedy_P: Float64
    """1 passed, 0 did not, NaN unknown or not drawn."""
    answers_P: tuple[Mapping[str, int], ...]
    """[P] distinct answer -> sampled responses that gave it; empty where answers cannot be read from responses."""
    passed_P: tuple[tuple[bool, ...], ...]
    """[P][n_P] the verdicts in the order of their draws, for designs that stop early."""
    sound_P: Int64 | None = None
    """Passed, with a chain of thought that a process verifier approved; None where none judged."""
    tokens: int = 0
    """Generated for this set, greedy ones included."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """One response, teacher-forced by one model at temperature 1. Never sampled by being scored."""

    id: str
    prompt: str
    family: str
    writer: Who
    """Who wrote the tokens: `bank` for the fixed bank of good trajectories, else whose own rollout it is."""
    model: Who
    """Whose probabilities these are."""
    tokens: Int32
    """[T]"""
    logps: Float32
    """[T] log-probability of each token; NaN where unknown."""
    best_ids: Int32
    """[T] the likeliest token at each position; -1 where unknown."""
    best_logps: Float32
    """[T] its log-probability."""
    steps: tuple[int, ...] = ()
    """Ends (exclusive) of the response's steps, where its spans are known; the last is T."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """Everything that was measured of the policy after `step` steps; 0 is before the first."""

    step: int
    stage: str
    """The stage that ended here; of step 0 the first stage's name."""
    sets: Mapping[str, Sampled] = field(default_factory=dict)
    """SetName -> what was drawn; a set that the pipeline does not have is absent."""
    scored: Sequence[Scored] = ()
