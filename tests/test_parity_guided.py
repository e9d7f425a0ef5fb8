"""Under which context a guided method's tokens are written, and under which the loss sees them, as its recipe says."""

import asyncio
import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from orchestrator import recipes
from orchestrator.assemble import assemble
from orchestrator.recipes import Recipe
from orchestrator.records import Collected
from orchestrator.views import Models
from policies.batch import collate
from policies.example import Example
from policies.trajectory import Int32, Origin, Producer, Trajectory
from tests.fakes import FakeFrozen, FakeScorer
from tests.test_collect import World

DEMONSTRATION = "12;3#4"


@dataclass(frozen=True, slots=True)
class Letters:
    """A tokenizer for which a token is a character, so that every template can be read back."""

    eos_ids: tuple[int, ...] = ()

    def prompt(self, text: str) -> Int32:
        return np.array([ord(one) for one in text], np.int32)

    response = prompt

    def turn(self, text: str, *, ended: bool) -> Int32:
        return self.prompt(text)

    def decode(self, ids: Any) -> str:
        return "".join(chr(one) for one in ids)


LETTERS: Any = Letters()


@dataclass(frozen=True, slots=True)
class Seen:
    """A response that trains, and what is in front of it where the writer and where the learner sees it."""

    name: str
    one: Trajectory
    example: Example
    written: str
    trained: str
    """Read from the batch that the learner's model is given."""


def met(name: str, passes: tuple[str, ...], step: int = 0, references: tuple[str, ...] = (), **parameters: Any) -> Any:
    """The recipe, what was collected, and what the learner is given: name of the response -> `Seen`."""
    recipe = recipes.load(name, **parameters)
    chosen = {"references": references} if references else {}
    world = World(LETTERS, recipe.strands, recipe.controls, scorer=FakeScorer(passes=passes), **chosen)
    collected = world.collect(step)
    return recipe, collected, given(recipe, collected)


def given(recipe: Recipe, collected: Collected) -> dict[str, Seen]:
    models = Models(reference=FakeFrozen(), teachers={"*": FakeFrozen()})
    made = asyncio.run(assemble(recipe.strands, collected.groups, models))
    if not made.examples:
        return {}
    batch = collate(made.examples, pad_id=0, packed=False)
    assert batch.inputs_BT is not None
    found = {}
    for row, example in enumerate(made.examples):
        one = example.trajectory
        read = batch.inputs_BT[row].tolist()
        size = len(one.train_context)
        assert read[size : size + len(one.tokens) - 1] == one.tokens[:-1].tolist(), "the response follows"
        name = one.id.split("/", 2)[2]
        found[name] = Seen(name, one, example, LETTERS.decode(one.behavior_context), LETTERS.decode(read[:size]))
    return found


def question(seen: Seen) -> str:
    """The prompt by itself."""
    return f"{seen.one.prompt_id[1:]}+1="


# ---------------------------------------------------------------- hints where everything failed


def test_sages_hint_stays_in_front_of_the_loss() -> None:
    _, collected, seen = met("sage", ("0000/rollouts-1-hint2", "0001/"), rollouts=2)
    names = {"0000/rollouts-0-hint2", "0000/rollouts-1-hint2", "0001/rollouts-0", "0001/rollouts-1"}
    assert set(seen) == names, "the group that all failed is the hinted one, the other is as it was"
    for one in seen.values():
        if "hint" not in one.name:
            assert one.trained == one.written == question(one)
            continue
        told = one.written.removeprefix(question(one) + "\n\nHint: ")
        assert told != one.written and told and DEMONSTRATION.startswith(told) and told != DEMONSTRATION
        assert one.trained == one.written, "keep: the loss sees the hint that the writer saw"
    assert any("hint level 2 of 3" in reason for reason in collected.routed)


def test_scaf_grpos_one_success_is_trained_under_its_hint_among_failures_without() -> None:
    _, _, seen = met("scaf_grpo", ("rollouts-1-hint1",), rollouts=3)
    for group in ("0000", "0001"):
        own = {name: one for name, one in seen.items() if name.startswith(group)}
        assert len(own) == 3 and f"{group}/rollouts-1-hint1" in own
        for one in own.values():
            assert one.trained == one.written
            assert ("Hint: " in one.trained) is ("hint1" in one.name)
        advantages = [float(one.example.advantages[0]) for one in own.values()]
        assert sum(value > 0 for value in advantages) == 1 and abs(sum(advantages)) < 1e-6


def test_scaf_grpos_last_hint_is_the_whole_solution() -> None:
    _, _, seen = met("scaf_grpo", ("rollouts-0-hint3",), rollouts=2)
    hinted = [one for one in seen.values() if "hint" in one.name]
    assert hinted and all(one.trained == f"{question(one)}\n\nHint: {DEMONSTRATION}" for one in hinted)


# ---------------------------------------------------------------- scaffolds and outlines


def test_ruscarls_loss_never_sees_the_rubric() -> None:
    rubric = json.dumps(["be kind", "be brief", "be right"])
    _, _, seen = met("ruscarl", ("rollouts-0",), references=(rubric,) * 6, rollouts=4, midpoint=0.9)
    written = [one.written for one in seen.values() if one.name.startswith("0000")]
    assert "be right" in written[0] and written[3] == question(next(iter(seen.values())))
    assert all(len(more) >= len(less) for more, less in pairwise(written))
    assert all(one.trained == question(one) for one in seen.values())
    assert all(one.example.old_logps is None for one in seen.values()), "old is the learner's, under what trains"


@pytest.mark.parametrize("context", ["keep", "recompute"])
def test_the_outline_trains_or_not_as_the_recipe_says(context: str) -> None:
    _, _, seen = met("template_rl", ("rollouts-0",), rollouts=2, context=context)
    assert len(seen) == 4
    for one in seen.values():
        assert one.written.startswith(question(one)) and one.written.endswith(DEMONSTRATION)
        assert one.trained == (one.written if context == "keep" else question(one))


def test_expos_explanations_know_the_answer_while_writing_alone() -> None:
    _, collected, seen = met("expo", ("rollouts-0", "0000/explanations-1"), rollouts=2, explanations=2)
    names = [name for name in seen if "explanations" in name]
    assert names == ["0000/explanations-1"], "one that passed, and none that failed"
    told = seen["0000/explanations-1"]
    assert "The answer is 4." in told.written and told.trained == question(told)
    assert (told.example.advantages == 1).all()
    bare = [one for one in seen.values() if "rollouts" in one.name]
    assert len(bare) == 4 and all(one.trained == one.written == question(one) for one in bare)
    assert any("explanations-0" in one.id for one in collected.seen)


# ---------------------------------------------------------------- prefixes


@pytest.mark.parametrize(
    ("name", "parameters", "trains"),
    [
        ("hint_prefix", {"schedule": "fixed", "high": 0.5, "segments": 2}, False),
        ("uft", {"low": 0.999, "high": 1.0, "segments": 2}, True),
    ],
)
def test_a_prefix_is_part_of_the_response_and_trains_as_the_recipe_says(
    name: str, parameters: dict[str, Any], trains: bool
) -> None:
    _, _, seen = met(name, ("rollouts-0",), rollouts=2, **parameters)
    assert len(seen) == 4
    for one in seen.values():
        hint = one.one.origin == Origin.HINT
        size = int(hint.sum())
        assert 0 < size < len(one.one.tokens) and hint[:size].all()
        assert DEMONSTRATION.startswith(LETTERS.decode(one.one.tokens[:size]))
        assert one.trained == question(one), "the hint is no part of the context"
        assert (one.one.train_mask[:size] == trains).all() and one.one.train_mask[size:].all()
        assert np.isnan(one.one.behavior_logps[:size]).all()


def test_who_reads_the_prefix_is_said_by_origin() -> None:
    """Imitation reads the hint, reinforcement what the learner wrote: no row is of one kind as a whole."""
    origins = {term.name: term.only.origins for term in recipes.load("uft").strands[0].terms}
    assert origins == {"surrogate": ("learner",), "kl": ("learner",), "hint": ("hint",)}


# ---------------------------------------------------------------- second rounds


def test_critique_grpos_refinement_is_trained_without_the_critique() -> None:
    _, _, seen = met("critique_grpo", ("rollouts-0", "refinements-0"), rollouts=3)
    refined = [one for one in seen.values() if "refinements" in one.name]
    assert len(refined) == 2
    for one in refined:
        parent = seen[one.name.replace("refinements-0", "rollouts-1")].one
        assert one.one.parent_id == parent.id, "a failed one"
        assert parent.text in one.written and "Critique: wrong" in one.written
        assert one.trained == question(one)
        group = [other for other in seen.values() if other.one.group_id == one.one.group_id]
        assert len(group) == 4 and one.example.advantages[0] == np.float32(1 - 2 / 4), "the mean is over all four"


def test_constitutional_ais_revision_sees_the_critique_and_trains_without_it() -> None:
    _, _, seen = met("constitutional_ai", ("first-0",), rollouts=2, revisions=2)
    assert {one.name.split("/")[1].split("-")[0] for one in seen.values()} == {"revisions"}, "first ones do not train"
    for one in seen.values():
        assert one.one.producer == Producer.REVISION and one.one.parent_id.replace("first", "revisions") == one.one.id
        assert "Critique: " in one.written and one.trained == question(one)


def test_scores_two_turns_are_one_response_whose_terms_know_the_turns() -> None:
    _, _, seen = met("score", ("second-0",), rollouts=2)
    assert {name.split("/")[1] for name in seen} == {"second-0", "second-1"}
    for one in seen.values():
        part = one.example.part
        assert part is not None and one.trained == question(one)
        between = one.one.origin == Origin.ENVIRONMENT
        assert between.any() and not one.one.train_mask[between].any()
        assert set(part[one.one.train_mask].tolist()) == {0, 1}
    worth = {name: (float(one.example.advantages[0]), float(one.example.advantages[-1])) for name, one in seen.items()}
    assert worth["0000/second-0"] == (0.0, 5.5), "11 for a progress of 1, less the mean; no first turn passed"


# ---------------------------------------------------------------- what only the teacher sees


@pytest.mark.parametrize(
    ("name", "told"),
    [("opsd", DEMONSTRATION), ("opcd", "Reason step by step"), ("sdpo", "Feedback on an earlier attempt: wrong")],
)
def test_a_teachers_privilege_is_the_teachers_alone(name: str, told: str) -> None:
    _, _, seen = met(name, ("rollouts-0",), rollouts=2)
    shown = [LETTERS.decode(one.one.teacher_context) for one in seen.values()]
    assert sum(told in text for text in shown) == (2 if name == "sdpo" else 4)
    for one in seen.values():
        assert one.trained == one.written == question(one)
