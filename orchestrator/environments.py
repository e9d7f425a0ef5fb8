"""The environment of a run: its actors, and the sampler that plays in it."""

from collections.abc import Callable, Mapping
from functools import partial
from hashlib import blake2s
from pathlib import Path

from actors.cluster import Actor, Hold
from actors.environments import EnvironmentPool, EnvironmentReplica
from orchestrator.config import Pipeline
from orchestrator.ports import Sampler
from orchestrator.processes import environment as process_environment
from orchestrator.scorers import Judging, shared
from orchestrator.turns import Playing
from policies.bad_input import refuse, shown
from policies.prompt import Prompt
from policies.tokens import Tokenizer
from teachers.observations import Framing
from verifiers.environments.config import AnyEnvironment, CustomEnvironment, ToolsEnvironment
from verifiers.environments.opening import marks, stops
from verifiers.kinds import version_of


def framing_of(pipeline: Pipeline, tokenizer: Tokenizer) -> Framing | None:
    """How the environment's words become tokens; `BadInput` names a marker that the model cannot write."""
    own = pipeline.environment
    if own is None:
        return None
    written = [(f"ends a call, {shown(text)}", text) for text in stops(own)]
    if isinstance(own, ToolsEnvironment):
        written.append((f"opens a call, {shown(own.calls.open)}", own.calls.open if own.calls.form != "named" else ""))
    written += [(f"stands round an answer, {shown(text)}", text) for text in marks(own)]
    faults = []
    for what, text in written:
        try:
            tokenizer.encode(text)
        except ValueError as error:
            faults.append(f"environment: what {what}, cannot be written: {error}; choose it in environment.calls")
    refuse(faults)
    return Framing(tokenizer, own)


def environment_pool(
    pipeline: Pipeline, hold: Hold, on_event: Callable[..., None], judging: Judging
) -> EnvironmentPool | None:
    """Spawn the environment's actors, where the pipeline has one; `judging` serves the verifier that `retry` asks."""
    own = pipeline.environment
    if own is None:
        return None
    spawn = partial(_spawn, pipeline, hold, judging)
    replicas = [spawn(index) for index in range(own.replicas)]
    return EnvironmentPool(spawn, replicas, own.seconds, pipeline.resources.deadlines.start, on_event, hold.kill)


def _spawn(pipeline: Pipeline, hold: Hold, judging: Judging, index: int) -> Actor:
    return hold.spawn(
        EnvironmentReplica,
        pipeline.environment,
        pipeline.verifier,
        role="environment",
        index=index,
        env=process_environment(1),
        kwargs={"models": shared(judging, hold, index)},
    )


def playing(
    pipeline: Pipeline, sampler: Sampler, pool: EnvironmentPool, tokenizer: Tokenizer, prompts: Mapping[str, Prompt]
) -> Playing:
    """The sampler of whole episodes over `sampler`."""
    own, framing = pipeline.environment, framing_of(pipeline, tokenizer)
    assert own is not None and framing is not None, "there is a pool where the pipeline has an environment"
    version = version_of(own.model_dump_json() + _written_by_hand(own))
    return Playing(sampler, pool, framing, prompts, pipeline.model.context, f"environment:{own.kind}", version)


def _written_by_hand(own: AnyEnvironment) -> str:
    """A digest of a user's own file: rewards of two versions of it do not compare."""
    if not isinstance(own, CustomEnvironment):
        return ""
    return blake2s(Path(own.path).read_bytes()).hexdigest()
