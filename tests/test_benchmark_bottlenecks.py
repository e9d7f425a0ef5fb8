"""The benchmark of bottlenecks: families are what they claim, budgets bind alike, and its statistics are right."""

import asyncio
import json
import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from actors.config import Learner
from actors.learner import LearnerRank
from actors.local import local_parts
from benchmarks.bottleneck_report import summary, write
from benchmarks.bottlenecks import RATES, best_rate
from benchmarks.budgeted_run import Budget, Meter, Setting, Spent, run
from benchmarks.fixed_pipelines import CONTROL, Part, pipelines
from benchmarks.paired import difference, interval
from benchmarks.planted_families import (
    FAMILIES,
    NEW,
    OLD,
    RELIABLE,
    demonstrations_of,
    planted,
    prompts_of,
    start_text,
)
from benchmarks.run_records import Job, Record, Scale, Shelf, figure
from benchmarks.solve_counts import VERIFIER, Solved, Support, asked, bounds, by_family, support
from benchmarks.start_model import CONTEXT, Start, off, prepared
from orchestrator.recipes import load
from policies.config import Optimizer, TinyModel
from policies.example import Example
from policies.model_folder import materialise
from policies.tokens import Tokenizer

TINY = TinyModel(preset="arithmetic-small", context=CONTEXT)

# ---------------------------------------------------------------- families


def test_families_are_planted_by_rule_and_by_marker() -> None:
    tasks = planted(3, 12, careless=0.25)
    assert len({one.text for one in tasks}) == len(tasks) == 48
    for family in FAMILIES:
        own = [one for one in tasks if one.family == family]
        assert len(own) == 12
        letters = NEW if family == "unreachable" else OLD
        assert all(set(one.answer + one.demonstration) <= set(letters) for one in own)
        assert sum(one.demonstration != one.answer for one in own) == 3, "a quarter is wrong, exactly"
        slips = [sum(a != b for a, b in zip(one.demonstration, one.answer, strict=True)) for one in own]
        assert set(slips) == {0, 1}
        assert all((one.started == one.answer) == (family != "unreachable") for one in own)
    markers = {family: {one.text[0] for one in tasks if one.family == family} for family in FAMILIES}
    assert markers["unreachable"] == markers["regressing"], "nothing but digits tells them apart"
    assert not markers["mastered"] & markers["unreliable"] and not markers["mastered"] & markers["unreachable"]


def test_answers_follow_one_rule_for_each_digit() -> None:
    for family in FAMILIES:
        seen: dict[tuple[int, int], str] = {}
        for one in planted(5, 30, careless=0.0):
            if one.family == family:
                first, second = int(one.text[1]), int(one.text[2])
                for place, key in enumerate((first, second, (first + second) % 10)):
                    assert seen.setdefault((place, key), one.answer[place]) == one.answer[place]


def test_tasks_are_a_function_of_the_seed() -> None:
    assert planted(3, 8, 0.2) == planted(3, 8, 0.2)
    assert planted(3, 8, 0.2) != planted(4, 8, 0.2)
    with pytest.raises(ValueError, match="each is 51"):
        planted(0, 51, 0.2)


def test_the_start_model_is_taught_the_old_rule_and_doubt_where_it_is_wanted() -> None:
    tasks, draws = planted(7, 4, 0.0), random.Random(0)
    for one in tasks:
        drawn = [start_text(one, draws) for _ in range(800)]
        right = sum(text == one.started for text in drawn)
        if one.family == "unreliable":
            assert abs(right / 800 - RELIABLE**3) < 5 * math.sqrt(0.25 / 800)
        else:
            assert right == 800


def test_a_family_that_is_off_is_named() -> None:
    right = {"mastered": 0.97, "unreliable": 0.45, "unreachable": 0.0, "regressing": 0.95}
    assert off(right) == []
    (fault,) = off({**right, "unreachable": 0.02})
    assert fault.startswith("unreachable is solved at 0.020")
    assert len(off(dict.fromkeys(FAMILIES, 0.7))) == 4


# ---------------------------------------------------------------- budgets


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """Eight prompts and a model as its seed makes it."""
    folder = tmp_path_factory.mktemp("untrained")
    rank = LearnerRank(materialise(TINY, folder / "base"), TINY, Learner(engine="torch", threads=1), seed=1)
    rank.begin_stage(load("sft").strands, Optimizer(), 1)
    rank.save(folder)
    return Setting(planted(1, 2, 0.5), Start(folder / "model", {}), 1, Budget(700, 700), samples=2)


def test_a_pipeline_ends_after_the_step_that_reaches_either_budget(setting: Setting) -> None:
    parts = {"rollouts": 4}
    found = run([Part("grpo", parts, prompts=8)], 1e-4, setting)
    step = max(int(row["tokens_trained"]) for row in found.rows)
    assert found.trained == found.generated == sum(int(row["tokens_generated"]) for row in found.rows)
    assert 700 <= found.trained < 700 + step
    assert sum(int(row["tokens_trained"]) for row in found.rows[:-1]) < 700
    assert set(found.solved) == {one.id for one in setting.tasks}
    assert all(one.samples == 2 for one in found.solved.values())


def test_imitation_spends_the_learners_budget_and_generates_nothing(setting: Setting) -> None:
    found = run([Part("sft", prompts=8)], 1e-4, setting)
    assert found.generated == 0
    assert found.steps == math.ceil(700 / 32) and found.trained == 32 * found.steps


def test_a_second_part_has_what_the_first_leaves(setting: Setting) -> None:
    found = run([Part("sft", prompts=8, share=0.3), Part("grpo", {"rollouts": 4}, prompts=8)], 1e-4, setting)
    first = [row for row in found.rows if row["stage"] == "part-0"]
    assert len(first) == math.ceil(0.3 * 700 / 32)
    assert found.trained >= 700 and found.generated == found.trained - 32 * len(first)


def test_the_generated_budget_binds_too(setting: Setting) -> None:
    found = run([Part("grpo", {"rollouts": 4}, prompts=8)], 1e-4, replace(setting, budget=Budget(700, 200)))
    assert found.generated >= 200 > found.generated - int(found.rows[-1]["tokens_generated"])


def test_a_run_is_a_function_of_its_seed(setting: Setting) -> None:
    part = [Part("luffy", {"rollouts": 3, "length": 64}, prompts=4)]
    first, again = (run(part, 1e-3, replace(setting, budget=Budget(200, 200))) for _ in range(2))
    assert first.solved == again.solved
    assert [row["loss"] for row in first.rows] == [row["loss"] for row in again.rows]


def test_verified_imitation_leaves_out_what_the_verifier_fails(setting: Setting) -> None:
    found = run([Part("sft", prompts=8, verified=True)], 1e-4, setting)
    assert {int(row["tokens_trained"]) for row in found.rows} == {16}, "half of the eight demonstrations are wrong"


def test_the_meter_ends_a_stage_at_its_share() -> None:
    meter = Meter(Budget(100, 1000), share=0.3)
    meter.step({"tokens_trained": 29, "tokens_generated": 0})
    assert not meter.spent
    meter.step({"tokens_trained": 1, "tokens_generated": 0})
    assert meter.spent
    with pytest.raises(Spent):
        asyncio.run(meter.after_step(None, None))  # type: ignore[arg-type]


def test_every_pipeline_is_a_recipe_with_parameters_it_knows() -> None:
    found = pipelines(100)
    assert list(found)[-1] == CONTROL and len(found) == 11
    for parts in found.values():
        assert all(load(part.recipe, **part.parameters).strands for part in parts)


# ---------------------------------------------------------------- statistics


@pytest.mark.parametrize(("passed", "samples"), [(0, 32), (7, 32), (32, 32), (1, 64), (17, 20)])
def test_bounds_are_those_of_the_binomial_itself(passed: int, samples: int) -> None:
    low, high = bounds(Solved(passed, samples, greedy=False))
    if passed:
        assert stats.binom.sf(passed - 1, samples, low) == pytest.approx(0.05)
    else:
        assert low == 0.0
    if passed < samples:
        assert stats.binom.cdf(passed, samples, high) == pytest.approx(0.05)
    else:
        assert high == 1.0


def test_support_is_gained_and_lost_only_where_both_counts_are_credible() -> None:
    table = {  # before, after: (passed of 64), (passed of 32)
        "gained": (0, 20),
        "not credibly out before": (4, 20),
        "not credibly in now": (0, 4),
        "lost": (60, 2),
        "not credibly held before": (38, 2),
        "not credibly gone now": (60, 13),
        "kept": (64, 32),
    }
    before = {name: Solved(one, 64, greedy=False) for name, (one, _) in table.items()}
    after = {name: Solved(one, 32, greedy=False) for name, (_, one) in table.items()}
    assert support(before, after) == Support(1, 1)
    assert support({"gained": before["gained"]}, {"gained": after["gained"]}) == Support(1, 0)
    assert support({"lost": before["lost"]}, {"lost": after["lost"]}) == Support(0, 1)


def test_accuracy_is_a_mean_over_prompts() -> None:
    tasks = planted(0, 1, 0.0)
    solved = {one.id: Solved(index, 4, greedy=index > 2) for index, one in enumerate(tasks)}
    found = by_family(tasks, solved)
    assert [found[name].sampled for name in FAMILIES] == [0.0, 0.25, 0.5, 0.75]
    assert tuple(found["all"]) == (0.375, 0.25)


def test_intervals_are_scipys() -> None:
    draws = np.random.default_rng(0)
    ours, theirs = draws.normal(0.5, 0.1, 6), draws.normal(0.4, 0.1, 6)
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    found = difference(dict(enumerate(ours.tolist())), dict(enumerate(theirs.tolist())))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(float(np.mean(ours - theirs)))
    one = interval([0.3])
    assert one.mean == 0.3 and math.isnan(one.low) and one.sign == 0
    assert interval([1.0, 1.1, 0.9]).sign == 1 and interval([-1.0, 1.0]).sign == 0
    with pytest.raises(ValueError, match="not the same"):
        difference({0: 1.0}, {1: 1.0})


# ---------------------------------------------------------------- records


SCALE = Scale()


def record(pipeline: str, seed: int, accuracy: float, *, rate: float = 1e-3, scale: Scale = SCALE) -> Record:
    families = dict.fromkeys(FAMILIES, accuracy)
    return Record(Job(pipeline, seed, rate), scale, accuracy, accuracy, families, 3, seed, 100, 50, 9, 1.5)


def test_a_comparison_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path, other = tmp_path / "runs.jsonl", Scale(each=3)
    Shelf(path, Scale()).add(record("sft", 0, 0.5))
    Shelf(path, other).add(record("grpo", 0, 0.5, scale=other))
    jobs = [Job("sft", 0, 1e-3), Job("grpo", 0, 1e-3), Job("sft", 1, 1e-3), Job("sft", 1, 1e-3)]
    assert Shelf(path, Scale()).missing(jobs) == [Job("grpo", 0, 1e-3), Job("sft", 1, 1e-3)]
    assert Shelf(path, Scale()).found[Job("sft", 0, 1e-3)] == record("sft", 0, 0.5)


def test_the_best_rate_is_by_mean_accuracy_and_the_smaller_of_equals(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "runs.jsonl", Scale())
    for rate, values in zip(RATES, ((0.1, 0.2), (0.5, 0.7), (0.9, 0.3), (0.0, 0.1)), strict=True):
        for seed, accuracy in enumerate(values):
            shelf.add(record("sft", seed, accuracy, rate=rate))
    assert best_rate(shelf, "sft", (0, 1)) == RATES[1]


def test_the_control_is_compared_with_the_best_fixed_pipeline_seed_by_seed(tmp_path: Path) -> None:
    shelf, table = Shelf(tmp_path / "runs.jsonl", Scale()), {"sft": (0.5, 0.7), "grpo": (0.4, 0.5), CONTROL: (0.8, 0.9)}
    for name, values in table.items():
        for seed, accuracy in enumerate(values):
            shelf.add(record(name, seed, accuracy))
    told = summary(shelf, dict.fromkeys(table, 1e-3), (0, 1))
    assert told["best_fixed"] == "sft"
    assert told["differences"]["sft"]["accuracy"]["mean"] == pytest.approx(0.25)
    assert told["differences"]["grpo"]["accuracy"]["mean"] == pytest.approx(0.4)
    write(told, tmp_path, Console(quiet=True))
    assert json.loads((tmp_path / "bottlenecks.json").read_text())["best_fixed"] == "sft"
    lines = (tmp_path / "bottlenecks.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:5]] == [CONTROL, "sft", "grpo"], "the best comes first"
    assert "<svg" in (tmp_path / "bottlenecks.svg").read_text()
    assert figure("lost")(shelf.found[Job("sft", 1, 1e-3)]) == 1.0


# ---------------------------------------------------------------- the planted regression


@pytest.mark.slow
def test_teaching_the_others_pulls_the_regressing_family_away(tmp_path: Path) -> None:
    tasks = planted(2, 16, careless=0.0)
    start = prepared(tasks, 2, tmp_path, samples=32)
    before = by_family(tasks, start.solved)
    assert off({name: before[name].sampled for name in FAMILIES}) == []
    after = by_family(tasks, asyncio.run(_taught_the_unreachable(start, tasks)))
    assert after["unreachable"].sampled > 0.5
    assert after["regressing"].sampled < before["regressing"].sampled - 0.4
    assert after["mastered"].sampled > 0.8, "what looks otherwise stays"


async def _taught_the_unreachable(start: Start, tasks: tuple) -> dict[str, Solved]:
    """Imitate the demonstrations of all families but the regressing one, until they are learned."""
    tokenizer = Tokenizer.load(start.folder)
    rest = [one for one in tasks if one.family != "regressing"]
    book = demonstrations_of(rest, prompts_of(rest, tokenizer), tokenizer)
    parts = local_parts(start.folder, start.model, VERIFIER, seed=0)
    await parts.learner.begin_stage(load("sft").strands, Optimizer(learning_rate=1e-3), 200)
    examples = [Example(one, 0, np.ones(len(one.tokens), np.float32)) for one in book.flat]
    for _ in range(120):
        await parts.learner.step(examples, 1, {})
    await parts.publish(1)
    try:
        return await asked(parts, tasks, tokenizer, 0, 32)
    finally:
        await parts.sampler.close()
