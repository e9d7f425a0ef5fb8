"""Teacher forcing: what a model says of responses that stand already, as `probes.snapshot.Scored`."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from actors.engine import TokenScores
from orchestrator.probes.snapshot import Scored, Who
from policies.prompt import Prompt
from policies.trajectory import Int32, Origin, Trajectory

Judge = Callable[[Sequence[Int32], Sequence[Int32], int], Awaitable[Sequence[TokenScores]]]
"""(contexts, tokens, top_k) -> one entry for each."""


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """A response that a model is asked about, and in which context."""

    id: str
    prompt: str
    family: str
    context: Int32
    tokens: Int32
    observed: npt.NDArray[np.bool_]
    """[T] tokens that an environment wrote: no policy chose them."""
    steps: tuple[int, ...] = ()


def standing(one: Trajectory, prompt: Prompt) -> Standing:
    """A response in the context that it is trained under; its scores' spans must be over tokens."""
    ends = sorted({entry.end for entry in one.scores if entry.start is not None and entry.end is not None})
    steps = tuple(ends) if ends and ends[-1] == len(one.tokens) else ()
    observed = one.origin == Origin.ENVIRONMENT
    return Standing(one.id, one.prompt_id, prompt.family, one.train_context, one.tokens, observed, steps)


def once_more(row: Scored, prompt: Prompt) -> Standing:
    """A response that an earlier probe had scored, under its bare prompt."""
    tokens = row.tokens.astype(np.int32)
    return Standing(row.id, row.prompt, row.family, prompt.tokens, tokens, np.isnan(row.logps), row.steps)


async def forced(responses: Sequence[Standing], writer: Who, model: Who, judge: Judge) -> list[Scored]:
    """Each response under the model; those without tokens are left out."""
    kept = [one for one in responses if len(one.tokens)]
    if not kept:
        return []
    told = await judge([one.context for one in kept], [one.tokens for one in kept], 1)
    return [_scored(one, said, writer, model) for one, said in zip(kept, told, strict=True)]


def again(rows: Sequence[Scored], writer: Who, model: Who) -> list[Scored]:
    """The rows of an earlier snapshot's own checkpoint, as what they are in the next one."""
    return [replace(one, writer=writer, model=model) for one in rows]


def _scored(one: Standing, said: TokenScores, writer: Who, model: Who) -> Scored:
    nobody = np.full(len(one.tokens), np.nan, np.float32)
    ids = np.full(len(one.tokens), -1) if said.topk_ids is None else said.topk_ids[:, 0]
    best = nobody if said.topk_logps is None else said.topk_logps[:, 0]
    return Scored(
        one.id,
        one.prompt,
        one.family,
        writer,
        model,
        one.tokens.astype(np.int32),
        np.where(one.observed, nobody, said.logps).astype(np.float32),
        np.where(one.observed, -1, ids).astype(np.int32),
        np.where(one.observed, nobody, best).astype(np.float32),
        one.steps,
    )
