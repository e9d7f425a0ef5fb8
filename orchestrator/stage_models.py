"""A stage's learners and frozen models: as it begins, goes on after a resume, follows the learner, and is saved."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.build import Parts
from orchestrator.config import Pipeline
from orchestrator.controls import Freeze
from orchestrator.hand_over import baseline, trains_from
from orchestrator.loop import RunState, StageRun
from policies import checkpoint

BESIDE = "learners"
"""Directory of a checkpoint that holds the co-learners, each by its name."""


@dataclass(slots=True)
class StageModels:
    """Everything of a run that has weights, but for the engines."""

    parts: Parts
    pipeline: Pipeline
    checkpoints: Path
    probed: bool = False
    """Whether the ends of stages are measured, and so a stage's first weights are asked for at its end."""
    found: tuple[Any, int] | None = None
    """The weights that the stage is compared with and their version, where a resume made them again."""
    begun: set[str] = field(default_factory=set)
    """Co-learners that have trained: their state is part of the run's."""

    async def begin(self, stage: StageRun, restored: Path | None, state: RunState) -> None:
        """Fresh optimizers and schedules, or those of the checkpoint; frozen models hold what the stage began with."""
        self.found, version = None, state.version
        if restored is not None:
            await self._rewind(stage, state)
        await self._anchor(stage, version)
        updates = stage.config.steps * stage.config.updates
        track = next((one.decay for one in stage.controls if isinstance(one, Freeze)), None)
        await self.parts.learner.begin_stage(stage.strands, stage.config.optimizer, updates, track)
        await self.parts.frozen.show_heads(stage.index, self.parts.learner)
        for one in self.parts.companions(stage):
            await one.learner.begin_stage(one.config.strands, one.config.optimizer, updates)
            self.begun.add(one.config.name)
        if restored is not None:
            await self._reload(stage, restored)

    async def restart(self, stage: StageRun, version: int) -> None:
        """The run's first weights again, as `version`; the stage's frozen models with them."""
        await self.parts.learner.restart()
        await self._anchor(stage, version)
        await self.parts.frozen.show_heads(stage.index, self.parts.learner)

    async def follow(self, stage: StageRun, version: int, mix: float) -> None:
        """Give the stage's follower the weights; those that were just published are not packed again."""
        if not self.parts.frozen.casts[stage.index].follows or not mix:
            return
        served = self.parts.rollouts
        weights = served.weights if served.version == version else None
        if weights is None:
            weights = self.parts.learner.export(version)
        await self.parts.frozen.refresh(stage.index, self.parts.learner, weights, mix)

    async def save(self, stage: int | None, folder: Path) -> None:
        """All training state and every weight that a resume could not make again; `stage` is None once all are done."""
        await self.parts.learner.save(folder)
        for name in sorted(self.begun):
            await self.parts.learners[name].save(folder / BESIDE / name)
        if stage is not None:
            await self.parts.frozen.save(stage, folder)

    async def roll_back(self, step: int) -> None:
        """Everything that trains, as the checkpoint of that step has it; a co-learner that began later, as at first."""
        folder = self.checkpoints / checkpoint.name(step)
        await self.parts.learner.load(folder)
        for name in sorted(self.begun):
            if (folder / BESIDE / name).is_dir():
                await self.parts.learners[name].load(folder / BESIDE / name)
            else:
                await self.parts.learners[name].restart()
                self.begun.discard(name)

    async def _rewind(self, stage: StageRun, state: RunState) -> None:
        """The learner as it was when the stage began to train: what its frozen models are made of."""
        anchored = self.parts.frozen.of(stage.index).anchored
        compared, began = baseline(state), trains_from(state)
        if self.probed:
            await self.parts.learner.load(self.checkpoints / checkpoint.name(compared))
            self.found = (self.parts.learner.export(state.version), state.version)
        if anchored and (began != compared or not self.probed):
            await self.parts.learner.load(self.checkpoints / checkpoint.name(began))
        if anchored and stage.restart:
            await self.parts.learner.restart()

    async def _anchor(self, stage: StageRun, version: int) -> None:
        """Freeze the policy as it is, where the stage reads that."""
        if self.parts.frozen.of(stage.index).anchored:
            await self.parts.frozen.anchor(stage.index, self.parts.learner.export(version))

    async def _reload(self, stage: StageRun, restored: Path) -> None:
        """Everything that trains or follows, as the checkpoint holds it."""
        await self.parts.learner.load(restored)
        for folder in sorted((restored / BESIDE).glob("*")):
            await self.parts.learners[folder.name].load(folder)
            self.begun.add(folder.name)
        await self.parts.frozen.load(stage.index, restored)
        await self.parts.frozen.show_heads(stage.index, self.parts.learner)
