"""Groups with every view, and what the papers' estimators make of them: shared by the tests and the mutants."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np

from policies.config import (
    Credit,
    Gae,
    GroupCredit,
    Overlong,
    PartCredit,
    ProcessCredit,
    SignCredit,
    TeacherGap,
    TurnCredit,
)
from policies.credit import Views
from policies.trajectory import Origin, Sampling, ScoreEntry, Trajectory
from tests import oracles_credit as papers
from tests.test_trajectory import trajectory


def scored(value: float, size: int = 3, **fields: object) -> Trajectory:
    """A rollout with this reward; NaN is a time-out."""
    status = "timeout" if math.isnan(value) else "ok"
    return trajectory(size, **{"scores": (ScoreEntry("reward", value, status=status),), **fields})


def with_gap(value: float, size: int, gap: tuple[int, ...], seed: int, **fields: object) -> Trajectory:
    """A rollout whose tokens at `gap` an environment wrote, with random log-probabilities elsewhere."""
    origin, version = np.zeros(size, np.int8), np.full(size, 3, np.int32)
    logps = np.random.default_rng(seed).normal(-1.5, 0.5, size).astype(np.float32)
    for t in gap:
        origin[t], version[t], logps[t] = Origin.ENVIRONMENT, -1, np.nan
    return scored(
        value,
        size,
        **{
            "id": f"t{seed}",
            "origin": origin,
            "token_version": version,
            "train_mask": origin == Origin.LEARNER,
            "behavior_logps": logps,
            **fields,
        },
    )


REWARDS = [1.0, 0.0, 0.25, 1.0, 0.5]
SIZES = [4, 6, 3, 5, 7]
GAPS: list[tuple[int, ...]] = [(), (2, 3), (0,), (), (1, 6)]
GROUP = [with_gap(*row, seed) for seed, row in enumerate(zip(REWARDS, SIZES, GAPS, strict=True))]
MASKS = [[int(m) for m in one.train_mask] for one in GROUP]
LENGTHS = [sum(mask) for mask in MASKS]


def _view(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(-1.5, 0.5, size).astype(np.float32)


VIEWS = [
    Views(teacher_logps=_view(10 + i, n), reference_logps=_view(20 + i, n), values=_view(30 + i, n))
    for i, n in enumerate(SIZES)
]


def lists(name: str) -> list[list[float]]:
    """A view of every member in plain numbers."""
    return [[float(x) for x in getattr(views, name)] for views in VIEWS]


BEHAVIOR = [[float(x) for x in one.behavior_logps] for one in GROUP]
TEACHER, REFERENCE, VALUES = lists("teacher_logps"), lists("reference_logps"), lists("values")
ALL = range(len(GROUP))


@dataclass(frozen=True)
class Case:
    """A credit, its group, and the advantages of each trained token that the oracle gives (or one number for all)."""

    credit: Credit
    want: Sequence[float | Sequence[float]]
    group: Sequence[Trajectory] = field(default_factory=lambda: GROUP)
    views: Sequence[Views] = field(default_factory=lambda: VIEWS)
    targets: Sequence[Sequence[float]] | None = None


def spans(name: str, *rows: tuple[int, int, float] | tuple[int, int, float, bool]) -> tuple[ScoreEntry, ...]:
    return tuple(ScoreEntry(name, row[2], row[3] if len(row) > 3 else None, start=row[0], end=row[1]) for row in rows)


# ---------------------------------------------------------------- groups


def whole(kl: float) -> list[float]:
    """Each reward less its response's penalty."""
    return [papers.penalised(REWARDS[i], kl, BEHAVIOR[i], REFERENCE[i], MASKS[i]) for i in ALL]


def suffixes(rewards: Sequence[float], kl: float) -> list[list[float]]:
    return [papers.reinforce_pp(rewards[i], kl, BEHAVIOR[i], REFERENCE[i], MASKS[i]) for i in ALL]


def greedy_group() -> list[Trajectory]:
    """An engine need not give the same greedy response twice: the first one is the baseline, neither is compared."""
    return [
        scored(1.0, id="a", sampling=Sampling(temperature=1.0)),
        scored(0.25, id="greedy", sampling=Sampling(temperature=0.0)),
        scored(0.0, id="b", sampling=Sampling(temperature=0.7)),
        scored(0.5, id="again", sampling=Sampling(temperature=0.0)),
    ]


def family() -> list[Trajectory]:
    """Two critiques, their corrections, and an orphan."""
    born = [("c1", "p1", 1.0), ("c2", "p1", 0.0), ("c3", "p2", 1.0), ("c4", "p2", math.nan)]
    parents = [scored(0.0, id="p1"), scored(0.5, id="p2")]
    return [*parents, *(scored(value, id=name, parent_id=parent) for name, parent, value in born)]


LONG = [scored(1.0, size) for size in (2, 4, 5, 6, 9)]


def overlong_want() -> list[float]:
    return papers.dr_grpo([1.0 + papers.dapo_overlong(size, 6, 3) for size in (2, 4, 5, 6, 9)])


GROUP_CASES = {
    "grpo": Case(GroupCredit(scale="std", eps=0.1), papers.grpo(REWARDS, 0.1)),
    "dr_grpo": Case(GroupCredit(), papers.dr_grpo(REWARDS)),
    "rloo": Case(GroupCredit(baseline="leave_one_out"), papers.rloo(REWARDS)),
    "rloo with KL": Case(GroupCredit(baseline="leave_one_out", kl=0.3), papers.rloo(whole(0.3))),
    "opo": Case(GroupCredit(baseline="length_mean"), papers.opo(REWARDS, LENGTHS)),
    "maxrl": Case(GroupCredit(scale="mean"), papers.maxrl(REWARDS)),
    "remax": Case(GroupCredit(baseline="greedy"), [0.75, 0.0, -0.25, 0.0], greedy_group(), ()),
    "reinforce_pp": Case(GroupCredit(baseline="zero", kl=0.3, kl_spread="suffix"), suffixes(REWARDS, 0.3)),
    "reinforce_pp with a baseline": Case(
        GroupCredit(kl=0.3, kl_spread="suffix"), suffixes(papers.dr_grpo(REWARDS), 0.3)
    ),
    "overlong": Case(GroupCredit(overlong=Overlong(length=6, cache=3)), overlong_want(), LONG, ()),
    "children": Case(GroupCredit(value="children"), [-0.25, 0.25, 0.0, 0.0, 0.0, 0.0], family(), ()),
    "sign": Case(SignCredit(threshold=0.5), [1.0, -1.0, -1.0, 1.0, -1.0]),
}


# ---------------------------------------------------------------- tokens


def gaps(lam: float) -> list[list[float]]:
    return [
        [papers.exopd(b, t, r, lam) for b, t, r in zip(BEHAVIOR[i], TEACHER[i], REFERENCE[i], strict=True)] for i in ALL
    ]


def plus(rows: Sequence[Sequence[float]], added: Sequence[float], scale: float = 1.0) -> list[list[float]]:
    return [[scale * value + more for value in row] for row, more in zip(rows, added, strict=True)]


def gae_want(gamma: float, lam: float, kl: float) -> list[tuple[list[float], list[float]]]:
    rewards = [papers.ppo_rewards(REWARDS[i], kl, BEHAVIOR[i], REFERENCE[i], MASKS[i]) for i in ALL]
    return [papers.gae(rewards[i], VALUES[i], MASKS[i], gamma, lam) for i in ALL]


TOKEN_CASES = {
    "opd": Case(TeacherGap(scale=2.0), plus(gaps(1.0), [0.0] * 5, 2.0)),
    "exopd": Case(TeacherGap(extrapolation=1.25), gaps(1.25)),
    "minillm": Case(TeacherGap(spread="suffix_mean"), [papers.minillm(gaps(1.0)[i], MASKS[i]) for i in ALL]),
    "opd with an outcome": Case(
        TeacherGap(scale=0.5, outcome=2.0), plus(gaps(1.0), [2 * a for a in papers.dr_grpo(REWARDS)], 0.5)
    ),
    "gae": Case(
        Gae(gamma=0.9, lam=0.8, kl=0.3),
        [advantages for advantages, _ in gae_want(0.9, 0.8, 0.3)],
        targets=[returns for _, returns in gae_want(0.9, 0.8, 0.3)],
    ),
}


# ---------------------------------------------------------------- spans

STEPPED = [
    scored(1.0, 5, scores=(ScoreEntry("reward", 1.0), *spans("step", (0, 2, 0.9), (3, 5, 0.2)))),
    scored(0.0, 4, scores=(ScoreEntry("reward", 0.0), *spans("step", (2, 4, -0.5), (0, 2, 0.6)))),
]
"""The first has a token between its steps; the second's steps stand out of order."""

ENDS = [[(1, 0.9), (4, 0.2)], [(1, 0.6), (3, -0.5)]]


def pav_want() -> list[list[float]]:
    a, b = papers.pav([1.0, 0.0], [[0.9, 0.0, 0.2], [0.6, -0.5]], 3.0)
    return [[a[0], a[0], a[1], a[2], a[2]], [b[0], b[0], b[1], b[1]]]


TURNS = [
    scored(0.0, 4, scores=spans("turn", (2, 4, r2), (0, 2, r1)))  # in no order
    for r1, r2 in ((0.0, 1.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0))
]


def turn_want(bonus: float, first: float, baseline: bool) -> list[list[float]]:
    worth = [papers.score_turns(r1, r2, bonus) for r1, r2 in ((0, 1), (1, 1), (1, 0), (0, 1))]
    firsts, seconds = [first * one for one, _ in worth], [two for _, two in worth]
    if baseline:
        firsts, seconds = papers.dr_grpo(firsts), papers.dr_grpo(seconds)
    return [[a, a, b, b] for a, b in zip(firsts, seconds, strict=True)]


RIGHT = [
    [(1.0, True), (1.0, True), (-1.0, False)],
    [(-1.0, False), (1.0, True), (1.0, True)],
    [(-1.0, False), (0.5, False), (1.0, True)],
]
"""The second part of the last response has a positive value and a verdict against it: the verdict counts."""

PARTED = [
    with_gap(0.0, 6, (2,), 40 + i, scores=spans("part", *((2 * k, 2 * k + 2, *row[k]) for k in range(3))))
    for i, row in enumerate(RIGHT)
]
PART_VIEWS = [Views(reference_logps=_view(50 + i, 6)) for i in range(3)]


def part_want(kl: float) -> list[list[float]]:
    out = []
    for one, views, row in zip(PARTED, PART_VIEWS, papers.s2r(RIGHT), strict=True):
        ratio = [float(b - r) for b, r in zip(one.behavior_logps, views.reference_logps, strict=True)]
        means = [(ratio[0] + ratio[1]) / 2, ratio[3], (ratio[4] + ratio[5]) / 2]
        out.append([row[t // 2] - kl * means[t // 2] for t in range(6)])
    return out


SPAN_CASES = {
    "process supervision": Case(ProcessCredit(eps=1e-12), papers.process_supervision(ENDS, [5, 4]), STEPPED, ()),
    "the worst step": Case(
        ProcessCredit(spread="min", normalise="none"),
        [papers.worst_step([0.9, 0.2], 5), papers.worst_step([0.6, -0.5], 4)],
        STEPPED,
        (),
    ),
    "pav": Case(ProcessCredit(spread="step", normalise="none", outcome=1.0, scale=3.0), pav_want(), STEPPED, ()),
    "score": Case(TurnCredit(), turn_want(10.0, 1.0, True), TURNS, ()),
    "score, stage one": Case(TurnCredit(bonus=0.0, first=0.0, baseline="zero"), turn_want(0.0, 0.0, False), TURNS, ()),
    "s2r": Case(PartCredit(kl=0.0), part_want(0.0), PARTED, ()),
    "s2r with KL": Case(PartCredit(kl=0.3), part_want(0.3), PARTED, PART_VIEWS),
}

CASES = GROUP_CASES | TOKEN_CASES | SPAN_CASES


def agrees(credit: ModuleType, case: Case) -> None:
    """The module's advantages (and targets) of every trained token equal the oracle's."""
    found = credit.assign(case.credit, case.group, case.views)
    for index, one in enumerate(case.group):
        mask, want = one.train_mask, np.broadcast_to(case.want[index], len(one.tokens))
        assert found.advantages[index].dtype == np.float32
        np.testing.assert_allclose(found.advantages[index][mask], want[mask], rtol=2e-5, atol=2e-6)
        if case.targets is not None:
            np.testing.assert_allclose(found.targets[index][mask], np.array(case.targets[index])[mask], rtol=2e-5)
            assert np.isnan(found.targets[index][~mask]).all()


def step_agrees(credit: ModuleType) -> None:
    """Whitening and GPG's factor over a step of two groups equal the oracles'."""
    rows = suffixes(REWARDS, 0.3)
    groups = ["g1", "g1", "g2", "g2", "g2"]
    advantages = [np.array(row, np.float32) for row in rows]
    for asks in (GroupCredit(batch="whiten"), Gae()):
        found = credit.over_step(asks, advantages, GROUP, groups)
        for one, want, mask in zip(found, papers.whiten(rows, MASKS), MASKS, strict=True):
            np.testing.assert_allclose(one, np.where(np.array(mask, bool), want, 0.0), rtol=1e-4, atol=1e-6)
    step = [[1.0, 0.0, 0.0], [1.0, 1.0], [0.5, 0.0]]
    given = [np.full(2, a, np.float32) for rewards in step for a in papers.dr_grpo(rewards)]
    names = [f"g{index}" for index, rewards in enumerate(step) for _ in rewards]
    found = credit.over_step(GroupCredit(batch="nonzero"), given, [scored(0.0, 2)] * 7, names)
    np.testing.assert_allclose(
        [float(one[0]) for one in found], [a for row in papers.gpg(step) for a in row], rtol=1e-5
    )


def all_agree(load: Callable[[str], ModuleType]) -> None:
    """The oracles' verdict on the credit that `load` gives."""
    for case in CASES.values():
        agrees(load("credit"), case)
    step_agrees(load("credit"))
