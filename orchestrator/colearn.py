"""Co-learners: a critic, a reward model or a discriminator that trains in every step on the policy's records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.marks import targets
from orchestrator.ports import Critic, Scorer
from orchestrator.recipes.schema import CoLearner
from policies.config import Strand
from policies.example import Example
from policies.prompt import Prompt
from policies.trajectory import ScoreEntry, Trajectory


def critic_of(learners: Sequence[CoLearner], ports: Mapping[str, Critic]) -> Critic | None:
    """The co-learner whose values credit reads."""
    return next((ports[one.name] for one in learners if one.role == "critic"), None)


def warming(learners: Sequence[CoLearner], stage_step: int) -> bool:
    """Whether the step belongs to a co-learner that trains alone at first."""
    return any(stage_step < one.warmup for one in learners)


async def train_beside(
    learners: Sequence[CoLearner],
    ports: Mapping[str, Critic],
    strands: Sequence[Strand],
    examples: Sequence[Example],
    updates: int,
) -> None:
    """Each co-learner's step on the records of the strands that it names."""
    for learner in learners:
        own = records(learner, strands, examples)
        if own:
            await ports[learner.name].step(own, updates, {})


def records(learner: CoLearner, strands: Sequence[Strand], examples: Sequence[Example]) -> list[Example]:
    """The policy's examples as the co-learner's: its own strand's index, and the targets that its terms ask for."""
    places = {strand.name: (index, strand) for index, strand in enumerate(learner.strands)}
    found = []
    for one in examples:
        if strands[one.strand].name in places:
            index, strand = places[strands[one.strand].name]
            asked = targets(strand, one.trajectory) if one.targets is None else one.targets
            found.append(replace(one, strand=index, targets=asked))
    return found


@dataclass(frozen=True, slots=True)
class LearnedScorer:
    """A scorer whose reward is a co-learner's output at the response's last token; the verifier's stands beside it."""

    learner: Critic
    verifier: Scorer
    name: str
    """The co-learner's."""

    async def score(self, trajectories: Sequence[Trajectory], prompts: Mapping[str, Prompt]) -> list[Trajectory]:
        """The same trajectories, scored, in order."""
        judged = await self.verifier.score(trajectories, prompts)
        asked = [one for one in judged if len(one.tokens)]
        values = await self.learner.scores([one.train_context for one in asked], [one.tokens for one in asked])
        by_id = {one.id: value for one, value in zip(asked, values, strict=True)}
        return [self._scored(one, by_id.get(one.id)) for one in judged]

    def _scored(self, one: Trajectory, value: float | None) -> Trajectory:
        """`reward` is the co-learner's value, with the verifier's verdict; the verifier's value is named `verifier`."""
        if value is None:
            return one
        said = next((entry for entry in one.scores if entry.name == "reward"), None)
        own = ScoreEntry(
            "reward", value, said.passed if said else None, reason=said.reason if said else "", scorer=self.name
        )
        rest = tuple(replace(entry, name="verifier") if entry is said else entry for entry in one.scores)
        return replace(one, scores=(own, *rest))
