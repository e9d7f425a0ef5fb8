"""Whether a study is what it says: a swap of sources, a swap of losses, another order, and nothing besides.

Read off the resolved pipelines and their expanded strands. What only a run can show (that the trajectories were the
very same ones) is checked on the ledgers (`study_facts`).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, assert_never

from orchestrator.config import Pipeline
from orchestrator.config_difference import differences
from orchestrator.experiment_config import Experiment
from orchestrator.explain import shown
from orchestrator.load import recipe_of
from orchestrator.recipes import Recipe
from policies.config import Strand

Fault = tuple[str, str]
"""(key below `variants`, what is wrong with it)."""

FREE = ("seed", "budget", "variants", "name")
"""Keys that the study itself sets."""
RULER = (
    *("prompts.probe", "prompts.shifted", "prompts.guard", "verifier", "environment", "probe.samples"),
    *("probe.temperature", "handoff.probe_samples", "handoff.sequential", "handoff.epsilon", "handoff.confidence"),
)
"""Keys that say what is measured, and how: the same in all variants of any study."""
DATA = ("demonstrations", "preferences", "labels")
"""Sections that say where given trajectories come from."""


def claims(experiment: Experiment, variants: Mapping[str, Pipeline]) -> list[Fault]:
    """What is wrong with each variant, against the first of them."""
    base, *_ = variants.values()
    found = [("measure", said) for said in _measurable(experiment, base)]
    for name, other in list(variants.items())[1:]:
        found += [(f"of.{name}", said) for said in (*_ruler(base, other), *_claim(experiment, base, other))]
    return found


def _claim(experiment: Experiment, base: Pipeline, other: Pipeline) -> Iterator[str]:
    match experiment.study:
        case "overrides":
            return
        case "provenance_swap":
            yield from _provenance(base, other)
        case "interface_swap":
            yield from _interface(base, other)
        case "stage_order":
            yield from _order(base, other)
        case _:
            assert_never(experiment.study)


# ---------------------------------------------------------------- the ruler


def _measurable(experiment: Experiment, base: Pipeline) -> Iterator[str]:
    """Whether there is something to measure on."""
    measure = experiment.measure
    if measure in ("shifted", "guard"):
        if getattr(base.prompts, measure) is None:
            yield f"there are no such prompts (got {measure!r}); add prompts.{measure}"
    elif base.prompts.probe is None:
        yield f"there are no held-out prompts to measure on (got {measure!r}); add prompts.probe"
    if measure == "pass_at_k" and base.handoff.probe_samples < 2:
        yield "k is handoff.probe_samples, which is 1 (got 'pass_at_k'); raise that to 8 or so"
    handoff = base.handoff
    least = math.ceil(math.log(1 - handoff.confidence) / math.log(1 - handoff.epsilon))
    if measure == "retained_support" and handoff.probe_samples < least:
        told = f"{handoff.probe_samples} samples without a pass do not show that a prompt was lost (got {measure!r})"
        yield f"{told}; set handoff.probe_samples to {least} or more, or raise handoff.epsilon"
    if any(recipe_of(stage.recipe).head == "scalar" for stage in base.stages):
        yield f"a stage trains a scalar head, and nothing is probed of it (got {measure!r}); compare language models"


def _ruler(base: Pipeline, other: Pipeline) -> Iterator[str]:
    """What is measured must be measured alike."""
    for key, (here, there) in changed(base, other).items():
        if below_ruler(key):
            yield f"{key} {_got(there, here)}: figures would not compare; leave it as the baseline has it"
    ends = [stages[-1].sampling for stages in (base.stages, other.stages)]
    for key in ("max_tokens", "stop"):
        here, there = (getattr(one, key) for one in ends)
        if here != there:
            where = f"stages.{other.stages[-1].name}.sampling.{key}"
            yield f"{where} {_got(there, here)}: the last probe is drawn with it; make it the same"


def below_ruler(key: str) -> bool:
    """Whether the key says what is measured, or how."""
    return _below(key, RULER)


def _below(key: str, places: Sequence[str]) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in places)


def changed(base: Pipeline, other: Pipeline) -> dict[str, list[Any]]:
    """Key path -> [value in the one, value in the other], where they differ in what a study does not set itself."""
    found = differences([one.model_dump(mode="json") for one in (base, other)])
    return {key: values for key, values in found.items() if key.partition(".")[0] not in FREE}


def _got(there: Any, here: Any) -> str:
    return f"{shown(there)}, where the baseline has {shown(here).removeprefix('(got ').removesuffix(')')}"


def _beyond(study: str, base: Pipeline, other: Pipeline, allowed: Sequence[str]) -> Iterator[str]:
    """Changes that the study has no claim on; `*` stands for a stage's name."""
    for key, (here, there) in changed(base, other).items():
        parts = key.split(".")
        place = ".".join([parts[0], "*", *parts[2:]]) if parts[0] == "stages" and len(parts) > 1 else key
        if not _below(place, (*allowed, *RULER)):
            yield f"{key} {_got(there, here)}; {study} leaves it alone, so undo it or choose study: overrides"


# ---------------------------------------------------------------- provenance swap


def _provenance(base: Pipeline, other: Pipeline) -> Iterator[str]:
    # under a budget, steps are no more than an upper bound: other sources write longer or shorter responses
    length = () if other.budget is None else ("stages.*.steps",)
    yield from _beyond("a provenance_swap", base, other, (*DATA, "stages.*.recipe", *length))
    data = any(getattr(base, key) != getattr(other, key) for key in DATA)
    swapped = False
    for index, (name, here, there) in enumerate(_recipes(base, other)):
        pairs = [[_supervision(one) for one in recipe.strands] for recipe in (here, there)]
        if pairs[0] != pairs[1]:
            yield f"stages.{name}.recipe: {_parted(here, there)}; a provenance_swap changes sources alone"
        yield from (f"stages.{name}.recipe: {said}; make it the same" for said in _besides(here, there, index > 0))
        swapped = swapped or _sources(here) != _sources(there) or here.teacher != there.teacher
    if not swapped and not data:
        yield "changes no source; give a strand another producer, or the pipeline other demonstrations"


def _supervision(strand: Strand) -> dict[str, Any]:
    """What is made of the strand's trajectories, without names."""
    terms = [term.model_dump(mode="json", exclude={"name"}) for term in strand.terms]
    return {"credit": strand.credit.model_dump(mode="json"), "terms": terms}


def _parted(here: Recipe, there: Recipe) -> str:
    if len(here.strands) != len(there.strands):
        return f"{there.name} has {len(there.strands)} strands and {here.name} {len(here.strands)}"
    return f"{there.name} has another credit or loss than {here.name}"


def _besides(here: Recipe, there: Recipe, later: bool) -> Iterator[str]:
    """Parts of recipes that neither swap may change."""
    if _named(here, here.controls) != _named(there, there.controls):
        yield f"the controls of {there.name} are not those of {here.name}"
    if later and here.restart != there.restart:
        yield f"restart is {str(there.restart).lower()} (of the baseline {str(here.restart).lower()})"
    if here.head != there.head:
        yield f"it trains a {there.head} head"


# ---------------------------------------------------------------- interface swap


def _interface(base: Pipeline, other: Pipeline) -> Iterator[str]:
    yield from _beyond("an interface_swap", base, other, ("stages.*.recipe", "stages.*.optimizer"))
    first = ""
    for index, (name, here, there) in enumerate(_recipes(base, other)):
        if not first and here == there:
            continue
        if _sources(here) != _sources(there):
            told = f"{there.name} has other sources than {here.name}"
            yield f"stages.{name}.recipe: {told}; an interface_swap needs the same trajectories"
        own = [one.name for recipe in (here, there) for one in recipe.strands if _by_policy(one, recipe, bool(first))]
        if own:
            told = f"strand {own[0]} is written by the policy, which another loss has made another one"
            yield f"stages.{name}.recipe: {told}; take given, reference or prepared responses, or a provenance_swap"
        yield from (f"stages.{name}.recipe: {said}; make it the same" for said in _besides(here, there, index > 0))
        first = first or name
    if not first:
        yield "changes no loss; give a stage another recipe over the same source"


def _by_policy(strand: Strand, recipe: Recipe, later: bool) -> bool:
    """Whether the strand's trajectories depend on what the policy has learned since the losses parted."""
    source = strand.source
    if source.producer in ("rollout", "replay") and source.prepare is None:
        return True
    external = bool(recipe.teacher) and recipe.teacher != "self" and not str(recipe.teacher).startswith("stage:")
    frozen = source.producer == "reference" or (source.producer == "teacher" and not external)
    if frozen and recipe.refresh.kind != "fixed":
        return True
    return later and (frozen or (source.prepare is not None and source.prepare.writer == "learner"))


def _sources(recipe: Recipe) -> list[dict[str, Any]]:
    """Where the strands' trajectories come from; strands by their places and not by their names."""
    places = {strand.name: f"strand {at}" for at, strand in enumerate(recipe.strands)}
    found = []
    for strand in recipe.strands:
        source = strand.source.model_dump(mode="json")
        source["parent"] = places.get(source["parent"], "")
        source["select"]["join"] = places.get(source["select"]["join"], "")
        found.append(source)
    return found


def _named(recipe: Recipe, controls: Sequence[Any]) -> Any:
    """The controls with strands by their places."""
    places = {strand.name: f"strand {at}" for at, strand in enumerate(recipe.strands)}

    def placed(value: Any) -> Any:
        match value:
            case str():
                return places.get(value, value)
            case dict():
                return {placed(key): placed(inner) for key, inner in value.items()}
            case list() | tuple():
                return [placed(inner) for inner in value]
            case _:
                return value

    return [placed(control.model_dump(mode="json")) for control in controls]


# ---------------------------------------------------------------- stage order


def _order(base: Pipeline, other: Pipeline) -> Iterator[str]:
    yield from _beyond("a stage_order study", base, other, ("stages",))
    orders = [[stage.name for stage in one.stages] for one in (base, other)]
    for key in changed(base, other):
        if key.startswith("stages.") and key.split(".")[1] in set(orders[0]) & set(orders[1]):
            yield f"{key}: changed; a stage_order study changes the order of the same stages alone"
    if sorted(orders[0]) != sorted(orders[1]):
        yield f"order: {', '.join(orders[1])} are not all stages; name each, or choose study: overrides"
    elif orders[0] == orders[1]:
        yield "order: is the baseline's; give another one"


def _recipes(base: Pipeline, other: Pipeline) -> Iterator[tuple[str, Recipe, Recipe]]:
    """(stage, its recipe in the baseline, in the variant), of stages at the same place."""
    for here, there in zip(base.stages, other.stages, strict=False):
        yield there.name, recipe_of(here.recipe), recipe_of(there.recipe)
