"""What a recipe's mathematics allows: errors that stop a run before it costs anything, and biases that it declares.

Each rule is a property of strands alone, so that any composition is judged, not a list of known recipes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.config import Stage
from orchestrator.recipes import Recipe
from policies.config import Div, Identity, Point, Strand, Term

_IMPORTANCE = ("truncated_importance", "masked_importance")
_PROBABILITY = ("probability", "chord_phi")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One finding: `error` refuses the run, `warning` is likely unwanted, `declared` is a bias taken knowingly."""

    level: Literal["error", "warning", "declared"]
    rule: str
    where: str
    """Strand, or strand.term, or empty for the stage."""
    text: str
    fix: str = ""


def judge(stage: Stage, recipe: Recipe) -> tuple[Verdict, ...]:
    """Every finding about one stage, errors first."""
    found = [*_groups(recipe), *_sampling(stage, recipe)]
    for strand in recipe.strands:
        for term in strand.terms:
            found += [*_point(stage, strand, term), *_divergence(stage, strand, term), *_normaliser(strand, term)]
    order = ("error", "warning", "declared")
    return tuple(sorted(found, key=lambda verdict: order.index(verdict.level)))


def members(recipe: Recipe) -> tuple[Strand, ...]:
    """Strands whose trajectories share a prompt's group and are compared by reward."""
    return tuple(strand for strand in recipe.strands if strand.source.per_prompt and strand.credit.kind == "group")


# ---------------------------------------------------------------- groups (V3, V9)


def _groups(recipe: Recipe) -> Iterator[Verdict]:
    group = members(recipe)
    if not group:
        return
    size = sum(strand.source.per_prompt for strand in group)
    if size == 1:
        yield _group_of_one(group[0])
    elif not any(control.kind == "zero_variance" and control.action == "drop" for control in recipe.controls):
        text = "groups whose rewards are all equal are kept: their advantages are 0 and their tokens count"
        yield Verdict("declared", "V3", "", text)
    if len({strand.source.producer for strand in group}) > 1:
        yield from _mixed_scope(group)


def _group_of_one(strand: Strand) -> Verdict:
    credit = strand.credit
    if credit.kind == "group" and credit.lone == "zero" and credit.baseline != "zero":
        text = "a group of one has no baseline: every advantage is 0 and nothing is learned"
        return Verdict("error", "V3", strand.name, text, "ask for 2 or more responses a prompt")
    return Verdict("declared", "V3", strand.name, "a group of one: the advantage is the reward, without a baseline")


def _mixed_scope(group: Sequence[Strand]) -> Iterator[Verdict]:
    for strand in group:
        if "scope" not in strand.credit.model_fields_set:
            text = "the group mixes who wrote it, and the credit does not say whose rewards form the baseline"
            yield Verdict("error", "V9", strand.name, text, "set credit.scope to all or on_policy")
    scopes = {strand.credit.scope for strand in group if strand.credit.kind == "group"}
    whose = "everybody's rewards" if scopes == {"all"} else "the learner's own rewards alone"
    yield Verdict("declared", "V9", "", f"{whose} form the group's baseline")


# ---------------------------------------------------------------- point kernels (V1, V6, V10, V14)


def _point(stage: Stage, strand: Strand, term: Term) -> Iterator[Verdict]:
    if not isinstance(term.kernel, Point):
        return
    where, weights = f"{strand.name}.{term.name}", [weight.kind for weight in term.weights]
    corrected = any(kind in _IMPORTANCE for kind in weights)
    if term.kernel.denominator == "behavior" and corrected:
        text = "divides by the behavior probability and weighs by the same ratio: it counts twice"
        yield Verdict("error", "V10", where, text, "drop the importance weight, or divide by `old`")
    if term.kernel.level == "geometric" and term.reduce.kind != "sequence":
        text = f"a sequence-level ratio with a {term.reduce.kind} mean is another gradient than the one meant"
        yield Verdict("error", "V6", where, text, "reduce by sequence")
    if term.kernel.denominator == "one" and isinstance(term.kernel.shape, Identity):
        squared = [kind for kind in weights if kind in _PROBABILITY]
        if squared:
            text = f"the probability itself, weighed by {squared[0]}: the factor p counts twice"
            yield Verdict("error", "V14", where, text, "divide by `current` with shape log, or drop the weight")
    yield from _denominator(stage, strand, term, corrected)


def _denominator(stage: Stage, strand: Strand, term: Term, corrected: bool) -> Iterator[Verdict]:
    """Which probability stands below the ratio, and what that leaves out (V1, V11)."""
    where, denominator = f"{strand.name}.{term.name}", getattr(term.kernel, "denominator", "")
    given = strand.source.producer != "rollout"
    if given and (denominator == "behavior" or corrected):
        text = f"needs the probability with which each token was sampled, and a {strand.source.producer} has none"
        yield Verdict("error", "V1", where, text, "divide by `current`, `one` or `old`")
    elif given:
        yield Verdict("declared", "V1", where, _GIVEN[denominator])
    elif denominator == "old" and stage.max_staleness and not corrected:
        text = (
            f"rollouts up to {stage.max_staleness} versions old are treated as the learner's own: the ratio is taken "
            "against the learner before the update, not against the sampler"
        )
        yield Verdict("declared", "V1", where, text)
    elif denominator == "current" and stage.max_staleness:
        yield Verdict("declared", "V1", where, "no ratio at all: stale rollouts count as fresh ones")


_GIVEN = {
    "current": "plain likelihood: how likely the given tokens were to be sampled is left out",
    "one": "the sampler's probability is taken as 1: the given tokens are not importance-weighted",
    "old": "the learner's own probability stands in for that of whoever wrote the tokens",
}

# ---------------------------------------------------------------- divergences (V5, V11)


def _divergence(stage: Stage, strand: Strand, term: Term) -> Iterator[Verdict]:
    if not isinstance(term.kernel, Div):
        return
    where, form = f"{strand.name}.{term.name}", term.kernel.form
    if form == "k3":
        text = f"k3 as a loss: its gradient is that of the forward KL, KL({term.kernel.target} || policy)"
        yield Verdict("declared", "V5", where, text)
    if form in ("reverse", "k2") and strand.source.producer != "rollout":
        text = "a reverse divergence on tokens that another wrote: an objective on prefixes the learner may never reach"
        yield Verdict("warning", "V11", where, text)
    if form == "reverse" and stage.max_staleness and not any(weight.kind in _IMPORTANCE for weight in term.weights):
        text = f"a reverse divergence on rollouts up to {stage.max_staleness} versions old needs an importance weight"
        yield Verdict("error", "V5", where, text, "set max_staleness: 0")


# ---------------------------------------------------------------- normalisers and sampling (V6, V7, pitfall 20)


def _normaliser(strand: Strand, term: Term) -> Iterator[Verdict]:
    where = f"{strand.name}.{term.name}"
    if term.reduce.kind == "length":
        text = (
            f"the sum is divided by {term.reduce.length} alone, not by the number of responses: more of them, more loss"
        )
        yield Verdict("declared", "V6", where, text)
    if term.reduce.kind == "batch_length":
        text = f"the sum is divided by responses x {term.reduce.length}, whatever their lengths"
        yield Verdict("declared", "V6", where, text)


def _sampling(stage: Stage, recipe: Recipe) -> Iterator[Verdict]:
    if not any(strand.source.producer == "rollout" for strand in recipe.strands):
        return
    if stage.sampling.temperature != 1:
        text = f"rollouts are drawn at temperature {stage.sampling.temperature:g} and trained on at 1"
        yield Verdict("warning", "V1", "", text, "set sampling.temperature: 1")
    if stage.sampling.top_p < 1 or stage.sampling.top_k > 0:
        text = "top_p or top_k cuts the tail: what is sampled is not what is trained"
        yield Verdict("warning", "V1", "", text, "leave both at their defaults")
