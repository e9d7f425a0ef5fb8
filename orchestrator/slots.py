"""Which prompts a step has and which strands each is for: pure functions of (seed, stage, step) and the step's plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.asking import Asking, Slot, seed_for
from orchestrator.config import Stage
from orchestrator.given import is_given
from orchestrator.prompts import at_step
from policies.config import Strand
from policies.prompt import Prompt
from teachers.draws import draw
from teachers.prompt_book import PromptBook


def group_name(stage: Stage, step: int, slot: int) -> str:
    """The group of prompt `slot` at a step of a stage."""
    return f"{stage.name}/{step:06d}/{slot:04d}"


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """Draws a step's prompts and gives each its slot."""

    prompts: Sequence[Prompt]
    by_id: Mapping[str, Prompt]
    seed: int

    def candidates(self, stage: Stage, step: int, factor: int) -> Sequence[str]:
        """Ids of the prompts that controls may choose from: `factor` times the step's, where there are so many.

        With a factor of 1 they are the step's usual prompts.
        """
        count = stage.prompts_per_step
        most = max(min(factor * count, len(self.prompts)), count)
        numbers = draw(len(self.prompts), step, most, seed_for(self.seed, stage.name, "prompts"))
        if isinstance(self.prompts, PromptBook):
            return [self.prompts.name(number) for number in numbers]  # a name costs no tokens
        return [self.prompts[number].id for number in numbers]

    def slots(self, asking: Asking) -> list[Slot]:
        """The step's prompts, then those of strands that have prompts of their own."""
        stage, strands, plan = asking.stage, asking.strands, asking.plan
        active = [strand for strand in strands if strand.name not in plan.rest]
        shared = frozenset(one.name for one in active if one.source.per_prompt and one.name not in plan.only_prompts)
        slots: list[Slot] = []
        for at, (prompt, only) in enumerate(self._chosen(asking) if shared else ()):
            asked = only & shared if only else shared
            slots += [Slot(group_name(stage, asking.step, at), prompt, only=asked)] if asked else []
        for strand in active:
            slots += self._own_slots(asking, strand)
        return slots

    def elsewhere(self, asking: Asking, slot: Slot) -> Slot:
        """Another prompt in the slot's place: a function of the slot and of how often it was drawn in vain."""
        number = slot.round + 1
        stem = slot.group.partition("~")[0]
        (prompt,) = self._prompts(asking.stage, asking.step, 1, stem, number)
        return replace(slot, group=f"{stem}~{number}", prompt=prompt, round=number, level=0, shares={})

    def _chosen(self, asking: Asking) -> list[tuple[Prompt, frozenset[str]]]:
        """The step's prompts, each with the strands that it is for (none named: all), as controls chose or as drawn."""
        if asking.plan.places is None:
            drawn = self._prompts(asking.stage, asking.step, asking.stage.prompts_per_step)
            return [(one, frozenset()) for one in drawn]
        return [(self.by_id[place.prompt], place.only) for place in asking.plan.places]

    def _own_slots(self, asking: Asking, strand: Strand) -> list[Slot]:
        """A strand's prompts of its own: those that a control chose, or one for each response of a writer's step."""
        source, stem = strand.source, f"{asking.stage.name}/{asking.step:06d}/{strand.name}"
        only = frozenset({strand.name})
        if strand.name in asking.plan.only_prompts:
            chosen = [self.by_id[name] for name in asking.plan.only_prompts[strand.name]]
            each = source.per_prompt or 1
        elif source.per_step and not is_given(strand):
            seed = seed_for(self.seed, asking.stage.name, strand.name, "prompts")
            chosen = at_step(self.prompts, asking.step, source.per_step, seed)
            each = 1
        else:
            return []
        return [Slot(f"{stem}-{at:04d}", one, only=only, each=each) for at, one in enumerate(chosen)]

    def _prompts(self, stage: Stage, step: int, count: int, *more: object) -> list[Prompt]:
        return at_step(self.prompts, step, count, seed_for(self.seed, stage.name, "prompts", *more))
