"""What is there before a step joins its group: under a name of its own, its writer kept, its source named."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from orchestrator.asking import Slot
from orchestrator.config import RecipeChoice, Stage
from orchestrator.given import Giving, Shelves, is_given
from orchestrator.prepared import Prepared
from orchestrator.replay import Replay
from policies.config import Prepare, Source, Strand
from policies.trajectory import PER_TOKEN, Origin, Preference, Producer, ScoreEntry, Trajectory
from tests.fakes import prompt, trajectory
from tests.test_loop import Book

EVERYBODY = ["rollout", "revision", "correction", "search", "teacher", "demonstration"]
SLOT = Slot("a/000006/p0", prompt("p0"))


def strand(producer: str, name: str = "s", **source: Any) -> Strand:
    given = {"producer": producer, **({} if "per_step" in source else {"per_prompt": 4}), **source}
    return Strand(name=name, source=Source.model_validate(given), terms=())


def giving(shelves: Shelves, step: int = 6) -> Giving:
    stage = Stage(name="a", recipe=RecipeChoice(kind="grpo"), steps=10)
    return Giving(shelves, stage, step, seed=1)


def scored(name: str, **fields: Any) -> Trajectory:
    return trajectory(name, scores=(ScoreEntry("reward", 1.0, True),), **fields)


def remembered(*rows: Trajectory) -> Shelves:
    replay = Replay.of([strand("replay", past={"producers": EVERYBODY})])
    assert replay is not None
    replay.remember(rows, 3)
    return Shelves(replay=replay)


MIXED = np.array([Origin.HINT, Origin.LEARNER, Origin.ENVIRONMENT, Origin.LEARNER], np.int8)


def hinted() -> Trajectory:
    """A first turn after a hint, then a second one of a later version."""
    return scored(
        "a/000002/x",
        version=2,
        origin=MIXED,
        token_version=np.array([-1, 2, -1, 3], np.int32),
        train_mask=np.array([False, True, False, True]),
        behavior_logps=np.array([np.nan, -0.5, np.nan, -0.25], np.float32),
    )


TAUGHT = scored("a/000002/t", origin_of=Origin.TEACHER, producer=Producer.TEACHER, model="large")
SHOWN = scored("a/000002/d", origin_of=Origin.DEMONSTRATION, preference=Preference("set", 1.0))
REVISED = scored("a/000002/r", version=2, producer=Producer.REVISION, parent_id="a/000002/y")


@pytest.mark.parametrize(
    ("one", "producer"),
    [
        (hinted(), Producer.REPLAY),
        (REVISED, Producer.REPLAY),
        (TAUGHT, Producer.TEACHER),
        (SHOWN, Producer.DEMONSTRATION),
    ],
    ids=["rollout", "revision", "teacher", "demonstration"],
)
def test_what_is_replayed_keeps_its_writers_versions_and_probabilities(one: Trajectory, producer: Producer) -> None:
    shelves = remembered(one)
    asked = strand("replay", past={"producers": EVERYBODY})
    (member,), missing = giving(shelves).for_slot(SLOT, 5, asked)
    back = member.trajectory
    assert (member.strand, missing) == (5, 3)
    assert (back.id, back.group_id, back.parent_id) == ("a/000006/p0/s-0", SLOT.group, one.id)
    assert (back.producer, back.model, back.version, back.scores) == (producer, one.model, one.version, one.scores)
    for name in PER_TOKEN:
        assert getattr(back, name).tobytes() == getattr(one, name).tobytes(), name
    assert back.preference is None, "the other side is not drawn with it"


def test_what_is_replayed_for_a_step_is_a_group_of_its_own() -> None:
    asked = strand("replay", "again", per_step=2)
    replay = Replay.of([asked])
    assert replay is not None
    replay.remember([scored("x0"), scored("x1", prompt_id="p1")])
    groups = dict(giving(Shelves(replay=replay)).for_step(2, asked))
    assert sorted(groups) == ["a/000006/again-0000", "a/000006/again-0001"]
    for name, (member,) in groups.items():
        one = member.trajectory
        assert (one.id, one.group_id, one.producer) == (f"{name}/given", name, Producer.REPLAY)
    assert {members[0].trajectory.parent_id for members in groups.values()} == {"x0", "x1"}


def test_a_memory_without_anything_in_it_leaves_everything_missing() -> None:
    prompts, step = strand("replay"), strand("replay", per_step=3)
    for shelves in (Shelves(), Shelves(replay=Replay.of([prompts, step]))):
        assert giving(shelves).for_slot(SLOT, 0, prompts) == ([], 4)
        assert dict(giving(shelves).for_step(0, step)) == {}


def test_two_strands_draw_with_seeds_of_their_own() -> None:
    one, other = strand("replay", "one", refill="random"), strand("replay", "other", refill="random")
    replay = Replay.of([one, other])
    assert replay is not None and len(replay.stores) == 1, "they ask for the same"
    replay.remember(scored(f"x{at}") for at in range(16))

    def drawn(asked: Strand, step: int) -> list[str]:
        slot = Slot(f"a/{step:06d}/p0", prompt("p0"))
        members, _ = giving(Shelves(replay=replay), step).for_slot(slot, 0, asked)
        return [member.trajectory.parent_id for member in members]

    assert drawn(one, 1) == drawn(one, 1)
    assert len({tuple(drawn(asked, step)) for asked in (one, other) for step in range(4)}) == 8


def test_a_demonstration_stays_one_and_names_its_row() -> None:
    members, missing = giving(Shelves(demonstrations=Book())).for_slot(SLOT, 1, strand("demonstration"))
    assert missing == 0 and [one.trajectory.id for one in members] == [f"a/000006/p0/s-{at}" for at in range(4)]
    assert {one.trajectory.parent_id for one in members} == {"d-p0"}
    assert {one.trajectory.producer for one in members} == {Producer.DEMONSTRATION}
    bare = giving(Shelves(demonstrations=Book(missing=frozenset({"p0"}))))
    assert bare.for_slot(SLOT, 1, strand("demonstration")) == ([], 4)


def test_what_the_learner_prepared_is_replayed_and_what_a_teacher_did_is_not() -> None:
    prepare = Prepare(keep="all")
    asked = strand("demonstration", "kept", prepare=prepare)
    kept = Prepared.of(prepare, [scored("x", version=1), TAUGHT])
    members, _ = giving(Shelves(prepared={"kept": kept})).for_slot(SLOT, 0, asked)
    assert [one.trajectory.producer for one in members] == [Producer.REPLAY, Producer.TEACHER]


@dataclass
class Pairs:
    """One set, drawn twice."""

    def at_step(self, step: int, count: int, seed: int) -> list[tuple[Trajectory, ...]]:
        given = {"origin_of": Origin.DEMONSTRATION}
        sides = [trajectory(f"row-{at}", preference=Preference("row", 1.0 - at), **given) for at in (0, 1)]
        return [tuple(sides)] * count


def test_a_set_drawn_twice_is_two_sets() -> None:
    asked = strand("preference", "pairs", per_step=2)
    groups = dict(giving(Shelves(preferences=Pairs())).for_step(0, asked))
    assert len(groups) == 2
    for name, members in groups.items():
        assert [one.trajectory.id for one in members] == [f"{name}/0", f"{name}/1"]
        told = [one.trajectory.preference for one in members]
        assert [(one.set_id, one.label) for one in told if one] == [(name, 1.0), (name, 0.0)]
    with pytest.raises(ValueError, match="no key `preferences`"):
        dict(giving(Shelves()).for_step(0, asked))


@pytest.mark.parametrize(
    ("one", "given"),
    [
        (strand("rollout"), False),
        (strand("teacher"), False),
        (strand("replay"), True),
        (strand("demonstration"), True),
        (strand("rollout", prepare={}), True),
    ],
)
def test_what_is_given_is_there_before_the_step(one: Strand, given: bool) -> None:
    assert is_given(one) is given
