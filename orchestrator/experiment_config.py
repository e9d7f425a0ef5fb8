"""Controlled studies: the same pipeline in variants, over several seeds, until a shared budget is spent."""

from typing import Annotated, Any, Literal

from pydantic import Field

from policies.config import Strict

VariantName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$", max_length=80)]


class Budget(Strict):
    """An end by what was spent: the run ends after the step that reaches it, in whatever stage that is."""

    unit: Literal["steps", "trained_tokens", "generated_tokens", "seconds", "flops"]
    """seconds are those of steps, probes and starts not counted; what a resume did again counts once."""
    amount: Annotated[float, Field(gt=0)] | None = None
    """Left out, among `variants`: what the baseline spent with the same seed, when it ran to its end."""


class Variant(Strict):
    """The pipeline with changes; without any it is the pipeline as it stands."""

    set: dict[str, Any] = Field(default={})
    """Key path -> value, as `--set` has them: {stages.imitate.recipe: {kind: dft}}."""
    order: tuple[str, ...] | None = None
    """Names of stages in the order in which they run; one that is not named is left out."""


class Experiment(Strict):
    """Variants of the pipeline, each run with every seed, and compared with one of them prompt by prompt."""

    study: Literal["overrides", "provenance_swap", "interface_swap", "stage_order"] = "overrides"
    """What a variant may change, and what is held to be the cause of a difference; what else changes is refused.
    provenance_swap: where trajectories come from, under the same supervision and losses. interface_swap: supervision
    and loss, over the very same trajectories. stage_order: the order of the same stages. overrides: anything."""
    of: dict[VariantName, Variant] = Field(default={})
    """Name -> variant. Of a stage_order study that names none, every order of the stages."""
    baseline: str = ""
    """The variant that the others are compared with; the first by default."""
    measure: Literal["pass_at_1", "pass_at_k", "retained_support", "shifted", "guard"] = "pass_at_1"
    """The one figure that the study is decided by, measured at the end of the run. pass_at_k: k is
    handoff.probe_samples; retained_support: the share of the prompts solved before the run that are solved still;
    shifted and guard: pass@1 on those prompts."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    """The pipeline's `seed`, run by run. Variants are paired within a seed; with a single seed an interval says
    nothing of what another seed would have given."""

    @property
    def runs(self) -> list[tuple[str, int]]:
        """(variant, seed) in the order in which they run: every variant of a seed before the next seed."""
        return [(name, seed) for seed in self.seeds for name in self.of]
