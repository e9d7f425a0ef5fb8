"""Which models a stage keeps frozen, where their weights come from, and when they get the learner's again.

reference          the policy as the stage found it (after a restart: as it trains from)
self, refreshed    the same, and then the learner's again as `refresh` says; unrefreshed it is the reference itself
a folder           weights that somebody else trained
stage:NAME         the policy as that earlier stage left it
found:NAME         the policy as that stage found it, for its repair
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, assert_never

from actors.pool import FrozenPool
from orchestrator.handoff_config import FOUND_BY
from orchestrator.loop import StageRun
from orchestrator.needs import wanted
from orchestrator.views import EVERYBODY, wants
from policies.bad_input import refuse
from policies.config import Strand

REFERENCE, SELF, EARLIER = "reference", "self", "stage:"
KEPT = "frozen"
"""Directory of a checkpoint that holds a refreshed model's weights."""


@dataclass(frozen=True, slots=True)
class Cast:
    """A stage's frozen models, by the name of what holds them."""

    reference: str = ""
    """Empty: nothing reads it."""
    teachers: Mapping[str, str] = field(default_factory=dict)
    """Prompt family -> REFERENCE, SELF, `stage:NAME` or a folder."""
    follows: str = ""
    """The one that gets the learner's weights again."""
    heads: Mapping[str, str] = field(default_factory=dict)
    """`teacher`, `reference` -> whose head a divergence over the whole vocabulary needs."""

    @property
    def names(self) -> tuple[str, ...]:
        """Each once."""
        return tuple(dict.fromkeys(name for name in (self.reference, *self.teachers.values()) if name))

    @property
    def anchored(self) -> tuple[str, ...]:
        """Those whose weights are the learner's when the stage begins."""
        return tuple(name for name in self.names if name in (REFERENCE, SELF))


def cast(stage: StageRun) -> Cast:
    """What the stage's strands need; a teacher that nothing reads is not started."""
    refreshed = stage.refresh.kind != "fixed"
    named = {**({EVERYBODY: stage.teacher} if stage.teacher else {}), **stage.teachers}
    completes = "" if stage.step_labels is None else stage.step_labels.writer
    taught = completes == "teacher" or any(_wants_teacher(strand) for strand in stage.strands)
    teachers = {
        family: (SELF if refreshed else REFERENCE) if where == SELF else where
        for family, where in named.items()
        if taught
    }
    anchored = completes == "reference" or any(_wants_reference(strand) for strand in stage.strands)
    reference = REFERENCE if anchored else ""
    follows = ""
    if refreshed:
        follows = SELF if SELF in teachers.values() else reference
    return Cast(reference, teachers, follows, _heads(stage, reference, teachers))


def _heads(stage: StageRun, reference: str, teachers: Mapping[str, str]) -> dict[str, str]:
    read, found = wanted(stage.strands), {}
    if "reference_hidden" in read:
        found["reference"] = reference
    if "teacher_hidden" in read and teachers:
        names = sorted(set(teachers.values()))
        if len(names) > 1:
            refuse(
                [
                    f"stages.{stage.config.name}: a divergence over the whole vocabulary has one teacher's head, and "
                    f"this stage has {len(names)} teachers; set support: top_k, or give one teacher"
                ]
            )
        found["teacher"] = names[0]
    return found


def _wants_teacher(strand: Strand) -> bool:
    source = strand.source
    writes = source.prepare is not None and source.prepare.writer == "teacher"
    return wants(strand, "teacher") or source.producer == "teacher" or writes


def _wants_reference(strand: Strand) -> bool:
    source = strand.source
    ranks = source.prepare is not None and source.prepare.rank != "none"  # by the policy that the stage begins with
    return wants(strand, "reference") or source.producer == "reference" or ranks


# ---------------------------------------------------------------- the models themselves


class Learned(Protocol):
    """The learner, as far as frozen models read it."""

    def export(self, version: int) -> Any:
        """A reference to the weights as `version`."""
        ...

    async def attach_head(self, target: str, head: Any) -> None:
        """Give the learner a frozen model's head."""
        ...


Spawn = Callable[[str, str, bool], FrozenPool]
"""(folder, name, refreshed) -> a pool; with an empty folder its weights are the learner's, once they are given."""


@dataclass(slots=True)
class FrozenModels:
    """Every frozen model of the run; those of a folder are shared by the stages that name it."""

    spawn: Spawn
    folder_of: Callable[[str], Path]
    """`stage:NAME` or `found:NAME` -> the model folder that holds it."""
    casts: Sequence[Cast]
    pools: dict[str, FrozenPool] = field(default_factory=dict)

    @classmethod
    def started(cls, spawn: Spawn, folder_of: Callable[[str], Path], stages: Sequence[StageRun]) -> "FrozenModels":
        """Spawn all whose weights exist or will be given; a policy of this run waits until it is wanted."""
        made = cls(spawn, folder_of, [cast(stage) for stage in stages])
        for one in made.casts:
            for name in one.names:
                if not name.startswith((EARLIER, FOUND_BY)):
                    made._pool(name)
        return made

    def of(self, stage: int) -> Cast:
        """The cast of a stage, every model of it started."""
        for name in self.casts[stage].names:
            self._pool(name)
        return self.casts[stage]

    def reference(self, stage: int) -> FrozenPool | None:
        """The stage's reference."""
        return self.pools.get(self.casts[stage].reference)

    def teachers(self, stage: int) -> dict[str, FrozenPool]:
        """Prompt family -> its teacher; `*` is everybody else's."""
        return {family: self.pools[name] for family, name in self.casts[stage].teachers.items()}

    def writers(self, stage: int) -> dict[str, FrozenPool]:
        """Producer -> who writes for it."""
        teacher, reference = self.teachers(stage).get(EVERYBODY), self.reference(stage)
        return {name: one for name, one in (("teacher", teacher), ("reference", reference)) if one is not None}

    async def anchor(self, stage: int, weights: Any) -> None:
        """Freeze the policy as it is where the stage's cast says so."""
        for name in self.of(stage).anchored:
            await self.pools[name].update(weights)

    async def show_heads(self, stage: int, learner: Learned) -> None:
        """Give the learner the heads that it compares whole vocabularies with."""
        for target, name in self.of(stage).heads.items():
            await learner.attach_head(target, self.pools[name].head())

    async def refresh(self, stage: int, learner: Learned, weights: Any, mix: float) -> None:
        """The learner's weights again, or a share of them."""
        name = self.casts[stage].follows
        await self.pools[name].update(weights, mix)
        for target, whose in self.casts[stage].heads.items():
            if whose == name:
                await learner.attach_head(target, self.pools[name].head())

    async def save(self, stage: int, directory: Path) -> None:
        """The weights of the stage's refreshed model."""
        if name := self.casts[stage].follows:
            await self.pools[name].save(directory / KEPT)

    async def load(self, stage: int, directory: Path) -> None:
        """What `save` wrote."""
        if name := self.casts[stage].follows:
            await self.pools[name].load(directory / KEPT)

    def _pool(self, name: str) -> FrozenPool:
        if name not in self.pools:
            folder = "" if name in (REFERENCE, SELF) else name
            if name.startswith((EARLIER, FOUND_BY)):
                folder = str(self.folder_of(name))
            refreshed = any(one.follows == name for one in self.casts)
            self.pools[name] = self.spawn(folder, name, refreshed)
        return self.pools[name]


def share(stage: StageRun, stage_step: int) -> float:
    """Share of the learner's weights that its follower takes after this step; 0 is none. `best` waits for a probe."""
    refresh = stage.refresh
    match refresh.kind:
        case "fixed" | "best":
            return 0.0
        case "every":
            return float(stage_step % refresh.every == 0)
        case "average":
            return refresh.rate
        case _:
            assert_never(refresh.kind)
