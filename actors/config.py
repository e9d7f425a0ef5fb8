"""Config of the run's actors: engines, learners, scorers, and how weights travel."""

from typing import Annotated, Literal

from pydantic import Field

from policies.config import Lora, Strict

Role = Literal["rollout", "learner", "frozen", "teacher", "scorer", "publish"]
"""Whose time is counted and priced. frozen: models that are asked and not trained; teacher: the one that writes
demonstrations before the first stage; publish: weights on their way from the learner to the engines."""


class Rollout(Strict):
    """Replicas that write responses."""

    engine: Literal["vllm", "torch"] = "vllm"
    isolation: Literal["thread", "process"] = "thread"
    """vLLM alone: in the replica's own process (starts fastest, a batch is drawn the same way each time), or in one
    beside it."""
    replicas: Annotated[int, Field(ge=1)] = 1
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads of one replica; by default the machine's cores shared among the replicas."""
    gpus: Annotated[float, Field(ge=0)] = 0
    """GPUs of one replica; 0 runs on the CPU."""
    max_concurrent: Annotated[int, Field(ge=1)] = 256
    """Sequences one replica decodes at once."""
    kv_cache_bytes: Annotated[int, Field(ge=1 << 20)] = 256 << 20
    seed: int = 0


class Learner(Strict):
    """The group of ranks that trains the policy."""

    engine: Literal["deepspeed", "torch"] = "deepspeed"
    replicas: Annotated[int, Field(ge=1)] = 1
    """Data-parallel ranks."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed's partitioning; bfloat16 needs at least 1."""
    micro_batch_tokens: Annotated[int, Field(ge=16)] = 4096
    """Most tokens (context and response) in one forward pass; a longer single trajectory goes alone."""
    threads: Annotated[int, Field(ge=1)] | None = None
    gpus: Annotated[float, Field(ge=0)] = 0
    lora: Lora | None = None
    gradient_checkpointing: bool = False


class Scorer(Strict):
    """CPU actors that run the verifier."""

    replicas: Annotated[int, Field(ge=1)] = 1
    timeout: Annotated[float, Field(gt=0)] = 60.0
    """Seconds of judging that a step's verdicts may take of each scorer; what is not begun by then is judged `timeout`,
    not wrong. A scorer that does not come back 15 s later is replaced."""


class Frozen(Strict):
    """Actors that hold a model which is not trained: the reference, or a teacher."""

    engine: Literal["vllm", "torch"] = "torch"
    replicas: Annotated[int, Field(ge=1)] = 1
    threads: Annotated[int, Field(ge=1)] | None = None
    gpus: Annotated[float, Field(ge=0)] = 0


class Judge(Strict):
    """Actors that hold the models which the verifier asks: reward models, process reward models, judges."""

    replicas: Annotated[int, Field(ge=1)] = 1
    """Of each model; the scorers are shared out among them."""
    threads: Annotated[int, Field(ge=1)] | None = None
    gpus: Annotated[float, Field(ge=0)] = 0
    """GPUs of one replica; 0 runs on the CPU."""
    batch_tokens: Annotated[int, Field(ge=16)] = 8192
    """Most tokens in one forward pass of a model with a scalar head, padding included; a longer text goes alone."""
    engine: Literal["vllm", "torch"] = "torch"
    """What writes the answers of a model that judges in words."""
    context: Annotated[int, Field(ge=256)] = 4096
    """Longest question with its answer, in tokens, of a model that judges in words; never more than the model reads."""


class Deadlines(Strict):
    """Longest waits, in seconds; each is named in the error when it runs out."""

    start: Annotated[float, Field(gt=0)] = 300.0
    """An actor's start."""
    generate: Annotated[float, Field(gt=0)] = 600.0
    step: Annotated[float, Field(gt=0)] = 1200.0
    publish: Annotated[float, Field(gt=0)] = 120.0
    save: Annotated[float, Field(gt=0)] = 300.0


class Resources(Strict):
    """Who runs where."""

    rollout: Rollout = Rollout()
    learner: Learner = Learner()
    scorer: Scorer = Scorer()
    frozen: Frozen = Frozen()
    judge: Judge = Judge()
    deadlines: Deadlines = Deadlines()
