"""Collection: the order of rounds, the contexts, what stands before the new tokens, and what is asked again."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from orchestrator.collect import Collector, Recipe
from orchestrator.config import RecipeChoice, Stage
from orchestrator.controls import Control, Scope, StepPlan, initial, plan_step
from orchestrator.controls.config import Buffer, Constant, Gate, Ladder, Prefix, Scaffold, ZeroVariance
from orchestrator.label_config import StepLabels
from orchestrator.records import Collected, Member
from orchestrator.step_labels import StepLabeller
from policies.config import ConstantCredit, GroupCredit, Point, ProcessCredit, Source, Strand, Term, TinyModel
from policies.model_folder import materialise
from policies.prompt import Prompt
from policies.step_config import StepCut
from policies.tokens import Tokenizer
from policies.trajectory import Origin, Producer, Trajectory
from tests.fakes import FakeSampler, FakeScorer, prompt, trajectory

TERM = Term(name="t", kernel=Point())


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(materialise(TinyModel(preset="arithmetic-small"), tmp_path_factory.mktemp("model")))


@dataclass
class Shelf:
    """One demonstration `12;3#4` for each prompt."""

    tokens: Any
    missing: frozenset[str] = frozenset()

    def for_prompt(self, prompt_id: str, index: int) -> Trajectory | None:
        if index or prompt_id in self.missing:
            return None
        given = {"tokens": self.tokens, "text": "12;3#4", "origin_of": Origin.DEMONSTRATION}
        return trajectory(f"d-{prompt_id}", len(self.tokens), prompt_id=prompt_id, **given)

    def at_step(self, step: int, count: int, seed: int) -> list[Trajectory]:
        found = [self.for_prompt(f"p{draw}", 0) for draw in range(count)]
        return [one for one in found if one is not None]


@dataclass
class World:
    """A collector over fakes."""

    tokenizer: Tokenizer
    strands: tuple[Strand, ...]
    controls: tuple[Control, ...] = ()
    scorer: FakeScorer = field(default_factory=FakeScorer)
    sampler: FakeSampler = field(default_factory=lambda: FakeSampler(version=0))
    writers: Mapping[str, FakeSampler] = field(default_factory=dict)
    references: tuple[str, ...] = ('"4"',) * 6
    missing: frozenset[str] = frozenset()
    steps: int = 10

    def prompts(self) -> tuple[Prompt, ...]:
        made = enumerate(self.references)
        return tuple(
            prompt(f"p{at}", text=f"{at}+1=", tokens=self.tokenizer.prompt(f"{at}+1="), reference=told)
            for at, told in made
        )

    def plan(self, step: int = 0) -> StepPlan:
        scope = Scope(self.steps, tuple(one.name for one in self.strands))
        return plan_step(self.controls, [initial(one) for one in self.controls], step, {}, 3, scope)

    def collect(self, step: int = 0, plan: StepPlan | None = None, **fields: Any) -> Collected:
        config = {"prompts_per_step": 2, "steps": self.steps}
        stage = Stage(name="a", recipe=RecipeChoice(kind="grpo"), **config)
        shelf = Shelf(self.tokenizer.response("12;3#4"), self.missing)
        prompts = self.prompts()
        base: dict[str, Any] = {"tokenizer": self.tokenizer, "writers": self.writers, **fields}
        collector = Collector(self.sampler, self.scorer, prompts, {one.id: one for one in prompts}, shelf, 3, **base)
        recipe = Recipe(stage, self.strands, self.controls)
        return asyncio.run(collector.collect(recipe, step, plan or self.plan(step)))


def strand(name: str, terms: tuple[Term, ...] = (TERM,), credit: Any = None, **source: Any) -> Strand:
    base = {"producer": "rollout", "per_prompt": 2, **source}
    return Strand(name=name, source=Source(**base), credit=credit or GroupCredit(), terms=terms)


def members(collected: Collected, index: int) -> list[Member]:
    return [one for group in collected.groups for one in group.members if one.strand == index]


def text(tokenizer: Tokenizer, context: Any) -> str:
    return tokenizer.decode(context)


# ---------------------------------------------------------------- step labels


def test_steps_are_labelled_for_the_strands_that_read_them_and_counted(tokenizer: Tokenizer) -> None:
    world = World(tokenizer, (strand("stepwise", credit=ProcessCredit()), strand("whole")))
    by_id, cut = {one.id: one for one in world.prompts()}, StepCut(at="length", size=3)
    prover = FakeSampler(version=9)
    labeller = StepLabeller(StepLabels(completions=3, steps=cut), prover, FakeScorer(), by_id, tokenizer, 3)
    collected = world.collect(labeller=labeller)
    assert [[e.end for e in one.trajectory.scores if e.name == "step"] for one in members(collected, 0)] == [[3, 4]] * 4
    assert not any(e.name == "step" for one in members(collected, 1) for e in one.trajectory.scores)
    assert len(prover.asked) == collected.labels.completions == 2 * 3, "a group's responses are alike here"
    assert collected.labels.tokens == 6 * 4 and collected.tokens_generated == 8 * 4
    assert collected.labels.seconds > 0
    assert not world.collect().labels.completions


# ---------------------------------------------------------------- rounds


def test_a_second_round_follows_the_first_under_a_context_of_its_own(tokenizer: Tokenizer) -> None:
    told = {"behavior": "{{ prompt }}-{{ parent|length }}", "context_shift": "recompute"}
    refine = strand("refine", per_prompt=1, parent="first", parent_is="failed", **told)
    world = World(tokenizer, (refine, strand("first")), scorer=FakeScorer(passes=("first-0",)))
    collected = world.collect()
    names = [one.id.rsplit("/", 1)[1] for one in world.sampler.asked]
    assert names == ["first-0", "first-1", "first-0", "first-1", "refine-0", "refine-0"], "parents are written first"
    assert world.sampler.calls == [0, 0], "one call a round"
    for one in members(collected, 0):
        own = one.trajectory
        assert own.parent_id == own.group_id + "/first-1" and own.producer is Producer.REVISION, "the failed one"
        length = len(f"text of {own.parent_id}")
        assert text(tokenizer, own.behavior_context).endswith(f"+1=-{length}")
        assert text(tokenizer, own.train_context).endswith("+1="), "the loss does not see the critique"


def test_nothing_failed_leaves_nothing_to_refine_and_says_so(tokenizer: Tokenizer) -> None:
    refine = strand("refine", per_prompt=1, parent="first", parent_is="failed")
    collected = World(tokenizer, (strand("first"), refine), scorer=FakeScorer(passes=("first",))).collect()
    assert members(collected, 1) == []
    told = [(one.id, one.reason) for one in collected.dropped]
    assert told == [(f"a/000000/000{at}/refine", "no failed response of first to follow") for at in range(2)]


def test_rounds_go_as_deep_as_the_line_of_parents(tokenizer: Tokenizer) -> None:
    solve = strand("solve", terms=())
    critique = strand("critique", parent="solve", per_prompt=2, credit=GroupCredit(value="children"))
    correct = strand("correct", parent="critique", per_prompt=4, terms=())
    world = World(tokenizer, (correct, critique, solve))
    collected = world.collect()
    order = [one.id.rsplit("/", 1)[1].split("-")[0] for one in world.sampler.asked]
    assert order == ["solve"] * 4 + ["critique"] * 4 + ["correct"] * 8
    born = [one.trajectory.parent_id.rsplit("/", 1)[1] for one in collected.groups[0].members if one.strand == 0]
    assert born == ["critique-0", "critique-1", "critique-0", "critique-1"], "corrections are shared out evenly"


def test_a_turn_is_one_record_of_both_answers(tokenizer: Tokenizer) -> None:
    first = strand("first", terms=())
    again = strand("again", parent="first", turn="+{{ prompt }}")
    collected = World(tokenizer, (first, again), scorer=FakeScorer(passes=("again-0",))).collect()
    by_id = {one.trajectory.id: one.trajectory for one in members(collected, 0)}
    for one in members(collected, 1):
        both, parent = one.trajectory, by_id[one.trajectory.parent_id]
        turn = np.flatnonzero(both.origin == Origin.ENVIRONMENT)
        size, after = len(parent.tokens), int(turn[-1]) + 1
        assert turn.tolist() == list(range(size, after)), "the environment speaks between the answers"
        assert text(tokenizer, both.tokens[turn]).startswith("+")
        assert not both.train_mask[turn].any() and both.train_mask[:size].all() and both.train_mask[after:].all()
        assert np.isnan(both.behavior_logps[turn]).all() and not np.isnan(both.behavior_logps[after:]).any()
        assert (both.token_version[turn] == -1).all()
        np.testing.assert_array_equal(both.train_context, parent.train_context)
        spans = [(entry.start, entry.end, entry.passed) for entry in both.scores if entry.name == "turn"]
        assert spans == [(0, size, False), (after, len(both.tokens), "again-0" in both.id)]
    asked = [one for one in collected.seen if "again" in one.id]
    assert all(one.producer is Producer.ROLLOUT for one in asked)


# ---------------------------------------------------------------- contexts


def test_a_shift_of_context_is_kept_or_recomputed(tokenizer: Tokenizer) -> None:
    hinted = {"behavior": "{{ prompt }}#{{ answer }}", "teacher": "{{ demonstration }}"}
    kept = strand("kept", context_shift="keep", **hinted)
    bare = strand("bare", context_shift="recompute", **hinted)
    collected = World(tokenizer, (kept, bare)).collect()
    for index, ends in enumerate(("+1=#4", "+1=")):
        for one in members(collected, index):
            assert text(tokenizer, one.trajectory.behavior_context).endswith("+1=#4")
            assert text(tokenizer, one.trajectory.train_context).endswith(ends)
            assert text(tokenizer, one.trajectory.teacher_context) == "12;3#4"


def test_a_context_that_cannot_be_made_is_a_drop_with_a_reason(tokenizer: Tokenizer) -> None:
    hinted = strand("hinted", behavior="{{ demonstration }}", context_shift="keep")
    world = World(tokenizer, (hinted,), missing=frozenset(f"p{at}" for at in range(6)))
    collected = world.collect()
    assert collected.groups == () and len(collected.dropped) == 4
    assert all("demonstration" in one.reason for one in collected.dropped)
    assert world.sampler.asked == []


def test_a_passing_sibling_is_shown_to_the_teacher(tokenizer: Tokenizer) -> None:
    told = "{% if sibling is defined %}{{ sibling|length }}{% else %}0{% endif %}"
    collected = World(tokenizer, (strand("own", teacher=told),), scorer=FakeScorer(passes=("own-0",))).collect()
    for one in members(collected, 0):
        passing = f"text of {one.trajectory.group_id}/own-0"
        shown = "0" if one.trajectory.id.endswith("own-0") else str(len(passing))
        assert text(tokenizer, one.trajectory.teacher_context) == shown, "nobody is its own sibling"


def test_a_response_too_long_for_its_training_context_is_dropped(tokenizer: Tokenizer) -> None:
    collected = World(tokenizer, (strand("own"),)).collect(longest=7)
    assert collected.groups == () and "the model reads 7" in collected.dropped[0].reason


def test_the_scaffold_shows_less_of_the_rubric_from_response_to_response(tokenizer: Tokenizer) -> None:
    rubric = json.dumps(["1", "2", "3"])
    scaffold = Scaffold(strand="own", steepness=1e-6, midpoint=1.0)
    own = strand("own", per_prompt=3, behavior="{{ prompt }}{{ criteria|length }}", context_shift="recompute")
    world = World(tokenizer, (own,), (scaffold,), references=(rubric,) * 6)
    lengths = [int(text(tokenizer, one.context).partition("=")[2]) for one in world.collect() and world.sampler.asked]
    assert lengths[:3] == sorted(lengths[:3], reverse=True) and lengths[0] > lengths[2] == 0


# ---------------------------------------------------------------- prefixes


@pytest.mark.parametrize("trained", [False, True])
def test_a_prefix_is_hint_tokens_that_nobody_sampled(tokenizer: Tokenizer, trained: bool) -> None:
    own = strand("own", prefix=True, hint_trained=trained)
    world = World(tokenizer, (own,), (Prefix(strand="own", schedule="fixed", high=0.5, segments=2),))
    collected = world.collect()
    demonstration = tokenizer.response("12;3#4")
    for one, asked in zip(members(collected, 0), world.sampler.asked, strict=True):
        held = one.trajectory
        np.testing.assert_array_equal(held.tokens[:3], demonstration[:3])
        assert held.origin[:3].tolist() == [Origin.HINT] * 3 and (held.origin[3:] == Origin.LEARNER).all()
        assert (held.train_mask[:3] == trained).all() and held.train_mask[3:].all()
        assert np.isnan(held.behavior_logps[:3]).all() and (held.token_version[:3] == -1).all()
        np.testing.assert_array_equal(asked.context, np.concatenate([held.train_context, demonstration[:3]]))
        assert held.text.startswith("12;") and held.version == 0


# ---------------------------------------------------------------- writers


def test_a_frozen_writer_is_nobodys_version(tokenizer: Tokenizer) -> None:
    teacher = FakeSampler(version=0)
    strands = (strand("own"), strand("taught", producer="teacher", per_prompt=1, temperature=0.0))
    collected = World(tokenizer, strands, writers={"teacher": teacher}).collect()
    for one in members(collected, 1):
        assert one.trajectory.producer is Producer.TEACHER and one.trajectory.version == -1
        assert (one.trajectory.origin == Origin.TEACHER).all() and (one.trajectory.token_version == -1).all()
        assert not np.isnan(one.trajectory.behavior_logps).any(), "what it gave them is known"
    assert [one.sampling.temperature for one in teacher.asked] == [0.0, 0.0]


def test_a_writer_for_the_step_has_prompts_of_its_own(tokenizer: Tokenizer) -> None:
    own = strand("own", per_prompt=0, per_step=3)
    collected = World(tokenizer, (own,)).collect()
    assert [group.id for group in collected.groups] == [f"a/000000/own-{at:04d}" for at in range(3)]
    assert len({group.members[0].trajectory.prompt_id for group in collected.groups}) == 3


def test_names_and_seeds_are_functions_of_the_step(tokenizer: Tokenizer) -> None:
    strands = (strand("first"), strand("refine", per_prompt=1, parent="first"))
    asked = []
    for _ in range(2):
        world = World(tokenizer, strands)
        world.collect(4)
        asked.append([(one.id, one.seed, one.prompt_id, one.context.tolist()) for one in world.sampler.asked])
    assert asked[0] == asked[1]
    other = World(tokenizer, strands)
    other.collect(5)
    assert not {one.seed for one in other.sampler.asked} & {seed for _, seed, _, _ in asked[0]}


# ---------------------------------------------------------------- controls


def test_a_strand_with_coefficient_0_is_not_collected(tokenizer: Tokenizer) -> None:
    strands = (strand("own"), strand("book", producer="demonstration", per_prompt=1))
    world = World(tokenizer, strands, (Constant(strand="own", coefficient=0.0),))
    collected = world.collect()
    assert world.sampler.asked == [] and {one.strand for one in collected.groups[0].members} == {1}
    both = World(tokenizer, strands)
    both.collect()
    assert len(both.sampler.asked) == 4


def test_a_failed_group_is_asked_again_with_more_and_more_of_a_hint(tokenizer: Tokenizer) -> None:
    own = strand("own", behavior="{{ prompt }}{{ hint }}", context_shift="keep")
    world = World(
        tokenizer, (own,), (Ladder(strand="own", levels=2),), scorer=FakeScorer(passes=("0000/own-1-hint2", "0001"))
    )
    collected = world.collect()
    told = {one.id.split("/", 2)[2]: text(tokenizer, one.context).partition("=")[2] for one in world.sampler.asked}
    assert told == {
        "0000/own-0": "", "0000/own-1": "", "0001/own-0": "", "0001/own-1": "",
        "0000/own-0-hint1": "12;", "0000/own-1-hint1": "12;", "0000/own-0-hint2": "12;", "0000/own-1-hint2": "12;",
    }  # fmt: skip
    ids = [one.trajectory.id.rsplit("/", 1)[1] for one in collected.groups[0].members]
    assert ids == ["own-0-hint2", "own-1-hint2"], "the hinted group takes the failed one's place"
    for one in collected.groups[0].members:
        np.testing.assert_array_equal(one.trajectory.train_context, one.trajectory.behavior_context)
    assert any("hint level 2 of 2" in reason for reason in collected.routed)


def test_one_hinted_success_takes_one_failures_place(tokenizer: Tokenizer) -> None:
    own = strand("own", behavior="{{ prompt }}{{ hint }}", context_shift="keep")
    ladder = Ladder(strand="own", levels=2, replace="one")
    world = World(tokenizer, (own,), (ladder,), scorer=FakeScorer(passes=("own-1-hint1",)))
    for group in world.collect().groups:
        assert [one.trajectory.id.rsplit("/", 1)[1] for one in group.members] == ["own-1-hint1", "own-1"]


def test_a_group_without_a_difference_gives_its_place_to_another_prompt(tokenizer: Tokenizer) -> None:
    world = World(
        tokenizer,
        (strand("own"),),
        (ZeroVariance(action="redraw", rounds=2),),
        scorer=FakeScorer(passes=("0001/own-0",)),
    )
    collected = world.collect()
    assert [group.id for group in collected.groups] == ["a/000000/0001"]
    drawn = list(dict.fromkeys(one.group_id for one in world.sampler.asked))
    assert drawn == ["a/000000/0000", "a/000000/0001", "a/000000/0000~1", "a/000000/0000~2"], "bounded by rounds"
    assert [one.id for one in collected.dropped] == ["a/000000/0000", "a/000000/0000~1", "a/000000/0000~2"]
    assert len(collected.seen) == 8, "what was drawn in vain is among the step's rewards"


def test_a_gate_sends_one_strand_away_with_its_reason(tokenizer: Tokenizer) -> None:
    strands = (strand("own"), strand("book", producer="demonstration", per_prompt=1, credit=ConstantCredit()))
    scorer = FakeScorer(passes=("0001/own-0",))
    world = World(tokenizer, strands, (Gate(strand="own", otherwise="book"),), scorer=scorer)
    collected = world.collect()
    assert [{one.strand for one in group.members} for group in collected.groups] == [{1}, {0}]
    assert {one.id.rsplit("/", 1)[1] for one in collected.dropped} == {"own-0", "own-1", "book-0"}
    assert all("the gate is at 0" in one.reason for one in collected.dropped)


def test_prompts_that_waited_train_alone(tokenizer: Tokenizer) -> None:
    strands = (strand("own"), strand("book", producer="demonstration", per_prompt=1, credit=ConstantCredit()))
    world = World(tokenizer, strands, (Buffer(watch="own", strand="book", size=2),), scorer=FakeScorer(passes=()))
    first = world.collect()
    assert {one.strand for group in first.groups for one in group.members} == {0}, "the book rests until it is full"
    waited = [group.members[0].trajectory.prompt_id for group in first.groups]
    plan = plan_step(world.controls, first.states, 1, {}, 3, Scope(10, ("own", "book")))
    second = world.collect(1, plan)
    assert [one.trajectory.prompt_id for one in members(second, 1)] == waited and not members(second, 0)
    assert json.loads(json.dumps(second.states)) == list(second.states), "a checkpoint can hold them"


def test_nobody_is_judged_whose_verdict_nobody_reads(tokenizer: Tokenizer) -> None:
    quiet = World(tokenizer, (strand("own", credit=ConstantCredit()),))
    quiet.collect()
    assert quiet.scorer.judged == []
    chosen = World(tokenizer, (strand("own", credit=ConstantCredit(), select={"kind": "passed"}),))
    chosen.collect()
    assert len(chosen.scorer.judged) == 4
