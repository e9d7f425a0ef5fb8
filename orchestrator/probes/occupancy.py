"""State-action occupancy d(s, a): exactly, of policies small enough to enumerate, and estimated from responses.

d(s, a) = E[x ~ prompts, y ~ policy] sum_t eta_t(y) 1{s_t = s, a_t = a}, where s_t = (x, y_<t), a_t = y_t, and the
weights eta_t(y) >= 0 of each response sum to 1 (the survey, arXiv 2604.07941, section 2). So the whole of d is 1.
Effective support at epsilon is {(s, a): d(s, a) >= epsilon}.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scipy import special

from orchestrator.probes.intervals import Interval

Prompt = Hashable
Token = Hashable
Prefix = tuple[Token, ...]
State = tuple[Prompt, Prefix]
StateAction = tuple[Prompt, Prefix, Token]
Chances = Sequence[float] | Mapping[Token, float] | None
Policy = Callable[[Any, Any], Any] | Mapping[Any, Any]
Eta = Callable[[Prefix], Sequence[float]]

SUMS_TO_ONE = 1e-6


def uniform(response: Prefix) -> Sequence[float]:
    """eta_t = 1 / T: each token of a response counts the same, and each response counts 1."""
    return [1 / len(response)] * len(response)


def last(response: Prefix) -> Sequence[float]:
    """eta_T = 1: only what ends a response counts; d(s, a) is then the probability of the whole response."""
    return [0.0] * (len(response) - 1) + [1.0]


@dataclass(frozen=True, slots=True, eq=False)
class Occupancy:
    """What a policy visits under a distribution of prompts."""

    state_action: Mapping[StateAction, float]
    """(prompt, prefix, token) -> d(s, a); absent is 0."""
    state: Mapping[State, float]
    """(prompt, prefix) -> d(s) = sum over a of d(s, a)."""
    trajectories: Mapping[State, float]
    """(prompt, response) -> probability of prompt and response together; these sum to 1."""

    def effective(self, epsilon: float) -> frozenset[StateAction]:
        """Effective support: the (prompt, prefix, token) with d(s, a) >= epsilon."""
        return frozenset(at for at, mass in self.state_action.items() if mass >= epsilon)


@dataclass(frozen=True, slots=True, eq=False)
class Estimated:
    """Occupancy as sampled responses tell it."""

    state_action: Mapping[StateAction, Interval]
    """What was visited at least once."""
    state: Mapping[State, Interval]
    unseen: Mapping[Prompt, float]
    """Prompt -> upper bound of d(s, a) of anything under it that no response visited."""

    def effective(self, epsilon: float) -> frozenset[StateAction]:
        """Those whose estimate is at least epsilon; see `change` for what is certain."""
        return frozenset(at for at, mass in self.state_action.items() if mass.value >= epsilon)


@dataclass(frozen=True, slots=True)
class Regions:
    """Two effective supports against each other."""

    expanded: frozenset[StateAction]
    """In the second only."""
    core: frozenset[StateAction]
    attrited: frozenset[StateAction]
    """In the first only."""
    undecided: frozenset[StateAction] = field(default_factory=frozenset)
    """Visited in either, and the intervals leave open on which side of epsilon it is; empty for exact occupancies."""


def exact(
    policy: Policy,
    prompts: Sequence[Prompt] | Mapping[Any, float],
    horizon: int,
    *,
    end: Token | None = None,
    eta: Eta = uniform,
    most: int = 1_000_000,
) -> Occupancy:
    """Enumerates every response of at most `horizon` tokens and adds up what it visits.

    policy: `policy(prompt, prefix)` -> probabilities of the next token, as a sequence [V] (token = index) or a mapping
        token -> probability; `prefix` is a tuple of tokens. Or a mapping with keys (prompt, prefix), or just prefix for
        a policy that reads no prompt, or prompt -> a mapping with keys prefix.
    prompts: a sequence, each as likely as the other (one that stands twice counts twice), or prompt -> weight; weights
        are divided by their sum.
    A response ends with the token `end` (which belongs to it), where the policy has nothing to say (None, no
        probabilities, a mapping without the key), or at the horizon, whichever is first. The horizon cuts: what is
        longer counts as its first `horizon` tokens.
    eta: response -> its T weights, which sum to 1.
    most: tokens of all responses together, at most; a million take some seconds and some hundred megabytes.

    ValueError: probabilities that are negative or do not sum to 1, no prompts, a horizon below 1, a prompt at which
    the policy writes nothing at all, weights that do not sum to 1, more than `most` tokens.
    """
    if horizon < 1:
        raise ValueError(f"occupancy: horizon is {horizon}; it counts the tokens of the longest response, at least 1")
    state_action: dict[StateAction, float] = {}
    state: dict[State, float] = {}
    trajectories: dict[State, float] = {}
    for prompt, weight, response, chance in _all(policy, weights_of(prompts), horizon, end, most):
        trajectories[prompt, response] = weight * chance
        for t, share in _weighted(eta, response):
            at, mass = (prompt, response[:t]), weight * chance * share
            state[at] = state.get(at, 0.0) + mass
            state_action[*at, response[t]] = state_action.get((*at, response[t]), 0.0) + mass
    return Occupancy(state_action, state, trajectories)


def estimate(
    responses: Mapping[Any, Sequence[Sequence[Any]]],
    *,
    prompts: Mapping[Any, float] | None = None,
    eta: Eta = uniform,
    confidence: float = 0.95,
) -> Estimated:
    """d(s, a) from responses drawn from the policy: prompt -> its responses, each its tokens with the end token.

    `prompts` weighs them (uniform by default); prompts may have different numbers of responses, and one without any
    gives no estimate, only `unseen`. Each interval is Wilson's, of the mean of eta_t(y) 1{visited} over a prompt's
    independent responses: such a mean with first and second moments m and q has the variance of a coin's of bias
    m / r, r = q / m, whose hits count r. It holds for one (s, a) by itself, at `confidence`.
    """
    weights = weights_of(tuple(responses) if prompts is None else prompts)
    actions: dict[StateAction, _Moments] = {}
    states: dict[State, _Moments] = {}
    for prompt in weights:
        for response in map(tuple, responses.get(prompt, ())):
            for t, share in _weighted(eta, response):
                actions.setdefault((prompt, response[:t], response[t]), _Moments()).add(share)
                states.setdefault((prompt, response[:t]), _Moments()).add(share)
    counts = {prompt: len(responses.get(prompt, ())) for prompt in weights}
    z = float(special.ndtri((1 + confidence) / 2))

    def interval(prompt: Prompt, found: _Moments) -> Interval:
        return _wilson(found, counts[prompt], z, weights[prompt])

    return Estimated(
        {key: interval(key[0], found) for key, found in actions.items()},
        {key: interval(key[0], found) for key, found in states.items()},
        {
            prompt: weight * (1 - ((1 - confidence) / 2) ** (1 / counts[prompt]) if counts[prompt] else 1.0)
            for prompt, weight in weights.items()
        },
    )


def change(before: Occupancy | Estimated, after: Occupancy | Estimated, epsilon: float) -> Regions:
    """What `after` reaches and `before` did not, what both reach, and what was lost, at the threshold epsilon.

    Of estimates, only what the intervals of both settle; the rest of what was visited is undecided. Under no change
    each (s, a) is called expanded, and attrited, with at most half of 1 - confidence.
    """
    found: dict[tuple[bool | None, bool | None], set[StateAction]] = {}
    for key in {*before.state_action, *after.state_action}:
        sides = _inside(before, key, epsilon), _inside(after, key, epsilon)
        found.setdefault(sides, set()).add(key)
    undecided = [keys for sides, keys in found.items() if None in sides]
    return Regions(
        frozenset(found.get((False, True), ())),
        frozenset(found.get((True, True), ())),
        frozenset(found.get((True, False), ())),
        frozenset().union(*undecided),
    )


def weights_of(prompts: Sequence[Prompt] | Mapping[Any, float]) -> dict[Prompt, float]:
    """Prompt -> its share of the distribution. ValueError where there is none, or a weight is negative or unknown."""
    raw: dict[Prompt, float] = {}
    for prompt, weight in prompts.items() if isinstance(prompts, Mapping) else ((one, 1.0) for one in prompts):
        if not weight >= 0 or math.isinf(weight):
            raise ValueError(f"occupancy: the weight of prompt {prompt!r} is {weight}; weights are 0 or more")
        raw[prompt] = raw.get(prompt, 0.0) + weight
    whole = math.fsum(raw.values())
    if not whole > 0:
        raise ValueError("occupancy: no prompt has a weight; give at least one")
    return {prompt: weight / whole for prompt, weight in raw.items() if weight > 0}


def _asked(policy: Policy, prompt: Prompt) -> Callable[[Prefix], Chances]:
    if not isinstance(policy, Mapping):
        return lambda prefix: policy(prompt, prefix)
    own: Any = policy.get(prompt)
    places: list[tuple[Mapping[Any, Any], Callable[[Prefix], Any]]] = [(policy, lambda prefix: (prompt, prefix))]
    places += [(own, lambda prefix: prefix)] if isinstance(own, Mapping) else []
    places += [(policy, lambda prefix: prefix)]

    def said(prefix: Prefix) -> Chances:
        found: Chances = next((table[key(prefix)] for table, key in places if key(prefix) in table), None)
        return found

    return said


def _all(
    policy: Policy, weights: Mapping[Prompt, float], horizon: int, end: Token | None, most: int
) -> list[tuple[Prompt, float, Prefix, float]]:
    """Every response to every prompt with its probability; too many are refused before anything is summed."""
    found: list[tuple[Prompt, float, Prefix, float]] = []
    tokens = 0
    for prompt, weight in weights.items():
        for response, chance in _responses(_asked(policy, prompt), horizon, end):
            if not response:
                raise ValueError(f"occupancy: the policy writes nothing at prompt {prompt!r}; give its first token")
            found.append((prompt, weight, response, chance))
            if (tokens := tokens + len(response)) > most:
                raise ValueError(
                    f"occupancy: the responses within {horizon} tokens have more than {most} tokens together; take a "
                    "smaller vocabulary, a shorter horizon or fewer prompts, or estimate from samples"
                )
    return found


def _responses(policy: Callable[[Prefix], Chances], horizon: int, end: Token | None) -> Iterator[tuple[Prefix, float]]:
    """Every response that the policy can write, with its probability, depth first."""
    waiting: list[tuple[Prefix, float]] = [((), 1.0)]
    while waiting:
        prefix, chance = waiting.pop()
        over = len(prefix) >= horizon or (end is not None and prefix[-1:] == (end,))
        following = [] if over else _chances(policy(prefix), prefix)
        if not following:
            yield prefix, chance
        waiting.extend(((*prefix, token), chance * p) for token, p in following if p > 0)


def _chances(said: Chances, prefix: Prefix) -> list[tuple[Token, float]]:
    if said is None or len(said) == 0:
        return []
    pairs = list(said.items()) if isinstance(said, Mapping) else list(enumerate(map(float, said)))
    whole = math.fsum(p for _, p in pairs)
    if not all(p >= 0 for _, p in pairs) or not abs(whole - 1) <= SUMS_TO_ONE:
        raise ValueError(
            f"occupancy: the probabilities after {prefix!r} sum to {whole:g}; they are at least 0 and sum to 1"
        )
    return [(token, p / whole) for token, p in pairs]


def _weighted(eta: Eta, response: Prefix) -> Iterator[tuple[int, float]]:
    """Position and weight of each token that counts."""
    shares = eta(response) if response else ()
    if response and (len(shares) != len(response) or min(shares) < 0 or abs(math.fsum(shares) - 1) > SUMS_TO_ONE):
        raise ValueError(f"occupancy: eta gives {list(shares)} for {len(response)} tokens; one each, which sum to 1")
    yield from ((t, float(share)) for t, share in enumerate(shares) if share > 0)


@dataclass(slots=True)
class _Moments:
    """Sums of what a state-action got from the responses that passed through it, and of the squares."""

    first: float = 0.0
    second: float = 0.0

    def add(self, share: float) -> None:
        self.first += share
        self.second += share * share


def _wilson(found: _Moments, count: int, z: float, weight: float) -> Interval:
    """Of the mean of `count` terms with these sums, the others 0; times weight."""
    scale, mean = found.second / found.first, found.first / count
    p = mean / scale
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(max(p * (1 - p), 0.0) / count + z * z / (4 * count * count))
    return Interval(weight * mean, weight * scale * max(middle - half, 0.0), weight * scale * min(middle + half, 1.0))


def _inside(found: Occupancy | Estimated, key: StateAction, epsilon: float) -> bool | None:
    """Whether d(s, a) >= epsilon; None where that is open."""
    match found:
        case Occupancy():
            return found.state_action.get(key, 0.0) >= epsilon
        case Estimated():
            mass = found.state_action.get(key) or Interval(0.0, 0.0, found.unseen.get(key[0], 1.0))
            return True if mass.low >= epsilon else False if mass.high < epsilon else None
