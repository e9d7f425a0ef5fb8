"""Environments: whose responses are played in them, and which sources cannot stand on top of one."""

from collections.abc import Iterator

from orchestrator.legality.verdict import Case, Verdict
from policies.config import Strand, TurnCredit
from verifiers.environments.config import CustomEnvironment, RetryEnvironment

RULE = "environment"


def played(case: Case, strand: Strand) -> bool:
    """Whether the strand's responses are episodes of the pipeline's environment."""
    return case.around.environment is not None and strand.source.producer == "rollout"


def environments(case: Case) -> Iterator[Verdict]:
    """What a recipe asks for that an environment does not give."""
    if case.around.environment is None:
        return
    for strand in case.recipe.strands:
        yield from _sources(case, strand)
        yield from _rewards(case, strand)


def _sources(case: Case, strand: Strand) -> Iterator[Verdict]:
    source = strand.source
    fix = "set environment to null, or choose a recipe without it"
    if source.producer == "rollout" and source.turn:
        text = "source.turn is a second turn, and the environment makes the turns"
        yield Verdict("error", RULE, strand.name, text, fix)
    if source.producer == "rollout" and source.prefix:
        text = "source.prefix begins the response with a demonstration's tokens, and an episode begins with a turn"
        yield Verdict("error", RULE, strand.name, text, fix)
    if source.producer in ("teacher", "reference") or (source.prepare and source.prepare.writer == "teacher"):
        text = "a frozen model writes its responses in one turn, outside of the environment"
        yield Verdict("error", RULE, strand.name, text, fix)


def _rewards(case: Case, strand: Strand) -> Iterator[Verdict]:
    own = case.around.environment
    rewarded = isinstance(own, RetryEnvironment | CustomEnvironment)
    if isinstance(strand.credit, TurnCredit) and played(case, strand) and not rewarded:
        text = "credit turn reads a reward for each turn, and tools give none"
        yield Verdict("error", RULE, strand.name, text, "use credit group on the outcome, or environment retry")
