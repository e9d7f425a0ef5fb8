"""The pipeline file: one frozen tree. Imports neither torch nor ray, so that `braid check` is quick."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from actors.config import Resources
from orchestrator.label_config import StepLabels
from policies.config import Model, Optimizer, Strict, TinyModel
from teachers.config import CarelessTeacher, DataFile, Demonstrations, Labels, Preferences
from verifiers.config import AnswerVerifier, Verifier
from verifiers.environments.config import Environment
from verifiers.kinds import leaves
from verifiers.program_config import ProgramVerifier


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


class RecipeChoice(BaseModel):
    """A recipe by name and its parameters; see `braid recipes`. The recipe's own file holds the defaults."""

    model_config = ConfigDict(extra="allow", frozen=True)
    kind: str


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
    step_labels: StepLabels | None = None
    """Labels of steps by sampling, for strands whose credit reads scores named `step`."""
    environment: Environment | None = None
    """What the policy acts in over several turns, in rollouts and probes; the verifier judges its last turn."""
    resources: Resources = Resources()
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    probe: Probe = Probe()
    checkpoints: Checkpoints = Checkpoints()


def runs_programs(pipeline: Pipeline) -> bool:
    """Whether something in the run executes what a model wrote, and so needs machines that give a sandbox."""
    judging = any(isinstance(leaf, ProgramVerifier) and not leaf.unsandboxed for leaf in leaves(pipeline.verifier))
    return judging
