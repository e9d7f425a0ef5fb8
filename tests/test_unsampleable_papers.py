"""Each method, on a task that the policy never solves by itself, does what its paper says: recounted from the ledger.

What is compared is computed here from scores, contexts and closed forms; the controls' own words are never read.
Rollouts that trained nobody leave no record but the step's counts: there the step's passed verdicts must all be found
among those that were kept.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from policies.model_folder import CHARACTERS
from policies.trajectory import Origin
from tests.unsampleable import (
    CODE,
    PROMPTS,
    RUNS,
    STAGES,
    STEPS,
    WIDTH,
    Consumed,
    consumed,
    dropped,
    finished,
    groups,
    rows,
    steps,
)

ROLLOUTS = 8
VOCABULARY = len(CHARACTERS) + 2


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


def of(members: Sequence[Consumed], strand: str) -> list[Consumed]:
    return [one for one in members if one.strand == strand]


def passes(row: dict[str, Any]) -> int:
    """Passed verdicts among all rollouts of a step, kept or not; every one of them has a verdict."""
    told = row["funnel"]["by_strand"]["rollouts"]
    assert told["scored"] == {"ok": told["written"]}
    return round(row["accuracy"] * told["written"])


# ---------------------------------------------------------------- ReLIFT


def test_relift_imitates_exactly_when_its_buffer_is_full(session: Path) -> None:
    """The buffer is kept here by the scores alone: who failed waits once; six waiting prompts make the next step."""
    out, size = finished(session, "relift"), RUNS["relift"]["size"]
    waiting: list[str] = []
    fired: list[int] = []
    for step, members in consumed(out).items():
        imitated, reinforced = of(members, "demonstrations"), of(members, "rollouts")
        if len(waiting) >= size:
            due, waiting = waiting[:size], waiting[size:]
            assert [one.record.prompt_id for one in imitated] == due, f"step {step}"
            assert not reinforced
            fired.append(step)
            continue
        assert not imitated and len(reinforced) == PROMPTS * ROLLOUTS, f"step {step}"
        for group in groups(reinforced).values():
            prompt = group[0].record.prompt_id
            if prompt not in waiting and not any(one.passed for one in group):
                waiting.append(prompt)
    told = [row["step"] for row in rows(out, "decisions") if "rollouts" in row["plan"]["rest"]]
    assert fired == told
    assert len(fired) >= 4 and len(fired) < STEPS / 2
    assert len({later - earlier for earlier, later in pairwise(fired)}) > 1, "no fixed rhythm would do"


# ---------------------------------------------------------------- HPT


def test_hpts_gate_decides_each_prompt_by_its_own_rollouts(session: Path) -> None:
    out = finished(session, "hpt")
    left, ledger = dropped(out), consumed(out)
    history: dict[str, list[str]] = defaultdict(list)
    for row in steps(out):
        held, kept = groups(ledger[row["step"]]), 0
        assert len(held) == PROMPTS
        for name, members in held.items():
            (strand,) = {one.strand for one in members}
            history[members[0].record.prompt_id].append(strand)
            away = {one for one in left[row["step"]] if one.startswith(f"{name}/rollouts")}
            if strand == "rollouts":
                assert len(members) == ROLLOUTS and any(one.passed for one in members) and not away, name
                kept += sum(one.passed for one in members)
            else:
                assert len(members) == 1
                assert away == {f"{name}/rollouts-{at}" for at in range(ROLLOUTS)}, name
        assert kept == passes(row), f"step {row['step']}: a group that was thrown away held a passed response"
    flips = [told for told in history.values() if told[0] == "demonstrations" and told[-1] == "rollouts"]
    assert len(flips) >= len(history) / 2, history
    mixed = [row for row in steps(out) if len({one.strand for one in ledger[row["step"]]}) == 2]
    assert mixed, "within one step some prompts imitate while others reinforce"


# ---------------------------------------------------------------- CHORD


def mu(at: int) -> float:
    """The cosine of CHORD-mu from 0.9 to 0.05, from its formula."""
    return 0.05 + 0.85 * (1 + math.cos(math.pi * min(at / STEPS, 1.0))) / 2


def test_chords_mu_follows_its_curve_and_the_gradient_follows_mu(session: Path) -> None:
    """A token mean of -log p has mass 1, that of the ratio the mean |advantage|; mu and 1 - mu scale the two."""
    out = finished(session, "chord")
    ledger, moved = consumed(out), 0
    for row, decision in zip(steps(out), rows(out, "decisions"), strict=True):
        factor = mu(row["step"] - 1)
        assert decision["plan"]["coefficients"] == pytest.approx(
            {"demonstrations": factor, "rollouts": 1 - factor}, abs=1e-12
        )
        mass = {name: told["gradient_mass"] for name, told in row["by_origin"].items()}
        own = np.concatenate([np.abs(one.advantage) for one in of(ledger[row["step"]], "rollouts")])
        expected = {"demonstration": factor, "learner": (1 - factor) * float(own.mean())}
        assert mass == pytest.approx(expected, rel=1e-4, abs=1e-6)
        moved += mass["learner"] > 0.1
    first, last = steps(out)[0]["by_origin"], steps(out)[-1]["by_origin"]
    assert first["demonstration"]["gradient_mass"] > 0.89 and first["learner"]["gradient_mass"] == 0.0
    assert last["demonstration"]["gradient_mass"] < 0.06 and moved >= STEPS / 4


# ---------------------------------------------------------------- LUFFY


def test_luffys_demonstration_competes_in_its_group(session: Path) -> None:
    """Seven rollouts and one demonstration; the baseline is the mean of all eight rewards, and nothing divides."""
    out, seen = finished(session, "luffy"), 0
    for step, members in consumed(out).items():
        held = groups(members)
        assert len(held) == PROMPTS
        for group in held.values():
            assert Counter(one.strand for one in group) == {"on": 7, "off": 1}
            rewards = np.array([float(one.passed) for one in group])
            for one, reward in zip(group, rewards, strict=True):
                assert one.advantage == pytest.approx(reward - rewards.mean(), abs=1e-6), step
                assert set(one.record.origin) == {Origin.LEARNER if one.strand == "on" else Origin.DEMONSTRATION}
            seen += 0 < rewards[[one.strand == "on" for one in group]].sum() < 7
    assert seen > STEPS / 4, "groups in which rollouts pass and fail beside the demonstration"


# ---------------------------------------------------------------- SRFT


@pytest.mark.slow
def test_srft_trains_four_parts(session: Path) -> None:
    """Failed rollouts at weight 1, passed ones at 0.1 exp(H), a demonstration by its advantage, and imitated."""
    out = finished(session, "srft")
    ledger = consumed(out)
    met = Counter[str]()
    for row in steps(out):
        held = ledger[row["step"]]
        for group in groups(held).values():
            rewards = np.array([float(one.passed) for one in group])
            (shown,) = of(group, "demonstrations")
            scaled = (1 - rewards.mean()) / (rewards.std(ddof=1) + 1e-6) if rewards.std() else 0.0
            assert shown.advantage == pytest.approx(scaled, rel=1e-3), "its advantage among all nine"
        tokens = Counter[bool]()
        for one in of(held, "rollouts"):
            assert (one.advantage == (1.0 if one.passed else -1.0)).all()
            tokens[one.passed] += len(one.record.tokens)
        mass = {name: told["gradient_mass"] for name, told in row["by_strand"].items()}
        share = tokens[False] / tokens.total()
        low, high = share + 0.1 * (1 - share), share + 0.1 * (1 - share) * VOCABULARY  # 0 <= H <= log of its size
        assert low - 1e-4 <= mass["rollouts"] <= high + 1e-4
        if not tokens[True]:
            met["failed alone"] += 1
            assert mass["rollouts"] == pytest.approx(1.0, abs=1e-4)
        if not tokens[False]:
            met["passed alone"] += 1
            assert mass["demonstrations"] <= 0.5 + 1e-6, "no advantage is left: imitation at 0.5 exp(-H)"
        met["imitated"] += mass["demonstrations"] > 0
        met["by advantage"] += mass["demonstrations"] > 0.5 + 1e-6
    assert met["failed alone"] >= 3 and met["passed alone"] >= 1
    assert met["imitated"] == STEPS and met["by advantage"] >= 3


# ---------------------------------------------------------------- UFT


def shown(parts: int) -> int:
    """Tokens of the six before the end that so many of five parts are."""
    return min(max(round(parts / 5 * 6), 1), 5) if 0 < parts < 5 else 6 * (parts == 5)


@pytest.mark.slow
def test_ufts_hints_shrink_along_the_cosine_and_end(session: Path) -> None:
    """Each prompt's parts are binomial in the step's share; the bounds hold for all steps at once at one in 10^4."""
    out, over = finished(session, "uft"), RUNS["uft"]["over"]
    parts_of = {shown(parts): parts for parts in range(6)}
    assert len(parts_of) == 6
    total, expected, variance = 0, 0.0, 0.0
    for step, members in consumed(out).items():
        at = step - 1
        share = 0.05 + 0.9 * (1 + math.cos(math.pi * at / over)) / 2 if at < over else 0.0
        drawn = []
        for group in groups(members).values():
            (tokens,) = {int((one.record.origin == Origin.HINT).sum()) for one in group}
            drawn.append(parts_of[tokens])
            for one in group:
                assert one.record.text.startswith((CODE + "0123456789")[: min(tokens, len(CODE))])
                assert one.record.train_mask[:tokens].all(), "the hint's tokens are imitated"
                assert (one.record.origin[tokens:] == Origin.LEARNER).all()
        trials = 5 * len(drawn)
        assert trials == 5 * STAGES["uft"]["prompts_per_step"]
        if not share:
            assert sum(drawn) == 0, f"step {step} is past the schedule"
            continue
        low, high = stats.binom.interval(1 - 1e-4 / over, trials, share)
        assert low <= sum(drawn) <= high, f"step {step}: {sum(drawn)} of {trials} parts, the share is {share:.3f}"
        total, expected = total + sum(drawn), expected + trials * share
        variance += trials * share * (1 - share)
    assert abs(total - expected) < 4 * math.sqrt(variance), "over all steps"


# ---------------------------------------------------------------- hint ladders


def level(name: str) -> int:
    """Of the hint under which a response was drawn, by its id."""
    found = re.search(r"-hint(\d+)$", name)
    return int(found[1]) if found else 0


@pytest.mark.slow
def test_sages_hints_come_only_where_the_level_before_failed(session: Path) -> None:
    out = finished(session, "sage")
    ledger, left = consumed(out), dropped(out)
    reached = Counter[int]()
    for row in steps(out):
        kept = 0
        for name, members in groups(ledger[row["step"]]).items():
            (at,) = {level(one.record.id) for one in members}
            away = Counter(level(one) for one in left[row["step"]] if one.startswith(f"{name}/"))
            assert len(members) == ROLLOUTS
            kept += sum(one.passed for one in members)
            if any(one.passed for one in members):
                assert away == dict.fromkeys(range(at), ROLLOUTS), f"{name}: every level below was tried, and left"
                reached[at] += 1
            else:
                assert at == 0 and away == dict.fromkeys((1, 2, 3), ROLLOUTS), f"{name}: no level helped"
                reached[-1] += 1
            length = 3 + (1 + WIDTH) * (at > 0)  # the prompt; `?` and what is shown
            assert all(len(one.record.behavior_context) == length for one in members)
            assert all((one.record.train_context == one.record.behavior_context).all() for one in members)
        assert kept == passes(row), f"step {row['step']}: a level was left although a response of it had passed"
    assert {0, 1, 2, 3} <= set(reached), reached
    early, late = (np.mean([level(one.record.id) > 0 for one in ledger[at]]) for at in (8, max(ledger)))
    assert late < 0.5 < early, "as the policy learns the prompts need no hint"


@pytest.mark.slow
def test_scaf_grpo_swaps_one_failure_for_one_hinted_success(session: Path) -> None:
    out = finished(session, "scaf_grpo")
    ledger, left = consumed(out), dropped(out)
    found = Counter[str]()
    for row in steps(out):
        for name, members in groups(ledger[row["step"]]).items():
            hinted = [one for one in members if level(one.record.id)]
            away = Counter(level(one) for one in left[row["step"]] if one.startswith(f"{name}/"))
            assert len(members) == ROLLOUTS
            if not hinted:
                solved = any(one.passed for one in members)
                assert away == ({} if solved else dict.fromkeys((1, 2, 3), ROLLOUTS)), name
                found["solved" if solved else "hopeless"] += 1
                continue
            (swapped,) = hinted
            at = level(swapped.record.id)
            assert swapped.passed and not any(one.passed for one in members if one is not swapped), name
            # One failure of the first drawing left; of the last level all but one; of those between all.
            assert away == {0: 1, **dict.fromkeys(range(1, at), ROLLOUTS), at: ROLLOUTS - 1}, name
            rewards = np.array([float(one.passed) for one in members])
            assert swapped.advantage == pytest.approx((1 - rewards.mean()) / (rewards.std(ddof=1) + 1e-6), rel=1e-3)
            found[f"level {at}"] += 1
    assert {"solved", "level 1", "level 2", "level 3"} <= set(found), found
