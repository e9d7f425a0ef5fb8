"""Facts about sources that several rules ask for: who writes, what is recorded of it, what each reader sees."""

from typing import Literal

from orchestrator.recipes import Recipe
from policies.config import Source, Strand, Template, Term
from policies.source_config import Remembered

Writer = Literal["learner", "earlier", "model", "data"]
"""learner: the policy, now; earlier: the policy before; model: a frozen model; data: whoever wrote the data set."""

_WRITERS: dict[str, Writer] = {
    "rollout": "learner", "replay": "earlier", "teacher": "model", "reference": "model",
    "demonstration": "data", "preference": "data", "labelled": "data",
}  # fmt: skip


def writer(source: Source) -> Writer:
    """Whose distribution the tokens come from; of a past of many writers, the one farthest from the learner."""
    if source.prepare is None and source.producer == "replay":
        asked = source.past.producers
        return "data" if "demonstration" in asked else "model" if "teacher" in asked else "earlier"
    if source.prepare is None:
        return _WRITERS[source.producer]
    prepared: dict[str, Writer] = {"learner": "earlier", "teacher": "model", "nobody": "data"}
    return prepared[source.prepare.writer]


_REMEMBERED: dict[str, frozenset[Remembered]] = {
    "rollout": frozenset({"rollout", "revision", "correction", "search"}),
    "teacher": frozenset({"teacher", "revision", "correction"}),
    "reference": frozenset({"teacher", "revision", "correction"}),
    "demonstration": frozenset({"demonstration", "teacher"}),  # a model may write them
    "preference": frozenset({"demonstration"}),
    "labelled": frozenset({"demonstration"}),
    "replay": frozenset(),
}


def remembered(strand: Strand) -> frozenset[Remembered]:
    """As which kinds of trajectory replay may find what the strand trained on."""
    if not strand.terms:
        return frozenset()
    if strand.source.prepare is not None:
        return frozenset[Remembered]().union(*_REMEMBERED.values())  # whoever writes it
    return _REMEMBERED[strand.source.producer]


def recorded(source: Source) -> bool:
    """Whether the probability of every sampled token was written down."""
    stand_in = source.prepare is not None and source.prepare.otherwise == "demonstration"
    return writer(source) != "data" and not stand_in


def called(source: Source) -> str:
    """The writer in words, as the subject of a sentence."""
    if writer(source) == "data" or (source.prepare is not None and source.prepare.otherwise == "demonstration"):
        rows = {"preference": "a preference row", "labelled": "a labelled row"}
        return rows.get(source.producer, "a demonstration")
    names: dict[Writer, str] = {"learner": "a rollout", "earlier": "an earlier version's response"}
    return names.get(writer(source), "a frozen model's response")


def reads_hint(strand: Strand, term: Term) -> bool:
    """Whether the term trains on tokens of a hint that the response starts with: the learner did not sample them."""
    origins = term.only.origins
    return strand.source.prefix and strand.source.hint_trained and (not origins or "hint" in origins)


def trained_context(source: Source) -> Template:
    """The template that the loss sees."""
    return source.behavior if source.context_shift == "keep" else source.train


def group(recipe: Recipe) -> tuple[Strand, ...]:
    """Strands whose trajectories share a prompt's group."""
    return tuple(strand for strand in recipe.strands if strand.source.per_prompt)


def provenance(strand: Strand) -> tuple[str, bool, bool]:
    """What has to agree for a group's members to be alike in who wrote them."""
    source = strand.source
    return (source.producer if source.prepare is None else "prepared", bool(source.parent), source.prefix)
