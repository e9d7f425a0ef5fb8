"""Alarms over a run's verifiers: the ceiling, the constant score, and the gap that reward hacking opens."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.health import Recent, Watch, verdict_facts
from orchestrator.health_config import Health
from orchestrator.held_out import Gap, chosen, quantile
from orchestrator.json_lines import plain
from verifiers.grader import Asked
from verifiers.health import Tally, added, tallied
from verifiers.score import Score, Status


def batch(counts, name="reward", value=None, version="v1", step=0):
    """A step's tallies: status -> how many; values alternate unless one is given."""
    statuses = [status for status, count in counts.items() for _ in range(count)]
    asked = [Asked(f"s{step}/{at}", "p", f"response {at}", '"1"') for at in range(len(statuses))]
    scores = [
        Score(at % 2 if value is None else value, None, scorer="math", version=version)
        if status == "ok"
        else Score(math.nan, None, Status(status), f"because {status}", scorer="math", version=version)
        for at, status in enumerate(statuses)
    ]
    return tallied(name, asked, scores)


def row(*batches, **more):
    """As metrics.jsonl holds it."""
    return json.loads(json.dumps(plain({**verdict_facts(added(batches)), **more})))


def alarms(watch, rows):
    return [(at, alarm) for at, one in enumerate(rows) for alarm in watch.step(one)]


# ---------------------------------------------------------------- the ceiling


def test_over_the_ceiling_the_run_ends_with_examples():
    watch = Watch(Health(window=100, unknown_ceiling=0.25))
    good, bad = {"ok": 45, "timeout": 5}, {"ok": 25, "timeout": 15, "error": 10}
    rows = [row(batch(good, step=at)) for at in range(4)] + [row(batch(bad, step=at)) for at in range(4, 8)]
    found = alarms(watch, rows)
    assert found[0][0] == 4  # 5 + 25 of 100
    alarm = found[0][1]
    assert (alarm.kind, alarm.ends) == ("scorer_failing", True)
    assert "verifier math v1 gave no verdict on 30% of the last 100 responses (20% timeout, 10% error)" in alarm.text
    assert "health.unknown_ceiling is 0.25" in alarm.text
    assert alarm.text.count("the response was 'response") == 3
    assert "because error" in alarm.text or "because timeout" in alarm.text
    assert (alarm.facts["scorer"], alarm.facts["version"]) == ("math", "v1") and len(alarm.facts["examples"]) == 3


def test_what_ends_a_run_ends_it_again_when_it_is_resumed():
    over = row(batch({"ok": 5, "error": 15}), batch({"ok": 5, "error": 15}, name="judge"))
    watch = Watch(Health(window=20))
    watch.remember([over])
    assert [alarm.facts["name"] for alarm in watch.step(over)] == ["reward"]  # the part was told


def test_nothing_is_said_before_the_window_is_full_nor_at_the_ceiling_itself():
    watch = Watch(Health(window=100, unknown_ceiling=0.5))
    assert not alarms(watch, [row(batch({"error": 99}))])
    exact = Watch(Health(window=100, unknown_ceiling=0.5))
    assert not alarms(exact, [row(batch({"ok": 50, "refused": 50}))] * 5)
    assert alarms(Watch(Health(window=100, unknown_ceiling=0.5)), [row(batch({"ok": 49, "refused": 51}))])
    never = Watch(Health(window=10, unknown_ceiling=1.0))
    assert not alarms(never, [row(batch({"refused": 10}))] * 5)


def test_a_part_that_fails_is_told_once_and_named_when_the_whole_ends_the_run():
    watch = Watch(Health(window=20, unknown_ceiling=0.4))
    part = {"ok": 5, "timeout": 15}
    told = alarms(watch, [row(batch({"ok": 20}), batch(part, name="judge"))] * 4)
    assert [(at, alarm.kind, alarm.ends) for at, alarm in told] == [(0, "scorer_failing", False)]
    assert "judge (verifier math v1)" in told[0][1].text
    found = {alarm.facts["name"]: alarm for _, alarm in alarms(watch, [row(batch(part), batch(part, name="judge"))])}
    assert found.keys() == {"reward"} and "part judge (verifier math v1): 75% timeout" in found["reward"].text


def test_a_verifier_with_nothing_to_compare_with_is_not_blamed():
    assert not alarms(Watch(Health(window=10), demanding=False), [row(batch({"error": 10}))] * 3)


def test_skipped_parts_are_no_failures():
    assert not alarms(Watch(Health(window=10)), [row(batch({"ok": 1, "skipped": 50}, name="judge"))] * 20)


def test_versions_are_counted_apart():
    watch = Watch(Health(window=100))
    old, new = batch({"error": 90}, version="v1"), batch({"error": 90}, version="v2")
    assert not alarms(watch, [row(old), row(new)])
    assert alarms(watch, [row(new)])


# ---------------------------------------------------------------- constant scores


@pytest.mark.parametrize("alarm", ["tell", "stop"])
def test_a_constant_score_is_told_after_so_many(alarm):
    watch = Watch(Health(constant_after=100, alarm=alarm))
    rows = [row(batch({"ok": 40, "timeout": 3}, value=0.5))] * 3 + [row(batch({"ok": 40}))] * 3
    found = alarms(watch, rows + [row(batch({"ok": 40}, value=0.5))] * 3)
    assert [at for at, _ in found] == [2, 8]  # again, once it had ended between
    assert found[0][1].kind == "scorer_constant" and found[0][1].ends == (alarm == "stop")
    assert "gave 0.5 to each of the last 120 responses it judged" in found[0][1].text


def test_values_that_differ_once_in_the_window_are_not_constant():
    rows = [row(batch({"ok": 50}, value=1.0)), row(batch({"ok": 1}, value=0.0)), row(batch({"ok": 50}, value=1.0))]
    assert not alarms(Watch(Health(constant_after=60)), rows)


# ---------------------------------------------------------------- resuming


def test_a_resumed_watch_goes_on_where_the_other_was():
    rows = [row(batch({"ok": 30, "error": 20}, step=at), gap=planted(0.0, at)) for at in range(12)]
    rows += [row(batch({"ok": 20, "error": 30}, step=at), gap=planted(0.5, at)) for at in range(12, 40)]
    config = Health(window=200, unknown_ceiling=0.55, constant_after=100)
    whole = [(at, one.kind, one.text) for at, one in alarms(Watch(config), rows)]
    assert {kind for _, kind, _ in whole} == {"scorer_failing", "held_out_gap"}
    for cut in (1, 7, 13, 20, 39):
        again = Watch(config)
        again.remember(rows[:cut])
        assert [(at + cut, one.kind, one.text) for at, one in alarms(again, rows[cut:])] == [
            one for one in whole if one[0] >= cut
        ]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=30), st.integers(1, 60))
def test_the_newest_that_are_enough_and_no_more(sizes, enough):
    recent = Recent(enough, lambda one: one.verdicts)
    for at, size in enumerate(sizes):
        found = recent.add(Tally({"ok": size}))
        tail = next((sum(sizes[low : at + 1]) for low in range(at, -1, -1) if sum(sizes[low : at + 1]) >= enough), None)
        assert (found and found.verdicts) == tail


# ---------------------------------------------------------------- the held-out verifier


def gap_sums(groups):
    """The sums of groups of differences, one by one."""
    total = Gap()
    for own in groups:
        n, s = len(own), float(np.sum(own))
        total += Gap(1, n, s, s * s, s * n, float(n * n))
    return total


def planted(shift, seed, groups=32, size=2):
    """A step whose rewards lie `shift` above the held-out score, with noise of prompts and of responses."""
    random = np.random.default_rng(seed)
    noise = random.normal(0, 0.2, (groups, 1)) + random.normal(0, 0.3, (groups, size))
    gap = gap_sums(shift + noise)
    return {name: getattr(gap, name) for name in gap.__slots__}


def test_the_error_of_a_gap_is_the_cluster_robust_one():
    random = np.random.default_rng(0)
    groups = [random.normal(random.normal(), 1, size) for size in (3, 8, 1, 5, 8, 2)]
    gap, every = gap_sums(groups), np.concatenate(groups)
    mean, count = every.mean(), len(groups)
    residuals = np.array([(own - mean).sum() for own in groups])
    assert gap.mean == pytest.approx(mean)
    assert gap.error == pytest.approx(np.sqrt((residuals**2).sum() * count / (count - 1)) / len(every))
    assert math.isnan(Gap().mean) and math.isnan(gap_sums([[1.0, 0.0]]).error)
    alike = gap_sums([[value] for value in every])
    assert alike.error == pytest.approx(every.std(ddof=1) / np.sqrt(len(every)))  # prompts of one: the usual error


def test_the_interval_covers_as_often_as_it_says():
    inside = 0
    for seed in range(400):
        gap = Gap(**planted(0.25, seed, groups=8, size=8))
        inside += abs(gap.mean - 0.25) < gap.half_width
    assert 0.92 <= inside / 400 <= 0.975


def test_students_quantiles():
    known = {(7, 0.95): 2.3646, (7, 0.99): 3.4995, (31, 0.99): 2.7440, (255, 0.95): 1.9693}
    for (freedom, confidence), value in known.items():
        assert quantile(freedom, confidence) == pytest.approx(value, rel=2e-3)
    assert math.isnan(quantile(0, 0.95))


def drifting(shifts, seed=0):
    return [row(batch({"ok": 64}), gap=planted(shift, 1000 * seed + at)) for at, shift in enumerate(shifts)]


def test_hacking_fires_the_alarm_and_a_steady_gap_does_not():
    climbing = [min(0.02 * at, 0.6) for at in range(60)]
    found = alarms(Watch(Health()), drifting(climbing))
    assert [(alarm.kind, alarm.ends) for _, alarm in found] == [("held_out_gap", False)]
    at, alarm = found[0]
    assert 5 < at < 25
    assert alarm.facts["growth"] - alarm.facts["half_width"] > 0.1
    assert "the reward outgrows the held-out score" in alarm.text and "health.held_out_gap is 0.1" in alarm.text
    assert alarms(Watch(Health(alarm="stop")), drifting(climbing))[0][1].ends
    for seed in range(20):  # a verifier that is laxer from the start is no hacking
        assert not alarms(Watch(Health()), drifting([0.3] * 100, seed))


def test_a_gap_that_shrinks_or_grows_a_little_is_no_alarm():
    assert not alarms(Watch(Health()), drifting([0.5 - 0.01 * at for at in range(60)]))
    assert not alarms(Watch(Health(held_out_gap=0.3)), drifting([0.004 * at for at in range(60)]))


def test_the_same_share_of_responses_is_judged_whenever():
    names = [f"stage/{step}/{at}" for step in range(100) for at in range(64)]
    for share in (0.01, 0.25, 0.9):
        taken = [name for name in names if chosen(name, share)]
        assert abs(len(taken) / len(names) - share) < 4 * math.sqrt(share / len(names))
        assert taken == [name for name in names if chosen(name, share)]
    assert all(chosen(name, 1.0) for name in names)
    assert {name for name in names if chosen(name, 0.1)} <= {name for name in names if chosen(name, 0.2)}
