"""What a rule says, and what it has to know to say it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from orchestrator import recipes
from orchestrator.config import Pipeline, Stage
from orchestrator.label_config import StepLabels
from orchestrator.legality.counting import demonstrated, prompts
from orchestrator.legality.sources import remembered
from orchestrator.recipes import Recipe
from policies.config import HfModel, Source, Strand, Term
from policies.source_config import Remembered
from verifiers.config import AnyVerifier
from verifiers.environments.config import AnyEnvironment


@dataclass(frozen=True, slots=True)
class Verdict:
    """One finding: `error` refuses the run, `warning` is likely unwanted, `declared` is a bias taken knowingly."""

    level: Literal["error", "warning", "declared"]
    rule: str
    """V1 to V15 (methods: 15), or in a word what else is wrong: lineage, heads, controls, views, schedule, verdicts,
    data."""
    where: str
    """Strand, strand.term, learner/strand.term, or empty for the stage."""
    text: str
    fix: str = ""
    key: tuple[str, ...] = ()
    """Within the stage, where one key is at fault: (recipe, size); empty is the recipe as a whole."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a rule has to know of the pipeline around the stage."""

    first: bool = False
    """Whether this is the pipeline's first stage: the policy is still the model that the pipeline names."""
    model: str = ""
    """Folder of that model; empty for one that is made here."""
    frozen_engine: Literal["vllm", "torch"] = "torch"
    demonstrations: bool = True
    """Whether the pipeline has any."""
    files: bool = False
    """Whether folders may be opened: they lie on this machine."""
    past: frozenset[Remembered] | None = None
    """What earlier stages may have left for replay, by kind of trajectory; None is unknown."""
    seed: int = 0
    """The run's."""
    prompts: int | None = None
    """At most so many to train on; None is unknown."""
    demonstrated: int | None = None
    """At most so many of them have a demonstration; None is unknown."""
    verifier: AnyVerifier | None = None
    """None: one that says of every response whether it passed."""
    referenced: bool = True
    """Whether training prompts have what a verifier compares with."""
    zero_stage: int = 0
    """Of the learner's engine."""
    environment: AnyEnvironment | None = None
    """What rollouts act in over several turns."""
    step_labels: StepLabels | None = None
    """How steps are labelled by sampling."""


def surroundings(pipeline: Pipeline, index: int, *, files: bool = True) -> Surroundings:
    """Those of the pipeline's stage `index`."""
    return Surroundings(
        first=index == 0,
        model=pipeline.model.path if isinstance(pipeline.model, HfModel) else "",
        frozen_engine=pipeline.resources.frozen.engine,
        demonstrations=pipeline.demonstrations is not None,
        files=files,
        past=frozenset[Remembered]().union(*map(_left, pipeline.stages[:index])),
        seed=pipeline.seed,
        prompts=prompts(pipeline, files=files),
        demonstrated=demonstrated(pipeline, files=files),
        verifier=pipeline.verifier,
        referenced=getattr(pipeline.prompts.train, "reference", "") is not None,
        zero_stage=pipeline.resources.learner.zero_stage,
        environment=pipeline.environment,
        step_labels=pipeline.step_labels,
    )


def _left(stage: Stage) -> frozenset[Remembered]:
    """What the stage trains on, by kind of trajectory."""
    recipe = recipes.load(stage.recipe.kind, **(stage.recipe.model_extra or {}))
    return frozenset[Remembered]().union(*map(remembered, recipe.strands))


class Reading(NamedTuple):
    """A term, the strand it belongs to, and who trains on it."""

    where: str
    strand: Strand
    """A co-learner's strand bears the source of the policy's strand whose records it reads."""
    term: Term
    scalar: bool
    """Whether the learner's head gives one number."""


@dataclass(frozen=True, slots=True)
class Case:
    """A stage, its recipe, and what surrounds them."""

    stage: Stage
    recipe: Recipe
    around: Surroundings

    def strand(self, name: str) -> Strand | None:
        """The policy's strand of that name."""
        return next((one for one in self.recipe.strands if one.name == name), None)

    def source(self, name: str) -> Source | None:
        """Its source."""
        found = self.strand(name)
        return None if found is None else found.source

    def readings(self) -> Iterator[Reading]:
        """Every term of the policy, then those of the co-learners."""
        scalar = self.recipe.head == "scalar"
        for strand in self.recipe.strands:
            for term in strand.terms:
                yield Reading(f"{strand.name}.{term.name}", strand, term, scalar)
        for learner in self.recipe.learners:
            for strand in learner.strands:
                read = self.strand(strand.name)
                same = strand if read is None else strand.model_copy(update={"source": read.source})
                for term in strand.terms:
                    yield Reading(f"{learner.name}/{strand.name}.{term.name}", same, term, True)
