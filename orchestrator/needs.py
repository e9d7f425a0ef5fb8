"""Which views a strand reads: the names that the planner unions, and for each of which one actor is asked."""

from collections.abc import Iterable, Iterator
from typing import assert_never

from policies.config import (
    Div,
    PartCredit,
    Point,
    ProcessCredit,
    Set,
    Source,
    Strand,
    Template,
    Term,
    TokenWeight,
    TurnCredit,
)
from policies.credit import needs_views

STEP = "step"
"""Name of the scores of steps."""

DISTRIBUTIONS = ("forward", "reverse", "jsd")
"""Forms of a divergence that compare whole next-token distributions."""

SAMPLER = ("truncated_importance", "masked_importance", "tapered")
"""Token weights that read the probability with which a token was sampled."""


def needs(strand: Strand) -> set[str]:
    """Names of the views that a strand's source, credit and terms read."""
    return needs_views(strand.credit) | set(_of_source(strand)) | of_terms(strand)


def reads_steps(strand: Strand) -> bool:
    """Whether the strand's credit reads scores named `step`."""
    return bool(strand.terms) and isinstance(strand.credit, ProcessCredit) and strand.credit.score == STEP


def of_terms(strand: Strand) -> set[str]:
    """Names of the views that the strand's terms read."""
    return set().union(*(_of_term(term) for term in strand.terms))


def templates(source: Source) -> Iterator[tuple[str, Template]]:
    """Every template of the source that is not empty, by key."""
    yield from ((key, text) for key in ("behavior", "train", "teacher", "turn") if (text := getattr(source, key)))
    for index, text in enumerate(source.prepare.attempts if source.prepare is not None else ()):
        if text:
            yield f"prepare.attempts.{index}", text


def variables(template: Template) -> frozenset[str]:
    """Names that a template reads; none of a template that is none."""
    if not template:
        return frozenset()
    from teachers.contexts import check_template, reads  # only templates need jinja2 and the tokenizer's module

    return frozenset() if check_template(template) else reads(template)


def wanted(strands: Iterable[Strand]) -> set[str]:
    """Names of the views that any of the strands reads."""
    return set().union(*(needs(strand) for strand in strands))


def _of_source(strand: Strand) -> Iterator[str]:
    source = strand.source
    if isinstance(strand.credit, ProcessCredit | TurnCredit | PartCredit):
        yield "step_scores"
    if source.producer == "preference":
        yield "preferences"
    if source.producer == "labelled":
        yield "labels"
    if source.parent:
        yield "parent_text"
    read = frozenset[str]().union(*(variables(text) for _, text in templates(source)))
    if read & {"demonstration", "hint"}:
        yield "demonstration_text"
    if read & {"sibling", "reason"}:
        yield "rewards"
    if source.select.kind != "all" or (source.prepare is not None and source.prepare.keep != "all"):
        yield "rewards"


def _of_term(term: Term) -> set[str]:
    found = set().union(*(_of_weight(weight) for weight in term.weights))
    match term.kernel:
        case Point(denominator="old" | "behavior" as denominator):
            return found | {f"{denominator}_logps"}
        case Point():
            return found
        case Set():
            return found | set(_of_set(term.kernel))
        case Div():
            return found | _of_divergence(term.kernel)
        case _:
            assert_never(term.kernel)


def _of_weight(weight: TokenWeight) -> set[str]:
    match weight.kind:
        case "truncated_importance" | "masked_importance":
            return {"old_logps", "behavior_logps"}
        case "tapered":
            return {"behavior_logps"}
        case "clipped_ratio":
            return {"old_logps"}
        case "top_entropy":
            return {"old_entropy", "statistics"}
        case _:
            return set()


def _of_set(kernel: Set) -> Iterator[str]:
    if kernel.reference and kernel.score == "likelihood":
        yield "reference_logps"
    if kernel.link == "kto":  # its z is a mean over the whole step, by the learner as it was when the step began
        yield from ("old_logps", "statistics")
    if kernel.link == "value" and kernel.clip is not None:
        yield "old_values"
    if kernel.link in ("value", "regression") or kernel.unit == "token":
        yield "targets"


def _of_divergence(kernel: Div) -> set[str]:
    if kernel.target == "uniform" or kernel.form == "entropy":
        return set()
    if kernel.form in DISTRIBUTIONS:
        return {f"{kernel.target}_{'topk' if kernel.support == 'top_k' else 'hidden'}"}
    return {f"{kernel.target}_logps"} | ({"behavior_logps"} if kernel.form == "rk3" else set())


def reads_advantage(strand: Strand) -> bool:
    """Whether a term of the strand reads what the credit gives."""
    return any(_reads_advantage(term) for term in strand.terms)


def _reads_advantage(term: Term) -> bool:
    signed = any(weight.kind in ("positive", "negative", "tapered") for weight in term.weights)
    return signed or (isinstance(term.kernel, Point) and term.kernel.advantage == "credit")
