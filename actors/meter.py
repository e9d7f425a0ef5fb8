"""What is computed, and for how long: counted where the roles are asked, for whoever opened a bill.

    with metered() as bill:          a step's collection, its training, a probe: each has its own
        await pool.generate(...)     counts itself on the bill that is open where it was called

A bill follows the calls that are made inside of it, tasks that they start included (contextvars), so that a sampler
that runs ahead and the step in hand never count on each other's. Without a bill nothing is counted.

Counts are of one model's forward pass over whole sequences, as if no engine kept a prefix: of C tokens of context and T
of response C + T - 1 positions are computed, and the head at T of them.
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

from actors.config import Role
from actors.sharding import StepFacts
from policies.example import Example
from policies.trajectory import Int32

Kind = Literal["generate", "score", "train", "interference"]
"""generate: tokens drawn; score: tokens given; train: forward and backward; interference: the same again, for the
strands' own gradients, which update nothing."""

POLICY = "policy"
"""The model in training, as the rollout engines and the learner hold it."""


@dataclass(slots=True)
class Work:
    """Sums over sequences."""

    sequences: int = 0
    positions: int = 0
    """Tokens that the model read."""
    tokens: int = 0
    """Of them, those at which it was asked for the next token: drawn, scored or trained."""
    pairs: int = 0
    """Sum of n (n + 1) / 2 over sequences of n positions: how often a position looked at another, or at itself."""

    def add(self, positions: int, tokens: int) -> None:
        """One sequence."""
        self.sequences += 1
        self.positions += positions
        self.tokens += tokens
        self.pairs += positions * (positions + 1) // 2

    def plus(self, other: "Work") -> None:
        """What another did as well."""
        for name in ("sequences", "positions", "tokens", "pairs"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def as_row(self) -> dict[str, int]:
        """By name."""
        return {name: getattr(self, name) for name in ("sequences", "positions", "tokens", "pairs")}


def joined(rows: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of several `Work.as_row`; empty where nothing was done."""
    whole = Work()
    for row in rows:
        whole.plus(Work(**row))
    return whole.as_row() if whole.sequences else {}


@dataclass(slots=True)
class Bill:
    """What was done while it was open."""

    work: dict[tuple[Role, str, Kind], Work] = field(default_factory=dict)
    """(role, model, kind) -> how much."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Role -> time in which at least one call to it was out."""
    wall: float = math.nan
    """Seconds that it was open; NaN while it is."""
    _out: dict[str, tuple[int, float]] = field(default_factory=dict)

    def of(self, role: Role, model: str, kind: Kind) -> Work:
        """The place of one count."""
        return self.work.setdefault((role, model, kind), Work())

    def begin(self, role: Role) -> None:
        """A call to the role goes out."""
        calls, since = self._out.get(role, (0, 0.0))
        self._out[role] = (calls + 1, since if calls else time.perf_counter())

    def end(self, role: Role) -> None:
        """A call comes back."""
        calls, since = self._out[role]
        self._out[role] = (calls - 1, since)
        if calls == 1:
            self.seconds[role] = self.seconds.get(role, 0.0) + time.perf_counter() - since

    def rows(self) -> list[dict[str, Any]]:
        """The counts as JSON values, by role, model and kind."""
        return [
            {"role": role, "model": model, "kind": kind, **self.work[role, model, kind].as_row()}
            for role, model, kind in sorted(self.work)
        ]


_OPEN: ContextVar[Bill | None] = ContextVar("bill", default=None)


@contextmanager
def metered() -> Iterator[Bill]:
    """A bill for what is asked inside, and for nobody else: an outer bill does not see it."""
    bill, began = Bill(), time.perf_counter()
    before = _OPEN.set(bill)
    try:
        yield bill
    finally:
        _OPEN.reset(before)
        bill.wall = time.perf_counter() - began


@contextmanager
def using(role: Role) -> Iterator[None]:
    """The time of one call to a role."""
    bill = _OPEN.get()
    if bill is None:
        yield
        return
    bill.begin(role)
    try:
        yield
    finally:
        bill.end(role)


def generated(role: Role, model: str, responses: Iterable[tuple[int, int]]) -> None:
    """(tokens of context, tokens drawn) of each response. One that is empty had its context read all the same."""
    if (bill := _OPEN.get()) is not None:
        work = bill.of(role, model, "generate")
        for context, tokens in responses:
            work.add(context + max(tokens, 1) - 1, tokens)


def scored(role: Role, model: str, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> None:
    """Given tokens under a model; nothing is computed of an empty response."""
    if (bill := _OPEN.get()) is not None:
        work = bill.of(role, model, "score")
        for context, one in zip(contexts, tokens, strict=True):
            if len(one):
                work.add(len(context) + len(one) - 1, len(one))


def trained(model: str, examples: Iterable[Example], kind: Literal["train", "interference"] = "train") -> None:
    """Examples that the learner goes forward and backward over: those with a token that trains."""
    if (bill := _OPEN.get()) is not None:
        work = bill.of("learner", model, kind)
        for example in examples:
            one = example.trajectory
            if trains := int(one.train_mask.sum()):
                work.add(len(one.train_context) + len(one.tokens) - 1, trains)


def stepped(model: str, updates: Sequence[Sequence[Sequence[Example]]], facts: StepFacts) -> None:
    """A learner's step over examples as [update][rank]."""
    bill = _OPEN.get()
    if bill is None:
        return
    trained(model, (one for update in updates for share in update for one in share))
    if facts.scored:
        bill.of("learner", model, "score").plus(Work(**facts.scored))
    if facts.interference:  # taken of the first update
        trained(model, (one for share in updates[0] for one in share), "interference")
