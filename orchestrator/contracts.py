"""Contracts: what a stage is held to, judged by the document of its handoff. Pure.

An interval of confidence C is two-sided, so that a stage that keeps its bound exactly is called broken, with `when:
shown`, with a chance of at most (1 - C)/2 for each term. Terms are judged one by one: a contract of many terms is
broken by chance more often than one of few.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from orchestrator.handoff_config import SEVERITY, Action, Contract, Figure, Term
from orchestrator.json_lines import plain
from orchestrator.probes.intervals import UNKNOWN, Interval

Bound = Literal["at_least", "at_most", "no_worse_than"]
State = Literal["held", "broken", "undecided", "unmeasured"]
Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Held:
    """What a figure is, which bounds mean something for it, and where the handoff's document has it."""

    meaning: str
    bounds: tuple[Bound, ...]
    least: float
    most: float
    """It lies between these, and so does a bound on it."""
    now: Callable[[Document], Interval]
    change: Callable[[Document], Interval] | None = None
    """Against the policy as the stage found it; None: `no_worse_than` says nothing of this figure."""


def at(*path: str) -> Callable[[Document], Interval]:
    """Reads the interval that stands there; UNKNOWN where the document stops short of it."""

    def read(document: Document) -> Interval:
        found: Any = document
        for key in path:
            found = found.get(key) if isinstance(found, Mapping) else None
        return interval(found)

    return read


def interval(found: Any) -> Interval:
    """An `Interval`, or its JSON with null for NaN; UNKNOWN of anything else."""
    if isinstance(found, Interval):
        return found
    if not isinstance(found, Mapping) or found.get("value") is None:
        return UNKNOWN
    ends = (math.nan if found.get(key) is None else float(found[key]) for key in ("low", "high"))
    return Interval(float(found["value"]), *ends)


def _pass_at(which: Literal["one", "most"], key: str) -> Callable[[Document], Interval]:
    """Of pass@1, or of the largest k that was measured; pass@1 alone is no pass@k."""

    def read(document: Document) -> Interval:
        rows = (document.get("completion") or {}).get("pass_at_k") or []
        wanted = [row for row in rows if (row["k"] == 1) == (which == "one")]
        return interval(max(wanted, key=lambda row: int(row["k"]))[key]) if wanted else UNKNOWN

    return read


RATE = (0.0, 1.0)
FIGURES: dict[Figure, Held] = {
    "retained_support": Held(
        "share of the probe's prompts solved before the stage that are solved after it (SRR)",
        ("at_least",),
        *RATE,
        at("completion", "support", "rates", "srr"),
    ),
    "pass_at_1": Held(
        "mean pass rate of sampled responses to prompts.probe",
        ("at_least", "no_worse_than"),
        *RATE,
        _pass_at("one", "after"),
        _pass_at("one", "change"),
    ),
    "pass_at_k": Held(
        "probability that one of k responses passes, for the largest k measured",
        ("at_least", "no_worse_than"),
        *RATE,
        _pass_at("most", "after"),
        _pass_at("most", "change"),
    ),
    "retention": Held(
        "share of the prompts that earlier stages newly solved which are solved still",
        ("at_least",),
        *RATE,
        at("handoff", "retention", "solved"),
    ),
    "portability": Held(
        "gain on prompts.shifted divided by the gain on prompts.probe",
        ("at_least",),
        -math.inf,
        math.inf,
        at("handoff", "portability", "ratio"),
    ),
    "scaffold_gap": Held(
        "pass rate under handoff.scaffold minus that without it",
        ("at_most",),
        -1.0,
        1.0,
        at("handoff", "scaffold", "after"),
    ),
    "agreement": Held(
        "share of the tokens of the learner's own rollouts at which learner and teacher find the same token likeliest",
        ("at_least",),
        *RATE,
        at("handoff", "fidelity", "agreement"),
    ),
    "teacher_kl": Held(
        "KL(learner || teacher) a token, on the learner's own rollouts",
        ("at_most",),
        0.0,
        math.inf,
        at("handoff", "fidelity", "kl"),
    ),
    "guard": Held(
        "mean pass rate on prompts.guard",
        ("at_least", "no_worse_than"),
        *RATE,
        at("handoff", "forgetting", "pass_rate", "after"),
        at("handoff", "forgetting", "pass_rate", "change"),
    ),
    "forgotten": Held(
        "share of the guard prompts solved at the run's start that are solved no more",
        ("at_most",),
        *RATE,
        at("handoff", "forgetting", "since_start", "share"),
    ),
    "drift": Held(
        "KL(now || as the stage found it) a token, on the policy's own rollouts",
        ("at_most",),
        0.0,
        math.inf,
        at("change", "divergence", "from_before"),
    ),
    "reach": Held(
        "share of the tokens of the bank's good trajectories that the policy writes with probability epsilon or more",
        ("at_least", "no_worse_than"),
        *RATE,
        at("change", "reach", "tokens", "available", "after"),
        at("change", "reach", "tokens", "available", "change"),
    ),
}
"""Every figure that a stage can be held to."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One bound of one term."""

    figure: Figure
    measured: Interval
    """Of `no_worse_than` the change, else the figure itself."""
    bound: Bound
    limit: float
    when: str
    verdict: State
    otherwise: Action

    def said(self) -> str:
        """`pass_at_1 no_worse_than -0.02: -0.08 (-0.11 to -0.05)`."""
        known = "not measured" if not self.measured.known else f"{self.measured.value:.3g}"
        spread = "" if math.isnan(self.measured.low) else f" ({self.measured.low:.3g} to {self.measured.high:.3g})"
        return f"{self.figure} {self.bound} {self.limit:g}: {known}{spread}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A contract, judged."""

    terms: tuple[Judged, ...]
    action: Action | None
    """What is done: the severest of what the broken terms ask for. None: nothing is broken."""
    exhausted: bool = False
    """Whether it would have been repaired, and there is no repair left: then it stops."""

    def of(self, *states: State) -> tuple[Judged, ...]:
        """The terms in one of these states."""
        return tuple(term for term in self.terms if term.verdict in states)


NOTHING = Verdict((), None)
"""Of a stage that is held to nothing."""


def judge(contract: Contract, document: Document, *, repairs_left: int = 0) -> Verdict:
    """Every bound against the handoff's document (its keys completion, change, handoff: intervals, or their JSON).

    `repairs_left`: repair stages that may still be inserted after this stage; without one, what asks for it stops.
    """
    terms = tuple(judged for figure, term in contract.items() for judged in _terms(figure, term, document))
    asked = [term.otherwise for term in terms if term.verdict == "broken"]
    action = max(asked, key=SEVERITY.__getitem__, default=None)
    exhausted = action == "repair" and not repairs_left
    return Verdict(terms, "stop" if exhausted else action, exhausted)


def document(verdict: Verdict) -> dict[str, Any]:
    """JSON values: `terms` [{figure, measured, bound, limit, when, verdict, otherwise}], `action` (null: none) and
    `exhausted` (true: it would be repaired, and no repair is left)."""
    found: dict[str, Any] = plain(
        {"terms": [asdict(term) for term in verdict.terms], "action": verdict.action, "exhausted": verdict.exhausted}
    )
    return found


def _terms(figure: Figure, term: Term, found: Document) -> list[Judged]:
    held, read = FIGURES[figure], []
    for bound in bounds(term):
        reader = held.change if bound == "no_worse_than" else held.now
        measured = UNKNOWN if reader is None else reader(found)
        limit = float(getattr(term, bound))
        read.append(
            Judged(figure, measured, bound, limit, term.when, stands(measured, bound, limit, term.when), term.otherwise)
        )
    return read


WHEN = {
    "shown": "once that is shown",
    "measured": "once it is measured so",
    "possible": "unless it is shown to hold",
}
THEN: dict[Action, str] = {
    "warn": "warn",
    "repair": "repair",
    "roll_back": "go on with the weights that the stage found",
    "stop": "stop with exit code 3",
}


def lines(contract: Contract) -> Iterator[str]:
    """The contract in words: `pass_at_1 no_worse_than -0.02; broken once that is shown: stop with exit code 3`."""
    for figure, term in contract.items():
        for bound in bounds(term):
            limit = float(getattr(term, bound))
            yield f"{figure} {bound} {limit:g}; broken {WHEN[term.when]}: {THEN[term.otherwise]}"


def bounds(term: Term) -> Sequence[Bound]:
    """The bounds that are set."""
    every: tuple[Bound, ...] = ("at_least", "at_most", "no_worse_than")
    return [bound for bound in every if getattr(term, bound) is not None]


def stands(measured: Interval, bound: Bound, limit: float, when: str) -> State:
    """How a bound stands. What is exactly at the bound keeps it."""
    if not measured.known:
        return "unmeasured"
    sign = -1.0 if bound == "at_most" else 1.0
    value, ends = sign * measured.value, sorted((sign * measured.low, sign * measured.high))
    return _kept(value, ends[0], ends[1], sign * limit, when)


def _kept(value: float, worst: float, best: float, limit: float, when: str) -> State:
    """Of a figure of which more is better. Comparisons with NaN are false: an interval without ends shows nothing."""
    match when:
        case "measured":
            return "held" if value >= limit else "broken"
        case "shown" | "possible":
            if worst >= limit:
                return "held"
            return "broken" if best < limit or when == "possible" else "undecided"
        case _:
            raise ValueError(f"when is '{when}'; it is shown, measured or possible")
