"""A pair across two strands: the joined strand's response trains under the one that makes the pair."""

import asyncio
from dataclasses import replace

import numpy as np

from orchestrator import recipes
from orchestrator.assemble import assemble
from orchestrator.records import Group, Member
from orchestrator.views import Models
from policies.trajectory import Origin, Producer
from tests.fakes import trajectory


class Flat:
    """A reference that finds every token equally likely."""

    async def logprobs(self, contexts, tokens, top_k):
        from actors.engine import TokenScores

        return [TokenScores(np.full(len(one), -2.0, np.float32)) for one in tokens]


def assembled(own: float, theirs: float):
    strands = recipes.load("xpo").strands
    members = (
        Member(trajectory("own", reward=own, group_id="g"), 0),
        Member(
            replace(
                trajectory("other", reward=theirs, group_id="g", origin_of=Origin.DEMONSTRATION),
                producer=Producer.TEACHER,
                origin=np.full(4, int(Origin.TEACHER), np.int8),
            ),
            1,
        ),
    )
    return asyncio.run(assemble(strands, [Group("g", members)], Models(reference=Flat())))


def test_the_better_of_the_two_is_chosen_and_both_train_under_the_pairs_strand() -> None:
    for own, theirs in ((1.0, 0.0), (0.0, 1.0)):
        made = assembled(own, theirs)
        labels = {one.trajectory.id: one.trajectory.preference.label for one in made.examples}
        assert labels == {"own": own, "other": theirs}
        assert {one.strand for one in made.examples} == {0}
        assert len({one.trajectory.preference.set_id for one in made.examples}) == 1
        assert all(one.reference_logps is not None for one in made.examples)
        assert made.aside == ()


def test_a_tie_makes_no_pair_and_says_so() -> None:
    made = assembled(1.0, 1.0)
    assert made.examples == ()
    assert {one.id for one in made.dropped} == {"own", "other"}
    assert all("no pair" in one.reason for one in made.dropped)


def test_a_strand_may_be_compared_with_its_own_members_alone() -> None:
    rewards = {"f0": 1.0, "f1": 0.0, "p0": 5.0, "p1": 4.0}
    for scope, expected in (("strand", [0.5, -0.5, 0.5, -0.5]), ("all", [-1.5, -2.5, 2.5, 1.5])):
        strands = recipes.load("repo", normalise=scope).strands
        undivided = [
            one.model_copy(update={"credit": one.credit.model_copy(update={"scale": "none"})}) for one in strands
        ]
        members = tuple(
            Member(trajectory(name, reward=value, group_id="g"), int(name.startswith("p")))
            for name, value in rewards.items()
        )
        made = asyncio.run(assemble(undivided, [Group("g", members)], Models()))
        assert [float(one.advantages[0]) for one in made.examples] == expected
