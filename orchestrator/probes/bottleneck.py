"""What keeps the policy from solving each prompt, and what holds the model back as a whole.

    unreached_prefix    not solved, and the way of the known good trajectories is never taken: their reach dies over
                        many tokens, or no trajectory is known that could tell
    unavailable_action  not solved, but the way is taken: one or few crucial tokens have too little probability
    unreliable          solved with probability epsilon or more, but not nearly always
    mastered            solved nearly always
    lost                solved at an earlier snapshot and no longer, or mastered then and not half as often now
    undecided           the evidence does not say, at the confidence asked for

The words are those of the control of the same name (`controls.bottleneck`), which decides online and cheaply; its
`unreached` is here told apart into the first two, after the survey's two questions (arXiv 2604.07941): is a useful
prefix reached, and is the useful action available there?

Verdicts become probabilities of classes through the spread of solve rates over all prompts (`probes.mixture`); what
stands in the way of unsolved prompts is exact (`probes.obstacles`). A prompt without a trajectory of its own is taken
to be as those are that have one, where there are any. P = prompts, K = classes, B = resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from orchestrator.probes import mixture
from orchestrator.probes.intervals import UNKNOWN, Interval
from orchestrator.probes.obstacles import Crucial, Obstacle, obstacles
from orchestrator.probes.snapshot import Float64, Int64, Sampled, SetName, Snapshot

Kind = Literal["unreached_prefix", "unavailable_action", "unreliable", "mastered", "lost", "undecided"]
KINDS: tuple[Kind, ...] = get_args(Kind)
BOTTLENECKS: tuple[Kind, ...] = ("unreached_prefix", "unavailable_action", "unreliable", "lost")

RESAMPLES = 200
SEED = 20260407
PAIRS = 6
"""Earlier snapshots that are looked at for what was lost: the newest so many."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Where the classes end, and how sure one has to be."""

    epsilon: float = 0.05
    """Solved: passed with at least this probability."""
    mastered: float = 0.9
    lost: float = 0.5
    """What was mastered is lost below it."""
    confidence: float = 0.95


@dataclass(frozen=True, slots=True)
class Named:
    """One prompt."""

    prompt: str
    family: str
    kind: Kind
    probability: float
    """That the class is this one; of an undecided prompt, of its likeliest class."""
    likeliest: Kind
    n: int
    c: int
    obstacle: Obstacle
    """What stands in the way of its closest known good trajectory."""

    @property
    def crucial(self) -> tuple[Crucial, ...]:
        """The tokens that the policy hardly writes, where these are the bottleneck."""
        return self.obstacle.crucial if self.likeliest == "unavailable_action" else ()


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A checkpoint's bottlenecks."""

    prompts: tuple[Named, ...]
    shares: Mapping[Kind, Interval]
    """Share of the prompts in each class, as the spread has it: not the share that was named so. `undecided` is what
    no evidence of this kind can divide (unsolved, and the reach is between spread and few)."""
    headroom: Mapping[Kind, Interval]
    """pass@1 that would be gained if the class's prompts always passed."""
    bottleneck: Kind | Literal["none"]
    """The class of most headroom; undecided where another may have more; none where nothing is left to gain."""
    pass_at_1: Interval


def diagnose(
    snapshots: Sequence[Snapshot], marks: Marks | None = None, *, name: SetName = "probe", seed: int = 0
) -> Diagnosis:
    """Of the newest snapshot's set `name`; the others, in the order of their steps, say what was lost.

    A set without prompts has unknown shares and an undecided bottleneck. ValueError without a snapshot.
    """
    if not snapshots:
        raise ValueError("diagnose: no snapshot; measure the checkpoint first")
    marks = marks or Marks()
    last = snapshots[-1]
    now = last.sets.get(name)
    if now is None or not now.prompts:
        nothing = dict.fromkeys(KINDS, UNKNOWN)
        return Diagnosis((), nothing, nothing, "undecided", UNKNOWN)
    before = [one.sets[name] for one in snapshots[:-1] if name in one.sets][-PAIRS:]
    in_way = obstacles(last.scored, marks.epsilon)
    ways = [in_way.get(prompt, Obstacle()) for prompt in now.prompts]
    weights = _weights(len(now.prompts), seed)
    split = _split(ways, list(in_way.values()), marks.epsilon, seed)
    classes, gains = (_divided(one, split) for one in _classes(now, before, marks, ways, weights))
    named = tuple(_name(now, at, classes[0, at], ways[at], marks.confidence) for at in range(len(now.prompts)))
    shares, headroom = (_summed(one, weights) for one in (classes, gains))
    level = marks.confidence
    return Diagnosis(
        named,
        {kind: _interval(shares[:, at], level) for at, kind in enumerate(KINDS)},
        {kind: _interval(headroom[:, at], level) for at, kind in enumerate(KINDS)},
        _most(headroom, marks),
        _interval(1.0 - headroom.sum(1), level),
    )


# ---------------------------------------------------------------- prompts


def _name(now: Sampled, at: int, chances_K: Float64, way: Obstacle, confidence: float) -> Named:
    likeliest = KINDS[int(chances_K.argmax())]
    chance = float(chances_K.max())
    kind = likeliest if chance >= confidence else "undecided"
    count = int(now.n_P[at]), int(now.c_P[at])
    return Named(now.prompts[at], now.families[at], kind, chance, likeliest, *count, way)


def _classes(
    now: Sampled, before: Sequence[Sampled], marks: Marks, ways: Sequence[Obstacle], weights_BP: Float64
) -> tuple[Float64, Float64]:
    """[1 + B, P, 4] as `_pair`, over all earlier snapshots; row 0 is the fit itself.

    Each earlier snapshot makes a pair with the present one; a prompt is told by the pair in which it looks most lost.
    """
    pairs = [None, *(_matched(one, now) for one in before)]
    if len(pairs) > 1:
        pairs = pairs[1:]
    least = np.array([0.0 if np.isnan(way.reach) else way.reach for way in ways])
    found = [_pair((now.n_P, now.c_P), pair, marks, least, weights_BP) for pair in pairs]
    told_BPQM = np.stack([one[0] for one in found], axis=2)
    gain_BPQM = np.stack([one[1] for one in found], axis=2)
    most = told_BPQM[..., LOST].argmax(axis=2)[..., None, None]
    told, gain = (np.take_along_axis(one, most, 2)[:, :, 0] for one in (told_BPQM, gain_BPQM))
    return told, gain


UNSOLVED, UNRELIABLE, MASTERED, LOST = range(4)


def _pair(
    now: tuple[Int64, Int64],
    earlier: tuple[Int64, Int64] | None,
    marks: Marks,
    least_P: Float64,
    weights_BP: Float64,
) -> tuple[Float64, Float64]:
    """[1 + B, P, 4] probability of UNSOLVED, UNRELIABLE, MASTERED, LOST; and the same times (1 - solve rate)."""
    grid = mixture.cells((marks.epsilon, marks.lost, marks.mastered), pairs=earlier is not None)
    like = mixture.likelihood(grid, now, earlier, least_P)
    like, alike_P = np.unique(like, axis=0, return_inverse=True)  # prompts with the same counts are told as one
    each = np.eye(len(like))[alike_P]
    whole = mixture.fit(like, grid.prior_G, each.sum(axis=0))
    refitted = mixture.refit(like, grid.prior_G, weights_BP @ each, whole, np.random.default_rng(SEED))
    spreads = np.concatenate([whole[None], refitted])
    rate, past = grid.now_G, np.nan_to_num(grid.earlier_G, nan=0.0)
    lost = ((past >= marks.epsilon) & (rate < marks.epsilon)) | ((past >= marks.mastered) & (rate < marks.lost))
    unsolved, mastered = (rate < marks.epsilon) & ~lost, rate >= marks.mastered
    masks = np.stack([unsolved, ~(unsolved | mastered | lost), mastered, lost], axis=1).astype(float)
    both = np.concatenate([masks, masks * (1.0 - rate)[:, None]], axis=1)
    told_BP = spreads @ like.T
    found = np.stack([(spreads * one) @ like.T for one in both.T], axis=2) / told_BP[..., None]
    return found[:, alike_P, :4], found[:, alike_P, 4:]


def _matched(one: Sampled, now: Sampled) -> tuple[Int64, Int64]:
    """(n, c) of an earlier set in the order of this one; a prompt that it lacks has n = 0."""
    place = {prompt: at for at, prompt in enumerate(one.prompts)}
    at_P = np.array([place.get(prompt, -1) for prompt in now.prompts])
    n, c = (np.where(at_P >= 0, counts[at_P], 0) for counts in (one.n_P, one.c_P))
    return n, c


PARTS: tuple[Kind, ...] = ("unreached_prefix", "unavailable_action", "undecided")
"""What unsolved prompts are divided into."""


def _split(ways: Sequence[Obstacle], bank: Sequence[Obstacle], epsilon: float, seed: int) -> Float64:
    """[1 + B, P, 3] the PARTS that an unsolved prompt belongs to.

    Of a prompt without a trajectory of its own: the shares among the bank's trajectories that are not reached, drawn
    anew for each resample (Jeffreys' prior); without a bank nothing speaks for any reach.
    """
    found = np.zeros((1 + RESAMPLES, len(ways), len(PARTS)))
    dead = [_part(way) for way in bank if way.reach < epsilon]
    others = np.eye(len(PARTS))[np.zeros(1 + RESAMPLES, int)]
    if any(way.shape != "unknown" for way in bank):
        counts = np.bincount(np.array(dead, int), minlength=len(PARTS)) + 0.5
        drawn = np.random.default_rng(seed).dirichlet(counts, RESAMPLES)
        others = np.concatenate([counts[None] / counts.sum(), drawn])
    for at, way in enumerate(ways):
        found[:, at] = others if way.shape == "unknown" else np.eye(len(PARTS))[_part(way)]
    return found


def _part(way: Obstacle) -> int:
    kinds: dict[str, Kind] = {"few": "unavailable_action", "unclear": "undecided"}
    return PARTS.index(kinds.get(way.shape, "unreached_prefix"))


def _divided(told_BPM: Float64, split_BPS: Float64) -> Float64:
    """[1 + B, P, K]: what is unsolved goes to its parts."""
    found = np.zeros((*told_BPM.shape[:2], len(KINDS)))
    found[..., [KINDS.index(kind) for kind in PARTS]] = told_BPM[..., UNSOLVED, None] * split_BPS
    rest: tuple[tuple[int, Kind], ...] = ((UNRELIABLE, "unreliable"), (MASTERED, "mastered"), (LOST, "lost"))
    for mass, kind in rest:
        found[..., KINDS.index(kind)] = told_BPM[..., mass]
    return found


# ---------------------------------------------------------------- all of them


def _weights(prompts: int, seed: int) -> Float64:
    """[B, P] how often each prompt is drawn, in resamples of the prompts."""
    draws = np.random.default_rng(seed)
    return draws.multinomial(prompts, np.full(prompts, 1.0 / prompts), RESAMPLES).astype(float)


def _summed(each_BPK: Float64, weights_BP: Float64) -> Float64:
    """[1 + B, K] means over the prompts: all of them in row 0, then each resample."""
    first = each_BPK[:1].mean(axis=1)
    others = np.einsum("bp,bpk->bk", weights_BP, each_BPK[1:]) / weights_BP.shape[1]
    return np.concatenate([first, others])


def _interval(told_B: Float64, confidence: float) -> Interval:
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(told_B[1:], [tail, 1.0 - tail])
    value = float(told_B[0])
    return Interval(value, min(float(low), value), max(float(high), value))


def _most(headroom_BK: Float64, marks: Marks) -> Kind | Literal["none"]:
    """The class of most headroom, where no other has as much even with all that is undecided added to it."""
    whole = headroom_BK.sum(axis=1)
    if np.quantile(whole[1:], marks.confidence) <= 1.0 - marks.mastered:
        return "none"
    own = headroom_BK[:, [KINDS.index(kind) for kind in BOTTLENECKS]]
    unknown = headroom_BK[:, KINDS.index("undecided")]
    first = int(own[0].argmax())
    others = np.delete(own, first, axis=1).max(axis=1) + unknown
    ahead = own[1:, first] > others[1:]
    return BOTTLENECKS[first] if ahead.mean() >= marks.confidence else "undecided"
