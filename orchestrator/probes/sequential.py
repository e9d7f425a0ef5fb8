"""Draws that stop once a prompt's answer is clear, and figures that stay right although they stopped.

A plan says after how many verdicts a prompt is looked at, and the counts of passes that end its draws there. All that a
count may mean after that follows from how many orders of passes and failures lead to it under the plan (path counting:
Girshick, Mosteller and Savage, 1946): unbiased pass@k, and exact tail probabilities in the stage-wise order (Jennison
and Turnbull, Group Sequential Methods, 2000, chapter 8). A fixed number of samples is the plan with one look.
O = outcomes, the ways draws can end; G = pass probabilities; P = prompts.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from orchestrator.probes.snapshot import Float64, Int64, Sampled
from policies.bad_input import BadInput

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """The ways a prompt's draws can end, from the least able to the most able: first those that stop low, the earlier
    the lower; then those that never stop early, by their passes; last those that stop high, the earlier the higher.
    A larger pass probability makes each tail {at least this outcome} likelier, so that tails give exact tests."""

    n_O: Int64
    """Verdicts."""
    c_O: Int64
    """Passes."""
    log_paths_O: Float64
    """Log of the number of orders of passes and failures that end so."""

    def chances(self, p_G: Float64) -> Float64:
        """[O, G]: probability of each outcome where a response passes with probability p; columns sum to 1."""
        with np.errstate(divide="ignore", invalid="ignore"):
            passes = np.where(self.c_O[:, None] == 0, 0.0, self.c_O[:, None] * np.log(p_G))
            fails = np.where((self.n_O == self.c_O)[:, None], 0.0, (self.n_O - self.c_O)[:, None] * np.log1p(-p_G))
        chances: Float64 = np.exp(self.log_paths_O[:, None] + passes + fails)
        return chances

    def at_least(self, p_G: Float64) -> Float64:
        """[O, G]: probability of this outcome or a more able one."""
        tails: Float64 = np.cumsum(self.chances(p_G)[::-1], axis=0)[::-1]
        return np.minimum(tails, 1.0)

    def at_most(self, p_G: Float64) -> Float64:
        """[O, G]: probability of this outcome or a less able one."""
        return np.minimum(np.cumsum(self.chances(p_G), axis=0), 1.0)

    def place(self, n_P: Int64, c_P: Int64) -> Int64:
        """[P]: index of each prompt's outcome; -1 where the draws cannot end so."""
        width = int(self.n_O.max()) + 1
        keys = self.n_O * width + self.c_O
        order = np.argsort(keys)
        wanted = np.where((n_P < width) & (c_P < width), n_P * width + c_P, -1)
        at = order[np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)]
        place: Int64 = np.where(keys[at] == wanted, at, -1)
        return place


@dataclass(frozen=True, slots=True)
class Plan:
    """When draws for a prompt may end. Hashable; two equal plans are the same design."""

    looks: tuple[int, ...]
    """Verdicts at which a prompt is looked at, rising; none draws more than the last."""
    low: tuple[int, ...]
    """At each look: this many passes or fewer end the draws, -1 never does."""
    high: tuple[int, ...]
    """At each look: this many passes or more end the draws, more than the look never does."""

    @staticmethod
    def fixed(samples: int) -> "Plan":
        """So many draws, whatever they show."""
        return Plan((samples,), (-1,), (samples + 1,))

    def stopped(self, n_P: Int64, c_P: Int64) -> Bools:
        """[P]: whether a prompt with n verdicts of which c passed needs no more. Between looks nothing stops: a prompt
        whose verdicts are late or unknown is looked at once it has as many as a look asks for."""
        done: Bools = np.asarray(n_P) >= self.looks[-1]
        for look, low, high in zip(self.looks, self.low, self.high, strict=True):
            done |= (n_P == look) & ((c_P <= low) | (c_P >= high))
        return done

    def counted(self, passed_P: Sequence[Sequence[bool]]) -> tuple[Int64, Int64]:
        """([P] n, [P] c): the verdicts up to where the plan ends each prompt's draws, in the order of the draws. What
        came later is left out: counting it would bias every figure. Prompts that have too few verdicts to end
        (unknown ones, a probe cut off) count with all they have; their design is `until(n)`."""
        totals = [np.concatenate([[0], np.cumsum(np.asarray(one, np.int64))]) for one in passed_P]
        ends = [next((n for n in self.looks if n < len(t) and self._ends(n, int(t[n]))), len(t) - 1) for t in totals]
        c = [int(total[end]) for total, end in zip(totals, ends, strict=True)]
        return np.array(ends, np.int64), np.array(c, np.int64)

    def _ends(self, n: int, c: int) -> bool:
        at = self.looks.index(n)
        return n == self.looks[-1] or c <= self.low[at] or c >= self.high[at]

    def until(self, n: int) -> "Plan":
        """The same plan for a prompt that gave only n verdicts: its earlier looks, and a last one at n."""
        at = sum(look < n for look in self.looks)
        return Plan((*self.looks[:at], n), (*self.low[:at], -1), (*self.high[:at], n + 1))

    def outcomes(self) -> Outcomes:
        """Every way the draws of a prompt can end."""
        return _outcomes(self)

    def pass_at_k(self, k: int) -> Float64:
        """[O]: the unbiased estimate of pass@k that each outcome gives: the share of its orders whose first k draws
        hold a pass. Draws that stopped high before k hold one. NaN throughout where draws can stop without a pass
        before k: then nothing estimates it."""
        if k < 1:
            raise ValueError(f"pass@k: k is {k}; it must be 1 or more")
        return _pass_at_k(self, k)

    def begins(self, draws: int, passes: int) -> Float64:
        """[O]: the share of each outcome's orders whose first draws hold so many passes, in one given order of these;
        draws must not outlast the first look that can stop with so many."""
        return _begins(self, draws, passes)


@functools.lru_cache(maxsize=256)
def _outcomes(plan: Plan) -> Outcomes:
    if len(plan.looks) == 1:
        total, passes = plan.looks[0], np.arange(plan.looks[0] + 1)
        paths = special.gammaln(total + 1) - special.gammaln(passes + 1) - special.gammaln(total - passes + 1)
        return Outcomes(np.full(total + 1, total), passes, paths)
    ends = _in_order(plan)
    counts = _walk(plan, 0, 0)
    log_paths = np.array([counts[at][c] for at, c in ends])
    keep = np.isfinite(log_paths)
    n = np.array([plan.looks[at] for at, _ in ends], np.int64)
    return Outcomes(n[keep], np.array([c for _, c in ends], np.int64)[keep], log_paths[keep])


@functools.lru_cache(maxsize=256)
def _pass_at_k(plan: Plan, k: int) -> Float64:
    of = plan.outcomes()
    if np.any((of.c_O == 0) & (of.n_O < k)):
        return np.full(len(of.n_O), np.nan)
    return 1.0 - plan.begins(k, 0)


@functools.lru_cache(maxsize=512)
def _begins(plan: Plan, draws: int, passes: int) -> Float64:
    of = plan.outcomes()
    if len(plan.looks) == 1:  # C(n - draws, c - passes) / C(n, c)
        left, more = plan.looks[0] - draws, of.c_O - passes
        fits = (more >= 0) & (more <= left)
        ways = special.gammaln(left + 1) - special.gammaln(more[fits] + 1) - special.gammaln(left - more[fits] + 1)
        share = np.zeros(len(of.c_O))
        share[fits] = np.exp(ways - of.log_paths_O[fits])
        return share
    ends, every, some = _in_order(plan), _walk(plan, 0, 0), _walk(plan, draws, passes)
    return np.array([np.exp(some[at][c] - every[at][c]) for at, c in ends if np.isfinite(every[at][c])])


def _in_order(plan: Plan) -> list[tuple[int, int]]:
    """(look, passes) of all ends, in the stage-wise order."""
    last = len(plan.looks) - 1
    lows = [(at, c) for at in range(last) for c in range(plan.low[at] + 1)]
    highs = [(at, c) for at in reversed(range(last)) for c in range(plan.high[at], plan.looks[at] + 1)]
    return [*lows, *((last, c) for c in range(plan.looks[last] + 1)), *highs]


def _walk(plan: Plan, draws: int, passes: int) -> list[Float64]:
    """For each look, by passes [look + 1]: log of the orders that go on until this look, those that end there
    included, and begin with one given order of so many draws and passes."""
    alive, drawn, reached = np.zeros(1), 0, []
    for at, look in enumerate(plan.looks):
        for draw in range(drawn, look):
            failed, passed = np.append(alive, -np.inf), np.insert(alive, 0, -np.inf)
            given = passed if draw < passes else failed  # the passes of the given order come first
            alive = given if draw < draws else np.logaddexp(failed, passed)
        reached.append(alive)
        c = np.arange(look + 1)
        alive = np.where((c <= plan.low[at]) | (c >= plan.high[at]), -np.inf, alive)
        drawn = look
    return reached


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """Verdicts and passes of each prompt, and the plan that ended the draws (None: n did not depend on them)."""

    n_P: Int64
    c_P: Int64
    plan: Plan | None = None

    def designs(self, who_P: Bools | None = None) -> list[tuple[Plan, Int64]]:
        """The designs that ended prompts' draws, and the prompts of each; prompts without verdicts have none. A prompt
        with fewer verdicts than the plan asks for has the plan up to these."""
        length_P = self.n_P
        if self.plan is not None:
            ended = self.plan.outcomes().place(self.n_P, self.c_P) >= 0
            length_P = np.where(ended, self.plan.looks[-1], self.n_P)
        who_P = self.n_P > 0 if who_P is None else who_P & (self.n_P > 0)
        return [
            (Plan.fixed(n) if self.plan is None else self.plan.until(n), np.flatnonzero(who_P & (length_P == n)))
            for n in np.unique(length_P[who_P]).tolist()
        ]

    def rows(self, at: Int64) -> "Counts":
        """The counts of some prompts, in that order."""
        return Counts(self.n_P[at], self.c_P[at], self.plan)


def counts(sampled: Sampled, plan: Plan | None = None) -> Counts:
    """The verdicts that count: all, or those up to where the plan that drew them ends a prompt's draws."""
    if plan is None or len(plan.looks) == 1:
        return Counts(np.asarray(sampled.n_P, np.int64), np.asarray(sampled.c_P, np.int64))
    return Counts(*plan.counted(sampled.passed_P), plan)


def matched(before: Sampled, after: Sampled) -> tuple[Int64, Int64]:
    """The rows of the prompts that both have, by id, in the order of `before`."""
    place = {name: at for at, name in enumerate(after.prompts)}
    both = [(at, place[name]) for at, name in enumerate(before.prompts) if name in place]
    return np.array([one for one, _ in both], np.int64), np.array([other for _, other in both], np.int64)


def plan(samples: int, epsilon: float, confidence: float, *, prompts: int = 256, first: int = 8) -> Plan:
    """At most `samples` draws a prompt, looked at after `first` of them and at each doubling.

    Draws stop high where the prompt is in effective support (probability to pass at least epsilon) beyond doubt: in so
    few draws so many passes that even next to `prompts` others the change from a prompt without any pass is shown
    (`support.compare`). They stop low where it is outside: so few passes that epsilon is refuted. The looks share the
    error that is allowed, so that all of them together keep to 1 - confidence. A larger `first` costs draws on
    mastered prompts and narrows the interval of these prompts' mean pass rate, which is about that of a fixed `first`.
    BadInput names a value out of range.
    """
    _refuse_bad(samples, epsilon, confidence, first, prompts)
    looks, alpha = _looks(samples, first), 1.0 - confidence
    low = _lows(looks, epsilon, alpha)
    never = Plan(looks, low, tuple(look + 1 for look in looks))
    return Plan(looks, low, _highs(never, floor(never, epsilon, alpha), epsilon, alpha, alpha / (2 * prompts)))


EARLY = 0.9
"""Share of the error that looks before the last may spend on ends that are low."""
GRID: Float64 = np.sin(np.linspace(0.0, np.pi / 2, 2001)) ** 2
"""Pass probabilities, dense at both ends."""


def steepest(falling_G: Float64, rising_G: Float64) -> float:
    """An upper bound, within a few percent, of the greatest product of a falling and a rising function of p, both given
    on GRID: between two points neither exceeds its value at one end."""
    return float(np.max(falling_G[:-1] * rising_G[1:]))


@functools.lru_cache(maxsize=1024)
def reaching(design: Plan, at: int) -> Float64:
    """[GRID]: probability of outcome `at` or a more able one."""
    if len(design.looks) == 1:  # the binomial tail, without a table for every outcome
        return np.ones_like(GRID) if at == 0 else np.asarray(special.bdtrc(at - 1, design.looks[0], GRID))
    tail: Float64 = design.outcomes().at_least(GRID)[at]
    return tail


@functools.lru_cache(maxsize=1024)
def floor(design: Plan, epsilon: float, alpha: float) -> Float64:
    """[GRID]: probability of the outcomes that refute epsilon at alpha, or of the lowest one where none does."""
    of = design.outcomes()
    size = max(int(np.sum(of.at_most(np.array([epsilon]))[:, 0] <= alpha)), 1)
    if len(design.looks) == 1:
        return np.asarray(special.bdtr(size - 1, design.looks[0], GRID))
    lowest = Outcomes(of.n_O[:size], of.c_O[:size], of.log_paths_O[:size])
    total: Float64 = lowest.chances(GRID).sum(0)
    return total


def _lows(looks: tuple[int, ...], epsilon: float, alpha: float) -> tuple[int, ...]:
    """At each look but the last, as many passes as refute epsilon, all looks together at EARLY x alpha."""
    low, spent = [-1] * len(looks), 0.0
    for at in range(len(looks) - 1):
        chance_C = _arriving(looks, low, [look + 1 for look in looks], at).chances(np.array([epsilon]))[:, 0]
        total_C = spent + np.cumsum(chance_C)
        low[at] = int(np.sum(total_C <= EARLY * alpha)) - 1
        spent = float(total_C[low[at]]) if low[at] >= 0 else spent
    return tuple(low)


def _highs(plan: Plan, absent_G: Float64, epsilon: float, alpha: float, unchanged: float) -> tuple[int, ...]:
    """At each look but the last, as few passes as show both that epsilon is reached, and a rise from the outcomes whose
    probability is `absent_G`. Early looks may spend more than their share: there most prompts end."""
    high, ended_G, ended = list(plan.high), np.zeros_like(GRID), 0.0
    for at, look in enumerate(plan.looks[:-1]):
        part = float(np.sqrt((at + 1) / len(plan.looks)))
        here = _arriving(plan.looks, plan.low, high, at)
        more, more_G = ended, ended_G
        for c in range(look, max(plan.low[at], 0), -1):
            one = Outcomes(here.n_O[c : c + 1], here.c_O[c : c + 1], here.log_paths_O[c : c + 1])
            more = more + float(one.chances(np.array([epsilon]))[0, 0])
            more_G = more_G + one.chances(GRID)[0]
            if more > part * alpha or steepest(absent_G, more_G) > part * unchanged:
                break
            high[at], ended, ended_G = c, more, more_G
    return tuple(high)


def _arriving(looks: Sequence[int], low: Sequence[int], high: Sequence[int], at: int) -> Outcomes:
    """What a prompt can show at a look that it arrives at, by passes."""
    alive = _walk(Plan(tuple(looks[: at + 1]), tuple(low[: at + 1]), tuple(high[: at + 1])), 0, 0)[-1]
    return Outcomes(np.full(looks[at] + 1, looks[at]), np.arange(looks[at] + 1), alive)


def _looks(samples: int, first: int) -> tuple[int, ...]:
    doubling = [first << at for at in range(max(1, samples).bit_length()) if first << at < samples]
    return (*doubling, samples)


def _refuse_bad(samples: int, epsilon: float, confidence: float, first: int, prompts: int) -> None:
    if min(samples, first, prompts) < 1:
        raise BadInput((f"plan: samples, first and prompts must be 1 or more (got {samples}, {first}, {prompts})",))
    for name, value in (("epsilon", epsilon), ("confidence", confidence)):
        if not 0.0 < value < 1.0:
            raise BadInput((f"plan: {name} must lie between 0 and 1 (got {value})",))
