"""Cross-checks of contracts and repairs: bounds that mean something, of figures that will be measured."""

from collections.abc import Iterator, Sequence
from math import isinf

from orchestrator.config import Pipeline
from orchestrator.contracts import FIGURES, Bound, bounds
from orchestrator.explain import Fault, shown
from orchestrator.handoff_config import Contract, Figure, Term
from orchestrator.recipes import Recipe
from orchestrator.repairs import contract_of

Keys = tuple[str | int, ...]
Missing = tuple[str, str]
"""What is missing, and what to do about it."""


def contract_faults(pipeline: Pipeline, recipes: Sequence[Recipe]) -> Iterator[Fault]:
    """Every term that says nothing, or that nothing will be measured for; `recipes` are the stages', in order."""
    for key, contract, stages in _contracts(pipeline):
        for figure, term in contract.items():
            yield from _bounds((*key, figure), figure, term)
            if stages and (missing := _missing(figure, pipeline, recipes, stages)):
                yield Fault((*key, figure), f"can never be measured: {missing[0]}", missing[1])


def _contracts(pipeline: Pipeline) -> Iterator[tuple[Keys, Contract, list[int]]]:
    """(where it stands, the contract, indices of the stages that it holds)."""
    own = [index for index, stage in enumerate(pipeline.stages) if stage.contract is not None]
    others = [index for index in range(len(pipeline.stages)) if index not in own]
    yield ("handoff", "contract"), pipeline.handoff.contract, others
    for index in own:
        yield ("stages", index, "contract"), contract_of(pipeline, pipeline.stages[index]), [index]


def _bounds(key: Keys, figure: Figure, term: Term) -> Iterator[Fault]:
    held, given = FIGURES[figure], bounds(term)
    if not given:
        examples = {"at_least": "at_least: 0.9", "at_most": "at_most: 0.1", "no_worse_than": "no_worse_than: -0.02"}
        yield Fault(key, "has no bound", f"add {' or '.join(examples[one] for one in held.bounds)}")
    for bound in given:
        value = float(getattr(term, bound))
        if bound not in held.bounds:
            fix = f"use {' or '.join(held.bounds)}"
            yield Fault((*key, bound), f"says nothing of {figure}, the {held.meaning} {shown(value)}", fix)
        elif limits := _outside(figure, bound, value):
            yield Fault((*key, bound), f"lies outside of what {figure} can be {shown(value)}", limits)


def _outside(figure: Figure, bound: Bound, value: float) -> str:
    """How to put right a bound that every stage, or none, would keep; empty where it is one."""
    least, most = FIGURES[figure].least, FIGURES[figure].most
    if bound == "no_worse_than":
        return "" if -1.0 <= value <= 1.0 else "set it between -1 and 1: -0.02 allows two points less"
    wanted = f"set it to {least:g} or more" if isinf(most) else f"set it between {least:g} and {most:g}"
    return "" if least <= value <= most else wanted


def _missing(figure: Figure, pipeline: Pipeline, recipes: Sequence[Recipe], stages: Sequence[int]) -> Missing | None:
    """Why none of these stages can be held to the figure; None where one can."""
    if all(recipe.head == "scalar" for recipe in recipes):
        return "a model with a scalar head is not probed", "remove it"
    if pipeline.prompts.probe is None:
        return "the pipeline has no prompts.probe", "add prompts.probe"
    if figure == "retention" and max(stages) == 0:
        return "no stage comes before this one", "bound it in a later stage, or retained_support here"
    if figure in ("agreement", "teacher_kl") and not any(recipes[at].teacher or recipes[at].teachers for at in stages):
        return "no stage that it holds has a teacher", "choose a recipe with a teacher, or bound drift"
    return _lacking(figure, pipeline)


def _lacking(figure: Figure, pipeline: Pipeline) -> Missing | None:
    """What the figure needs of the pipeline and does not have."""
    match figure:
        case "guard" | "forgotten" if pipeline.prompts.guard is None:
            return "the pipeline has no prompts.guard", "add prompts.guard, tasks that are not to be forgotten"
        case "portability" if pipeline.prompts.shifted is None:
            return "the pipeline has no prompts.shifted", "add prompts.shifted, tasks like the probe's from elsewhere"
        case "scaffold_gap" if not pipeline.handoff.scaffold:
            return "handoff.scaffold is empty", "give it a template with help, such as 'Hint. {{ prompt }}'"
        case "pass_at_k" if pipeline.handoff.probe_samples < 2:
            return "handoff.probe_samples is 1", "raise handoff.probe_samples, or bound pass_at_1"
        case "reach" if not pipeline.handoff.bank:
            return "handoff.bank is 0", "raise handoff.bank"
        case _:
            return None
