"""Chosen prompts become slots for the strands they are for; reach is asked of the learner where it can tell more."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from orchestrator.asking import Asking, Slot
from orchestrator.config import RecipeChoice, Stage
from orchestrator.controls import Place, StepPlan
from orchestrator.prompts import at_step
from orchestrator.reach import reach
from orchestrator.slots import Drawing
from policies.config import GroupCredit, Source, Strand
from policies.prompt import Prompt
from policies.trajectory import Float32, Int32, Origin, Trajectory
from teachers.prompt_book import PromptBook
from tests.fakes import prompt, trajectory

PROMPTS = tuple(prompt(f"p{at}", text=f"{at}") for at in range(12))


def strand(name: str, **source: Any) -> Strand:
    base = {"producer": "rollout", "per_prompt": 2, **source}
    return Strand(name=name, source=Source(**base), credit=GroupCredit(), terms=())


STRANDS = (strand("on"), strand("off", producer="demonstration", per_prompt=1), strand("own", per_prompt=0, per_step=1))


def stage(prompts_per_step: int = 4) -> Stage:
    return Stage(name="a", recipe=RecipeChoice(kind="grpo"), steps=9, prompts_per_step=prompts_per_step)


def drawing(prompts: Sequence[Prompt] = PROMPTS) -> Drawing:
    return Drawing(prompts, {one.id: one for one in prompts}, seed=5)


def slots(places: tuple[Place, ...] | None, **plan: Any) -> list[Slot]:
    made = StepPlan((), {}, (), places=places, **plan)
    asking = Asking(stage(), STRANDS, 2, made, 5, None, None)
    return drawing().slots(asking)


def asked(found: Sequence[Slot]) -> list[tuple[str, Mapping[str, int]]]:
    """(prompt, strand -> responses that it owes) of each slot."""
    return [(one.prompt.id, {each.name: one.count(each) for each in STRANDS if one.count(each)}) for one in found]


def test_a_place_names_its_prompt_and_whom_it_is_for() -> None:
    places = (Place("p7", frozenset({"off"})), Place("p1"), Place("p3", frozenset({"on"})))
    found = asked(slots(places))
    assert found[:3] == [("p7", {"off": 1}), ("p1", {"on": 2, "off": 1}), ("p3", {"on": 2})]
    assert len(found) == 4 and found[3][1] == {"own": 1}, "a strand with prompts of its own has them as ever"


def test_a_strand_that_rests_is_not_asked_whoever_names_it() -> None:
    places = (Place("p7", frozenset({"off"})), Place("p1"), Place("p3", frozenset({"on", "off"})))
    found = slots(places, rest=frozenset({"off"}))
    assert asked(found)[:2] == [("p1", {"on": 2}), ("p3", {"on": 2})]
    assert [one.group for one in found[:2]] == ["a/000002/0001", "a/000002/0002"], "a place keeps its number"


def test_no_place_is_no_prompt_and_none_chosen_is_the_usual_draw() -> None:
    assert [one for one in asked(slots(())) if "own" not in one[1]] == []
    usual = [one.prompt.id for one in slots(None)][:4]
    assert usual == list(drawing().candidates(stage(), 2, 1))


@pytest.mark.parametrize("step", range(5))
@pytest.mark.parametrize("factor", [1, 2, 3, 9])
def test_candidates_are_distinct_and_as_many_as_there_are(factor: int, step: int) -> None:
    found = drawing().candidates(stage(), step, factor)
    assert len(found) == len(set(found)) == min(4 * factor, len(PROMPTS))
    assert found == drawing().candidates(stage(), step, factor)


def test_every_prompt_is_a_candidate_within_an_epoch() -> None:
    seen = {one for step in range(2) for one in drawing().candidates(stage(2), step, 3)}
    assert seen == {one.id for one in PROMPTS}


def test_candidates_of_a_book_are_those_of_a_list() -> None:
    book = PromptBook.of(PROMPTS)
    assert drawing(book).candidates(stage(), 3, 2) == drawing().candidates(stage(), 3, 2)


def test_a_step_that_asks_for_more_than_there_is_draws_some_twice_as_the_usual_draw_does() -> None:
    found = drawing().candidates(stage(20), 1, 1)
    assert len(found) == 20 and set(found) == {one.id for one in PROMPTS}
    assert len(at_step(PROMPTS, 1, 20, 0)) == 20


# ---------------------------------------------------------------- reach


@dataclass
class Shelf:
    """A demonstration of as many tokens as the prompt's number; none for odd ones."""

    def for_prompt(self, prompt_id: str, index: int) -> Trajectory | None:
        number = int(prompt_id[1:])
        if number % 2:
            return None
        return trajectory(f"d-{prompt_id}", number, prompt_id=prompt_id, origin_of=Origin.DEMONSTRATION)

    def at_step(self, step: int, count: int, seed: int) -> list[Trajectory]:
        return []


@dataclass
class Policy:
    """Gives token number t of a response the log-probability -t / 10."""

    asked: list[list[int]] = field(default_factory=list)

    async def logprobs(self, contexts: Sequence[Int32], tokens: Sequence[Int32]) -> list[Float32]:
        self.asked.append([len(one) for one in tokens])
        return [np.linspace(-0.1, -0.1 * len(one), len(one), dtype=np.float32) for one in tokens]


def test_reach_is_the_probability_of_the_whole_response_and_unknown_where_there_is_none() -> None:
    policy = Policy()
    found = asyncio.run(reach(["p4", "p3", "p0", "p2"], Shelf(), policy))
    assert found[0] == pytest.approx(math.exp(-1.0)) and found[3] == pytest.approx(math.exp(-0.3))
    assert math.isnan(found[1]) and math.isnan(found[2]), "no demonstration, and an empty one"
    assert policy.asked == [[4, 2]], "all in one pass"


def test_nobody_is_asked_for_nothing() -> None:
    policy = Policy()
    assert asyncio.run(reach([], Shelf(), policy)) == []
    assert [math.isnan(one) for one in asyncio.run(reach(["p4"], None, policy))] == [True]
    assert policy.asked == []


def test_reach_without_a_learner_is_a_fault_of_the_wiring() -> None:
    with pytest.raises(ValueError, match="reads reach"):
        asyncio.run(reach(["p4"], Shelf(), None))
