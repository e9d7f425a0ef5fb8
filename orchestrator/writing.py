"""A response to be written: what its writer is asked for, and the record that comes of the answer. Pure.

Before the new tokens may stand a hint (the demonstration's first tokens) or an earlier turn. They enter the record as
what they are: hint tokens, the parent's own tokens, environment tokens.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from actors.engine import SampleRequest
from policies.config import Source
from policies.prompt import Prompt
from policies.tokens import Tokenizer
from policies.trajectory import (
    Float32,
    Int32,
    Origin,
    Producer,
    Sampling,
    ScoreEntry,
    Trajectory,
    changed,
    reward,
)
from teachers.contexts import Facts


def nothing() -> Int32:
    """No tokens."""
    return np.zeros(0, np.int32)


FROZEN = ("teacher", "reference")
"""Producers that are frozen models."""


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """One response that a source asks for."""

    name: str
    """The trajectory's id; its seed follows from it."""
    strand: int
    prompt: Prompt
    group: str
    facts: Facts
    """What its contexts were made from."""
    context: Int32
    """Context that the writer sees."""
    hint: Int32 = field(default_factory=nothing)
    """The demonstration's first tokens, where the source has a prefix."""
    parent: Trajectory | None = None
    turn: Int32 = field(default_factory=nothing)
    """Environment tokens between the parent's and the new ones, where the source has a turn."""

    @property
    def before(self) -> Int32:
        """Tokens of the record that stand before the new ones."""
        if len(self.turn) and self.parent is not None:
            return np.concatenate([self.parent.tokens, self.turn])
        return self.hint


def request(draw: Draw, sampling: Sampling, seed: int) -> SampleRequest:
    """What the engine is asked: the context with everything that stands before the new tokens."""
    context = np.concatenate([draw.context, draw.before]) if len(draw.before) else draw.context
    return SampleRequest(draw.name, context, sampling, seed, draw.prompt.id, draw.group)


def record(draw: Draw, source: Source, written: Trajectory, tokenizer: Tokenizer | None) -> Trajectory:
    """The trajectory of a draw. A response without tokens stays as it came, for its reason is in it."""
    one = changed(written, behavior_context=draw.context, train_context=draw.context, teacher_context=draw.context)
    if draw.parent is not None:
        one = changed(one, parent_id=draw.parent.id, producer=Producer.ROLLOUT if source.turn else Producer.REVISION)
    if source.producer in FROZEN:
        one = _of_teacher(one)
    if not len(one.tokens):
        return one
    if len(draw.turn) and draw.parent is not None:
        return _after(one, draw.parent, draw.turn)
    return _hinted(one, draw.hint, source, tokenizer) if len(draw.hint) else one


def judged(one: Trajectory, scores: tuple[ScoreEntry, ...], parent: Trajectory | None) -> Trajectory:
    """The trajectory with what the scorer said beside what is known already; a second turn gets its `turn` entries."""
    said = {entry.name for entry in scores}
    known = tuple(entry for entry in one.scores if entry.start is not None or entry.name not in said)
    scored = changed(one, scores=(*scores, *known))
    turned = parent is not None and np.any(one.origin == Origin.ENVIRONMENT)
    if parent is None or not turned or any(entry.name == "turn" for entry in one.scores):
        return scored  # an environment has said what its turns are worth
    return changed(scored, scores=(*scored.scores, *_turns(scored, parent)))


def _turns(one: Trajectory, parent: Trajectory) -> list[ScoreEntry]:
    """An entry `turn` for each turn: the parent's own, or its reward over its tokens, then this one's reward."""
    earlier = [entry for entry in parent.scores if entry.name == "turn"] or [_turn(parent, 0, len(parent.tokens))]
    after = int(np.flatnonzero(one.origin == Origin.ENVIRONMENT)[-1]) + 1
    return [*earlier, _turn(one, after, len(one.tokens))]


def _turn(one: Trajectory, start: int, end: int) -> ScoreEntry:
    outcome = next((entry for entry in one.scores if entry.name == "reward"), None)
    if outcome is None:
        return ScoreEntry("turn", float("nan"), None, "unscored", start=start, end=end)
    return replace(outcome, name="turn", value=reward(one), start=start, end=end)


def _of_teacher(one: Trajectory) -> Trajectory:
    size = len(one.tokens)
    return changed(
        one,
        producer=Producer.TEACHER,
        version=-1,
        origin=np.full(size, Origin.TEACHER, np.int8),
        token_version=np.full(size, -1, np.int32),
    )


def _hinted(one: Trajectory, hint: Int32, source: Source, tokenizer: Tokenizer | None) -> Trajectory:
    """The hint's tokens at the front: nobody sampled them, so their probability is unknown."""
    told = tokenizer.decode(hint) if tokenizer else ""
    return _joined(
        changed(one, text=told + one.text), hint, np.full(len(hint), Origin.HINT, np.int8), trained=source.hint_trained
    )


def _joined(one: Trajectory, tokens: Int32, origin: np.ndarray, *, trained: bool) -> Trajectory:
    """`tokens` that no policy sampled, then the trajectory's."""
    size = len(tokens)
    return changed(
        one,
        tokens=np.concatenate([tokens, one.tokens]),
        origin=np.concatenate([origin, one.origin]),
        token_version=np.concatenate([np.full(size, -1, np.int32), one.token_version]),
        train_mask=np.concatenate([np.full(size, trained, np.bool_), one.train_mask]),
        behavior_logps=np.concatenate([_unknown(size), one.behavior_logps]),
    )


def _after(one: Trajectory, parent: Trajectory, turn: Int32) -> Trajectory:
    """One record of both turns. Its text is the last answer's, for that is what is judged."""
    second = _joined(one, turn, np.full(len(turn), Origin.ENVIRONMENT, np.int8), trained=False)
    versions = np.concatenate([parent.token_version, second.token_version])
    known = versions[versions >= 0]
    return changed(
        second,
        version=int(known[0]) if len(known) else -1,
        tokens=np.concatenate([parent.tokens, second.tokens]),
        origin=np.concatenate([parent.origin, second.origin]),
        token_version=versions,
        train_mask=np.concatenate([parent.train_mask, second.train_mask]),
        behavior_logps=np.concatenate([parent.behavior_logps, second.behavior_logps]),
    )


def _unknown(size: int) -> Float32:
    return np.full(size, np.nan, np.float32)
