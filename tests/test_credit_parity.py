"""Advantages beside TRL's own code and the papers' estimators, on cases of groups; credit is float32: to 1e-5."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest

from policies.config import Credit, Gae, GroupCredit, PartCredit, ProcessCredit, TeacherGap, TurnCredit
from policies.credit import Views, assign, over_step
from policies.trajectory import Sampling, ScoreEntry, Trajectory
from tests import paper_process as process
from tests import paper_reward as reward
from tests import paper_teacher as teacher
from tests import trl_oracles as trl
from tests.paper_parts import centred, groups, slots
from tests.parity_case import Case, Floats, random_case
from tests.test_trajectory import trajectory

CASES = [random_case(seed) for seed in (6, 7)]
VALUES = np.random.default_rng(0).normal(size=CASES[0].mask_BT.shape)
Scores = Callable[[Case, int], tuple[ScoreEntry, ...]]


def rollouts(case: Case, scores: Scores) -> list[Trajectory]:
    """Row i as a rollout; its sampling log-probabilities are the case's old ones. The last is greedy."""
    return [
        trajectory(
            len(slots(case, i)),
            id=f"t{i}",
            group_id=f"g{i // case.group_size}",
            behavior_logps=case.old_BT[i, case.mask_BT[i]].astype(np.float32),
            scores=(ScoreEntry("reward", float(case.rewards_B[i])), *scores(case, i)),
            sampling=Sampling(temperature=0.0 if case.off_B[i] else 1.0),
        )
        for i in range(len(case.mask_BT))
    ]


def views(case: Case, i: int) -> Views:
    own = case.mask_BT[i]
    reference, gap, values = (one[i, own].astype(np.float32) for one in (case.reference_BT, case.teacher_BT, VALUES))
    return Views(teacher_logps=gap, reference_logps=reference, values=values)


def advantages(credit: Credit, case: Case, scores: Scores = lambda case, i: ()) -> Floats:
    """[B, T]: group by group, then over the step; 0 on padding and on what does not train."""
    members, out, kept = rollouts(case, scores), np.zeros(case.mask_BT.shape), []
    found: dict[int, np.ndarray] = {}
    for group in groups(case):
        assigned = assign(credit, [members[i] for i in group], [views(case, i) for i in group])
        found |= dict(zip(group, assigned.advantages, strict=True))
        kept += [i for place, i in enumerate(group) if place not in assigned.excluded]
    names = [members[i].group_id for i in kept]
    scaled = over_step(credit, [found[i] for i in kept], [members[i] for i in kept], names)
    for i, values in zip(kept, scaled, strict=True):
        out[i, case.mask_BT[i]] = values
    return out


def whole(values_B: Floats, case: Case) -> Floats:
    return np.where(case.mask_BT, values_B[:, None], 0.0)


def steps(name: str, values: Sequence[Sequence[float]]) -> Scores:
    """The halves of a row as spans with these values; a row of one token has the first alone."""

    def entries(case: Case, i: int) -> tuple[ScoreEntry, ...]:
        parts = process.halves(case)[i]
        edges = [0, int((parts == 0).sum()), int((parts >= 0).sum())]
        spans = [(start, end) for start, end in pairwise(edges) if end > start]
        return tuple(
            ScoreEntry(name, value, value > 0.5, start=start, end=end)
            for (start, end), value in zip(spans, values[i], strict=False)
        )

    return entries


def long_case(seed: int) -> Case:
    """No row of one token, so that each has both halves."""
    return next(one for one in (random_case(s) for s in range(seed, seed + 99)) if (one.mask_BT.sum(1) > 1).all())


GROUPS: dict[str, tuple[GroupCredit, Callable[[Case], Floats]]] = {
    "grpo": (GroupCredit(scale="std"), trl.grpo_advantages),
    "dr grpo": (GroupCredit(), lambda case: trl.grpo_advantages(case, "none")),
    "rloo": (GroupCredit(baseline="leave_one_out"), trl.rloo_advantages),
    "rloo, penalised": (
        GroupCredit(baseline="leave_one_out", kl=0.1),
        lambda case: trl.rloo_advantages(case, beta=0.1),
    ),
    "maxrl": (GroupCredit(scale="mean"), reward.maxrl_advantages),
    "opo": (GroupCredit(baseline="length_mean"), reward.opo_advantages),
    "gpg": (GroupCredit(batch="nonzero"), reward.gpg_advantages),
    "remax": (GroupCredit(baseline="greedy"), lambda case: reward.remax_advantages(case, case.off_B)),
}


@pytest.mark.parametrize("name", GROUPS)
def test_a_groups_advantages_are_theirs(name: str) -> None:
    credit, want = GROUPS[name]
    for case in (*CASES, random_case(8, group=2)):
        assert advantages(credit, case) == pytest.approx(whole(want(case), case), rel=1e-5, abs=1e-6)


def test_token_penalties_and_critics_are_the_papers() -> None:
    for case in CASES:
        plain = GroupCredit(baseline="zero", kl=0.1, kl_spread="suffix")
        want = reward.reinforce_pp_advantages(case, kl=0.1, whiten=False)
        assert advantages(plain, case) == pytest.approx(want, rel=1e-5, abs=1e-6)
        whitened = plain.model_copy(update={"batch": "whiten"})
        want = reward.reinforce_pp_advantages(case, kl=0.1)
        assert advantages(whitened, case) == pytest.approx(want, rel=1e-4, abs=1e-5)
        want, _ = reward.gae(case, VALUES, kl=0.05, gamma=0.9)
        assert advantages(Gae(gamma=0.9, whiten=False), case) == pytest.approx(want, rel=1e-5, abs=1e-6)
        white = reward.whitened(case, want)
        assert advantages(Gae(gamma=0.9), case) == pytest.approx(white, rel=1e-4, abs=1e-5)


def test_gaps_to_a_teacher_are_the_papers() -> None:
    for case in CASES:
        gap = np.where(case.mask_BT, case.teacher_BT - case.old_BT, 0.0)
        assert advantages(TeacherGap(), case) == pytest.approx(gap, rel=1e-5, abs=1e-6)
        base = case.reference_BT
        want = np.where(case.mask_BT, 1.25 * (case.teacher_BT - base) - (case.old_BT - base), 0.0)
        assert advantages(TeacherGap(extrapolation=1.25), case) == pytest.approx(want, rel=1e-5, abs=1e-6)
        both = gap + 0.5 * whole(centred(case), case)
        assert advantages(TeacherGap(outcome=0.5), case) == pytest.approx(both, rel=1e-5, abs=1e-6)


def test_minillms_suffix_is_the_papers() -> None:
    for case in CASES:
        as_sampled = Case(**{name: getattr(case, name) for name in Case.__slots__} | {"behavior_BT": case.old_BT})
        want = teacher.minillm_advantages(as_sampled, scale=0.5, whiten=False)
        found = advantages(TeacherGap(scale=0.5, spread="suffix_mean"), case)
        assert found == pytest.approx(want, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("spread", ["suffix_sum", "step", "min"])
def test_steps_are_deepseekmaths(spread: str) -> None:
    case, values = long_case(0), np.random.default_rng(1).random((6, 2)).tolist()
    credit = ProcessCredit(spread=spread, outcome=0.5, scale=2.0)  # type: ignore[arg-type]
    want = process.process_advantages(
        case, process.halves(case), values, spread=spread, outcome=0.5, scale=2.0, eps=credit.eps
    )
    found = advantages(credit, case, steps("step", values))
    assert found == pytest.approx(np.where(case.mask_BT, want, 0.0), rel=1e-5, abs=1e-6)


def test_progress_parts_and_turns_are_the_papers() -> None:
    case = long_case(20)
    parts, rates = process.halves(case), np.random.default_rng(2).random((6, 3)).tolist()
    gains = [[b - a for a, b in pairwise(one)] for one in rates]
    pav = ProcessCredit(spread="step", normalise="none", outcome=1.0, scale=3.0)
    want = process.pav_advantages(case, parts, rates)
    assert advantages(pav, case, steps("step", gains)) == pytest.approx(want, rel=1e-5, abs=1e-6)

    marks = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 1.0], [1.0, 0.0]]
    want = process.s2r_advantages(case, parts, marks, kl=0.05)
    assert advantages(PartCredit(kl=0.05), case, steps("part", marks)) == pytest.approx(want, rel=1e-5, abs=1e-6)

    pairs = [(one[0], one[1]) for one in marks]
    for stage, first, bonus in ((1, 0.0, 0.0), (2, 1.0, 10.0)):
        want = process.score_advantages(case, parts, pairs, stage=stage)
        found = advantages(TurnCredit(first=first, bonus=bonus), case, steps("turn", marks))
        assert found == pytest.approx(want, rel=1e-5, abs=1e-6), stage
