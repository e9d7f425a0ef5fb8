"""What nobody writes in this step: demonstrations, replayed and prepared responses, preference sets, labelled rows.

Each joins its group under an id of its own; `parent_id` names the record it came from. Pure functions of the step.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from orchestrator.asking import Slot, seed_for
from orchestrator.config import Stage
from orchestrator.ports import Demonstrations, Labelled, Preferences
from orchestrator.prepared import Prepared
from orchestrator.records import Member
from orchestrator.replay import Replay
from policies.config import Strand
from policies.trajectory import Producer, Trajectory

Shelf = TypeVar("Shelf")

WRITTEN = ("rollout", "teacher", "reference")
"""Producers that write in the step itself."""


@dataclass(frozen=True, slots=True, eq=False)
class Shelves:
    """Everything that was written before the step."""

    demonstrations: Demonstrations | None = None
    preferences: Preferences | None = None
    labelled: Labelled | None = None
    replay: Replay | None = None
    prepared: Mapping[str, Prepared] = field(default_factory=dict)
    """Strand name -> what was prepared for it when the stage began."""


def is_given(strand: Strand) -> bool:
    """Whether the strand's trajectories are there before the step begins."""
    return strand.source.producer not in WRITTEN or strand.source.prepare is not None


@dataclass(frozen=True, slots=True, eq=False)
class Giving:
    """One step's view of the shelves."""

    shelves: Shelves
    stage: Stage
    step: int
    seed: int

    def for_slot(self, slot: Slot, index: int, strand: Strand) -> tuple[list[Member], int]:
        """The strand's members of a slot's group, and how many are missing."""
        count = slot.count(strand)
        found = self._of_prompt(strand, slot, count) if count else []
        found = [_past(one) for one in found] if _replays(strand) else found
        named = [(f"{slot.group}/{strand.name}-{at}", one) for at, one in enumerate(found)]
        return [Member(_joined(one, name, slot.group), index) for name, one in named], count - len(found)

    def for_step(self, index: int, strand: Strand) -> Iterator[tuple[str, list[Member]]]:
        """The groups (id, members) that the strand draws for the step as a whole."""
        count = strand.source.per_step
        for draw, found in enumerate(self._of_step(strand, count) if count else []):
            group = f"{self.stage.name}/{self.step:06d}/{strand.name}-{draw:04d}"
            if len(found) == 1:
                yield group, [Member(_joined(found[0], f"{group}/given", group), index)]
            else:
                yield group, [Member(_in_set(one, f"{group}/{at}", group), index) for at, one in enumerate(found)]

    def _of_prompt(self, strand: Strand, slot: Slot, count: int) -> list[Trajectory]:
        shelves, prompt_id = self.shelves, slot.prompt.id
        if strand.name in shelves.prepared:
            return shelves.prepared[strand.name].for_prompt(prompt_id, count, self._progress())
        if _replays(strand):
            seed = seed_for(self.seed, slot.group, strand.name)
            past = shelves.replay
            return past.of_prompt(prompt_id, count, strand.source, seed) if past is not None else []
        if shelves.demonstrations is None:
            return []
        found = [shelves.demonstrations.for_prompt(prompt_id, at) for at in range(count)]
        return [one for one in found if one is not None]

    def _of_step(self, strand: Strand, count: int) -> Sequence[Sequence[Trajectory]]:
        shelves, step = self.shelves, self.step
        seed = seed_for(self.seed, self.stage.name, strand.name)
        if strand.name in shelves.prepared:
            return [(one,) for one in shelves.prepared[strand.name].at_step(step, count, seed, self._progress())]
        match strand.source.producer:
            case "preference":
                return _needed(shelves.preferences, strand, "preferences").at_step(step, count, seed)
            case "labelled":
                return [(one,) for one in _needed(shelves.labelled, strand, "labels").at_step(step, count, seed)]
            case "replay":
                past = shelves.replay
                found = past.at_step(step, count, strand.source, seed) if past is not None else []
                return [(_past(one),) for one in found]
            case _:
                shelf = shelves.demonstrations
                return [(one,) for one in (shelf.at_step(step, count, seed) if shelf else ())]

    def _progress(self) -> float:
        """0 at the stage's first step, 1 at its last."""
        return self.step / max(self.stage.steps - 1, 1)


def _needed(shelf: Shelf | None, strand: Strand, key: str) -> Shelf:
    if shelf is None:
        raise ValueError(f"strand {strand.name}: its source reads {key}, and the pipeline file has no key `{key}`")
    return shelf


def _replays(strand: Strand) -> bool:
    return strand.source.producer == "replay" and strand.source.prepare is None


def _past(found: Trajectory) -> Trajectory:
    """What is replayed trains by itself: a preference that it was one side of is not drawn with it."""
    return found if found.preference is None else replace(found, preference=None)


def _joined(found: Trajectory, name: str, group: str) -> Trajectory:
    """A given trajectory in a group; what the learner wrote before this step is replayed, by whatever way it came.

    What others wrote keeps its producer, the past of it included: a demonstration that trained before is still one.
    `parent_id` names the record that it was.
    """
    earlier = found.producer in (Producer.ROLLOUT, Producer.REVISION, Producer.CORRECTION)
    own = replace(found, id=name, group_id=group, parent_id=found.id)
    return replace(own, producer=Producer.REPLAY, preference=None) if earlier else own


def _in_set(found: Trajectory, name: str, group: str) -> Trajectory:
    """A member of a preference set, whose name is that of this draw: a set drawn twice is two."""
    own = _joined(found, name, group)
    return own if own.preference is None else replace(own, preference=replace(own.preference, set_id=group))
