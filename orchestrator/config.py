"""The pipeline file: one frozen tree. Imports neither torch nor ray, so that `braid check` is quick."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from actors.config import Resources, Role
from orchestrator.experiment_config import Budget, Experiment
from orchestrator.handoff_config import FOUND as FOUND
from orchestrator.handoff_config import Contract, Handoff
from orchestrator.health_config import Health
from orchestrator.label_config import StepLabels
from orchestrator.recipe_choice import RecipeChoice as RecipeChoice
from policies.config import Model, Optimizer, Strict, TinyModel
from teachers.config import CarelessTeacher, DataFile, Demonstrations, Labels, Preferences
from verifiers.config import AnswerVerifier, AnyVerifier, Verifier
from verifiers.environments.config import (
    CustomEnvironment,
    Environment,
    Interpreter,
    Search,
    Tool,
    ToolsEnvironment,
)
from verifiers.kinds import leaves, wanted
from verifiers.program_config import ProgramVerifier
from verifiers.text_config import FunctionVerifier


class ArithmeticPrompts(Strict):
    """Addition and subtraction of whole numbers, `346+77=`."""

    kind: Literal["arithmetic"] = "arithmetic"
    digits: Annotated[tuple[Annotated[int, Field(ge=1, le=18)], ...], Field(min_length=1)] = (2, 3)
    """Numbers of digits that the operands may have."""
    count: Annotated[int, Field(ge=1)] = 4096
    seed: int = 0


class JsonlPrompts(DataFile):
    """Rows of a JSON-lines file; `id` and `family` are read where a row has them."""

    kind: Literal["jsonl"] = "jsonl"
    prompt: str = "prompt"
    """Column of the prompt, a text or a conversation."""
    reference: str | None = "reference"
    """Column of what the verifier reads; by default `answer` and `solution` serve as well. null: it reads nothing."""


class ParquetPrompts(DataFile):
    """Columns of a Parquet file; `id` and `family` are read where it has them."""

    kind: Literal["parquet"] = "parquet"
    prompt: str = "prompt"
    """Column of the prompt, a text or a conversation."""
    reference: str | None = "reference"
    """Column of what the verifier reads; by default `answer` and `solution` serve as well. null: it reads nothing."""


class TaskPrompts(Strict):
    """Procedural tasks of reasoning-gym."""

    kind: Literal["reasoning_gym"] = "reasoning_gym"
    dataset: str
    count: Annotated[int, Field(ge=1)] = 1024
    seed: int = 0
    options: dict[str, Any] = Field(default={})
    """Passed to reasoning-gym's data set, such as {min_terms: 2, max_terms: 3}."""
    instruction: str = ""
    """Appended to the question, after a blank line."""


PromptSource = Annotated[ArithmeticPrompts | JsonlPrompts | ParquetPrompts | TaskPrompts, Field(discriminator="kind")]


class Prompts(Strict):
    """Tasks to train on and tasks to measure on."""

    train: PromptSource = ArithmeticPrompts()
    probe: PromptSource | None = None
    """Held-out tasks; prompts that also stand in `train` are refused."""
    shifted: PromptSource | None = None
    """Tasks like the probe's from elsewhere, to measure what a stage's gains are worth there."""
    guard: PromptSource | None = None
    """Tasks that the model is to go on solving, whatever it learns: measured for what a stage forgot."""


class SamplingConfig(Strict):
    """How rollouts are decoded."""

    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1)] = -1
    max_tokens: Annotated[int, Field(ge=1)] = 64
    stop: tuple[str, ...] = ()


class Probe(Strict):
    """Measurements on held-out prompts; they never touch the weights."""

    every: Annotated[int, Field(ge=1)] | None = None
    """Steps between probes inside a stage; a probe always runs before the first stage and after each."""
    samples: Annotated[int, Field(ge=1)] = 1
    """Responses for each prompt, at temperature `temperature`; one greedy response is always drawn."""
    temperature: Annotated[float, Field(gt=0)] = 1.0


class Stage(Strict):
    """One recipe for a number of optimizer steps."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    recipe: RecipeChoice
    steps: Annotated[int, Field(ge=1)]
    prompts_per_step: Annotated[int, Field(ge=1)] = 32
    """Groups a step: prompts that the strands with `per_prompt` sources share."""
    updates: Annotated[int, Field(ge=1)] = 1
    """Optimizer updates that one step's trajectories are split into."""
    max_staleness: Annotated[int, Field(ge=0)] = 0
    """Versions that rollouts may lag behind the learner; 0 is synchronous."""
    interference: Annotated[int, Field(ge=0)] = 0
    """Every so many steps the cosine between the strands' gradients is measured, at one backward pass for each strand
    more; 0 is never."""
    optimizer: Optimizer = Optimizer()
    sampling: SamplingConfig = SamplingConfig()
    contract: Contract | None = None
    """What must hold after this stage, in place of `handoff.contract`; {} holds it to nothing."""


class Checkpoints(Strict):
    """When the run's state is committed."""

    every: Annotated[int, Field(ge=1)] = 50
    """Steps between checkpoints; one is always written at the end of a stage."""
    keep: Annotated[int, Field(ge=2)] = 2
    """Newest checkpoints kept, beside those at the ends of stages."""


class Pipeline(Strict):
    """A run: a model, tasks, a verifier, and stages one after the other."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$", max_length=40)]
    seed: int = 0
    model: Model = TinyModel()
    prompts: Prompts = Prompts()
    demonstrations: Demonstrations | None = CarelessTeacher()
    preferences: Preferences | None = None
    """Compared responses, for strands whose producer is `preference`."""
    labels: Labels | None = None
    """Judged responses or steps, for strands whose producer is `labelled`."""
    verifier: Verifier = AnswerVerifier()
    held_out_verifier: Verifier | None = None
    """Judges a share of the policy's responses too, and nothing trains on what it says: where the reward outgrows it,
    the policy has learned to please the verifier (`health`)."""
    health: Health = Health()
    step_labels: StepLabels | None = None
    """Labels of steps by sampling, for strands whose credit reads scores named `step`."""
    environment: Environment | None = None
    """What the policy acts in over several turns, in rollouts and probes; the verifier judges its last turn."""
    resources: Resources = Resources()
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    probe: Probe = Probe()
    handoff: Handoff = Handoff()
    checkpoints: Checkpoints = Checkpoints()
    prices: dict[Role, Annotated[float, Field(ge=0)]] = Field(default={})
    """Price of an hour of each role, all its actors together, in any currency: what a run cost is then told in it too,
    such as {rollout: 4.0, learner: 8.0}."""
    budget: Budget | None = None
    """What the run may spend; it ends there with a last probe and checkpoint, or before, with its stages."""
    variants: Experiment | None = None
    """A controlled study: `braid run` runs every variant with every seed, each in a directory of its own."""


def verifiers_of(pipeline: Pipeline) -> dict[str, AnyVerifier]:
    """Key -> the verifier there: the one that rewards, and the one that is held out."""
    held_out = pipeline.held_out_verifier
    return {"verifier": pipeline.verifier, **({"held_out_verifier": held_out} if held_out else {})}


def runs_programs(pipeline: Pipeline) -> frozenset[str]:
    """Roles of the actors that execute what a model wrote, and so need machines that give a sandbox."""
    judges = {role for role, leaf in _leaves(pipeline) if isinstance(leaf, ProgramVerifier) and not leaf.unsandboxed}
    own = any(isinstance(tool, Interpreter) and not tool.unsandboxed for tool in _tools(pipeline))
    return frozenset(judges | ({"environment"} if own else set()))


def reads_files(pipeline: Pipeline) -> frozenset[str]:
    """Roles of the actors, of those that judge and answer, that read files of the user's."""
    judges = {role for role, leaf in _leaves(pipeline) if isinstance(leaf, FunctionVerifier)}
    own = isinstance(pipeline.environment, CustomEnvironment) or any(
        isinstance(tool, Search) for tool in _tools(pipeline)
    )
    return frozenset(judges | ({"environment"} if own else set()))


def _leaves(pipeline: Pipeline) -> Iterator[tuple[str, AnyVerifier]]:
    """(role of the actors, verifier) of all that judges something itself."""
    roles = {"verifier": "scorer", "held_out_verifier": "held-out"}
    return ((roles[key], leaf) for key, whole in verifiers_of(pipeline).items() for leaf in leaves(whole))


def _tools(pipeline: Pipeline) -> tuple[Tool, ...]:
    return pipeline.environment.tools if isinstance(pipeline.environment, ToolsEnvironment) else ()


def models_that_judge(pipeline: Pipeline) -> tuple[str, ...]:
    """The models that the verifiers ask, each once, as `role:folder`."""
    asked = (one.name for verifier in verifiers_of(pipeline).values() for one in wanted(verifier))
    return tuple(dict.fromkeys(asked))
