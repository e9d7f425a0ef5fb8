"""Demonstrations that a frozen model writes, once, before the first stage; kept in the run directory for a resume."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from actors.cluster import Hold
from actors.engine import Completion, SampleRequest
from actors.pool import RolloutPool
from actors.sampler import SamplerReplica
from actors.scorer_pool import ScorerPool
from actors.vllm_environment import environment as vllm_environment
from orchestrator.build import Inputs
from orchestrator.config import Pipeline
from orchestrator.ledger import write_parquet
from orchestrator.ports import Demonstrations
from policies.arrow import from_table, to_table
from policies.bad_input import refuse
from policies.model_folder import materialise
from policies.tokens import Tokenizer
from policies.trajectory import Sampling, Trajectory
from teachers.config import ModelDemonstrations
from teachers.demonstrations import DemonstrationSet
from teachers.from_model import Wanted, model_name, write


async def written_by_model(
    config: ModelDemonstrations,
    pipeline: Pipeline,
    *,
    hold: Hold,
    scorer: ScorerPool,
    inputs: Inputs,
    directory: Path,
) -> Demonstrations:
    """The model's demonstrations: read back if this run has them already, else drawn, judged and kept."""
    kept = directory / "demonstrations.parquet"
    name = model_name(config.model)
    if not kept.exists():
        folder = materialise(config.model, directory / "teacher", directory)
        if Tokenizer.load(folder).fingerprint != inputs.tokenizer.fingerprint:
            refuse([f"demonstrations.model: {folder} has another tokenizer than the learner; give one that shares it"])
        pool = _pool(config, pipeline, hold, scorer, folder)
        longest = max(stage.sampling.max_tokens for stage in pipeline.stages)

        async def generate(wanted: Sequence[Wanted]) -> list[Completion]:
            return [_completion(one) for one in await pool.generate([_request(one, longest) for one in wanted])]

        found = await write(config, inputs.train, generate, scorer.judge, seed=pipeline.seed)
        hold.kill(pool.replicas[0])
        if not found:
            raise ValueError(
                f"demonstrations: {name} wrote no response that passed for any of {len(inputs.train)} prompts; "
                "raise demonstrations.samples, set only_passed: false, or use another model"
            )
        write_parquet(kept, to_table(found))
    return DemonstrationSet.of(name, from_table(pq.read_table(kept)))


def _pool(config: ModelDemonstrations, pipeline: Pipeline, hold: Hold, scorer: ScorerPool, folder: Path) -> RolloutPool:
    rollout = pipeline.resources.rollout
    actor = hold.spawn(
        SamplerReplica,
        str(folder),
        config.model,
        rollout,
        config.model.context,
        model_name(config.model),
        "folder",
        role="teacher",
        index=0,
        gpus=rollout.gpus,
        env=vllm_environment(rollout.threads, rollout.gpus),
    )
    return RolloutPool(
        lambda index: actor,
        [actor],
        pipeline.resources.deadlines,
        scorer.on_event,
        hold.kill,
        role="teacher",
        model=model_name(config.model),
    )


def _request(wanted: Wanted, longest: int) -> SampleRequest:
    sampling = Sampling(temperature=wanted.temperature, max_tokens=longest)
    return SampleRequest(wanted.id, wanted.context, sampling, wanted.seed)


def _completion(drawn: Trajectory) -> Completion:
    return Completion(
        id=drawn.id,
        tokens=drawn.tokens,
        logps=drawn.behavior_logps,
        versions=drawn.token_version,
        text=drawn.text,
        finish_reason=drawn.finish_reason,
        seconds=drawn.seconds,
    )
