"""At which steps strands rest by a schedule: found from its breakpoints, so that long stages cost what short ones do.

Between two breakpoints of a curve nobody's coefficient becomes 0 or stops being 0; there only whose turn it is and how
coins fall still change. A stretch in which no outcome of turns and coins fits is passed over as a whole, which is a
proof (but for curves of more than 1e8 steps, whose rounding may reach 0 a little early). In a stretch in which some
outcome fits, steps at which turns change, or all of them where there are coins, are tried by `decide` itself, at most
MOST of them: what is found is certain, and what comes after that many trials is not known.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from orchestrator.controls.config import Alternate, Anneal, Bernoulli, Constant, Control, Mixture
from orchestrator.controls.decide import decide, initial
from orchestrator.controls.moment import Moment

Scheduled = Constant | Mixture | Bernoulli | Alternate | Anneal
"""Controls whose word on a step depends on its number and the seed alone."""

Rest = frozenset[str]

MOST = 10_000
"""Steps that are tried in one stretch; some 50 ms."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """A stage's deterministic schedule."""

    controls: tuple[Scheduled, ...]
    steps: int
    seed: int

    def rest(self, step: int) -> Rest:
        """Who rests at a step, by these controls' word."""
        return _rest(self.controls, step, self.steps, self.seed)

    def first(self, fits: Callable[[Rest], bool], start: int, stop: int, *, doubt: bool = False) -> int | None:
        """The first step of [start, stop) at which those that rest fit; None where none was found.

        `doubt`: a stretch that could not be tried to its end counts as one that fits from its start, so that None is
        certain; without it, a step is.
        """
        turning = [one for one in self.controls if isinstance(one, Alternate | Bernoulli)]
        outcomes = list(itertools.product(*(_outcomes(one) for one in turning)))
        curves = tuple(one for one in self.controls if not isinstance(one, Alternate | Bernoulli))
        cuts = sorted({start, *(cut for one in curves for cut in _cuts(one) if start < cut < stop)})
        for begin, end in zip(cuts, [*cuts[1:], stop], strict=True):
            base = _rest(curves, begin, self.steps, self.seed)
            if begin < end and any(fits(base.union(*one)) for one in outcomes):
                changes = _changes(turning, begin, end)
                tried = itertools.islice(changes, MOST)
                if (found := next((step for step in tried if fits(self.rest(step))), None)) is not None:
                    return found
                if doubt and next(changes, None) is not None:
                    return begin
        return None


def timeline(controls: Sequence[Control], steps: int, seed: int) -> Timeline:
    """The schedule of a stage's controls; `seed` is the stage's."""
    return Timeline(tuple(one for one in controls if isinstance(one, Scheduled)), steps, seed)


def _rest(controls: Sequence[Scheduled], step: int, steps: int, seed: int) -> Rest:
    now = Moment(step, steps, {}, seed)
    said = [decide(control, initial(control), now).coefficients for control in controls]
    return frozenset(name for each in said for name, factor in each.items() if factor == 0.0)


def _cuts(control: Scheduled) -> tuple[int, ...]:
    """Steps from which on other coefficients may be 0 than before."""
    match control:
        case Mixture(warmup=warmup, decay=decay):
            return (1, warmup, warmup + 1, warmup + decay)
        case Anneal(over=over):
            return (1, over)
        case _:
            return ()


def _outcomes(control: Alternate | Bernoulli) -> list[Rest]:
    """Who may rest by it."""
    ours, theirs = frozenset({control.against}), frozenset({control.strand})
    if isinstance(control, Bernoulli) and control.probability in (0.0, 1.0):
        return [ours if control.probability else theirs]
    return [ours, theirs]


def _changes(turning: Sequence[Alternate | Bernoulli], begin: int, end: int) -> Iterator[int]:
    """Steps of [begin, end) at which turns differ from the step before; with coins, all of them."""
    if any(isinstance(one, Bernoulli) and 0.0 < one.probability < 1.0 for one in turning):
        yield from range(begin, end)
        return
    turns = [(one.steps, one.steps + one.against_steps) for one in turning if isinstance(one, Alternate)]
    end = min(end, begin + math.lcm(*(period for _, period in turns)))  # then all of it comes again
    step = begin
    while step < end:
        yield step
        step = min((_next(step, own, period) for own, period in turns), default=end)


def _next(step: int, own: int, period: int) -> int:
    """The first step after `step` at which the turn changes."""
    place = step % period
    return step - place + (own if place < own else period)
