"""What a run does at the end of a stage: it writes the handoff, judges it by the contract, and says so."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator import contracts, stage_end
from orchestrator.config import Pipeline
from orchestrator.contracts import Verdict
from orchestrator.hand_over import ContractBrokenError, events, repairs_left, standing
from orchestrator.ledger import RunLedger
from orchestrator.loop import RunState, StageRun
from orchestrator.progress import Progress
from orchestrator.repairs import contract_of
from orchestrator.run_directory import RunDirectory
from orchestrator.stage_end import recommended


@dataclass(frozen=True, slots=True)
class Handing:
    """The handoffs of one run."""

    run: RunDirectory
    pipeline: Pipeline
    stages: Sequence[StageRun]
    ledger: RunLedger
    progress: Progress
    train: int = 0
    """How many prompts there are to train on."""

    def judge(self, stage: StageRun, state: RunState, *, spent: bool) -> None:
        """Of a stage that has just been measured: `state.action` is what its contract asks for. `spent`: the run's
        budget is, and nothing can be repaired."""
        left = 0 if spent else repairs_left(self.stages, stage)
        verdict = stage_end.compose(self.run, self.pipeline, stage, state, repairs_left=left, train=self.train)
        state.action = verdict.action or ""
        self._tell(stage, state, verdict)

    def judge_again(self, state: RunState, *, spent: bool) -> None:
        """Of a stage whose end was committed before the run was resumed: by the contract as it stands now, which may be
        another. The measurements are those that were made."""
        stage = standing(self.stages, state)
        if stage is None or state.stage_step < stage.config.steps:
            return
        path = self.run.handoff_file(stage.config.name)
        found = stage_end.read(path)
        if found is None:
            return
        left = 0 if spent else repairs_left(self.stages, stage)
        verdict = contracts.judge(contract_of(self.pipeline, stage.config), found, repairs_left=left)
        if (told := contracts.document(verdict)) != found.get("contract"):
            stage_end.write(path, {**found, "contract": told})
            state.action = verdict.action or ""
            self._tell(stage, state, verdict)

    def forget(self, state: RunState) -> None:
        """Take away the handoffs of stages that are to be run again."""
        now = standing(self.stages, state)
        done = {str(one["stage"]) for one in state.passed}
        if now is not None and state.stage_step >= now.config.steps:
            done.add(now.config.name)
        for stage in self.stages:
            if stage.config.name not in done:
                for path in (self.run.handoff_file(stage.config.name), recommended(self.run, stage.config.name)):
                    path.unlink(missing_ok=True)

    def refuse_broken(self, state: RunState) -> None:
        """ContractBrokenError where the stage that is done asks that the run stops."""
        stage = standing(self.stages, state)
        if state.action != "stop" or stage is None:
            return
        name, where = stage.config.name, self.run.handoff_file(stage.config.name)
        held = self.pipeline.stages[stage.of]
        key = "handoff.contract" if held.contract is None else f"stages.{held.name}.contract"
        raise ContractBrokenError(
            f"stage {name} broke its contract; {where} has the figures. Its weights are checkpointed: "
            f"`braid resume {self.run.root} --set {key}=...` judges it by another contract and goes on"
        )

    def _tell(self, stage: StageRun, state: RunState, verdict: Verdict) -> None:
        for kind, message, facts in events(stage, state, verdict):
            self.ledger.event(kind, step=state.step, stage=stage.config.name, message=message, **facts)
            self.progress.event(message)
