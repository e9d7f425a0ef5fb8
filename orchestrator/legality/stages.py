"""The stage as a whole: decoding, replay and moving rewards, restarts, co-learners' records (V1, V15)."""

from collections.abc import Iterator

from orchestrator.legality.sources import writer
from orchestrator.legality.verdict import Case, Verdict
from orchestrator.needs import needs
from policies.config import Strand


def stages(case: Case) -> Iterator[Verdict]:
    """What concerns no single term."""
    yield from _sampling(case)
    yield from _moving(case)
    yield from _restart(case)
    yield from _records(case)
    yield from _selection(case)


def _sampling(case: Case) -> Iterator[Verdict]:
    sampling = case.stage.sampling
    if not any(writer(strand.source) in ("learner", "earlier") for strand in case.recipe.strands):
        return
    if sampling.temperature != 1:
        text = f"rollouts are drawn at temperature {sampling.temperature:g} and trained on at 1"
        yield Verdict("warning", "V1", "", text, "set sampling.temperature: 1")
    if sampling.top_p < 1 or sampling.top_k > 0:
        text = "top_p or top_k cuts the tail: what is sampled is not what is trained"
        yield Verdict("warning", "V1", "", text, "leave both at their defaults")


# ---------------------------------------------------------------- V15: rewards that move


def _moving(case: Case) -> Iterator[Verdict]:
    judges = [learner.name for learner in case.recipe.learners if learner.role == "reward"]
    averaged = case.recipe.refresh.kind == "average"
    for strand in case.recipe.strands:
        if strand.source.producer != "replay":
            continue
        if judges and "rewards" in needs(strand):
            text = f"its rewards are {judges[0]}'s of another version: a co-learner's reward cannot be replayed"
            fix = "drop the replay strand, or take the reward from the verifier"
            yield Verdict("error", "V15", strand.name, text, fix)
        elif averaged and _reads_teacher(strand):
            text = "the teacher is an average that moves in every step: scores of another version cannot be replayed"
            yield Verdict("error", "V15", strand.name, text, "drop the replay strand, or set refresh: {kind: fixed}")
    lag = case.stage.max_staleness
    if judges and lag:
        text = f"{judges[0]} trains on: rewards of a step may be of versions up to {lag} apart"
        yield Verdict("declared", "V15", "", text)


def _reads_teacher(strand: Strand) -> bool:
    return bool(needs(strand) & {"teacher_logps", "teacher_topk", "teacher_hidden"})


# ---------------------------------------------------------------- the rest


def _restart(case: Case) -> Iterator[Verdict]:
    if case.recipe.restart and case.around.first:
        text = "restart begins from the run's first weights, which the first stage does anyway"
        yield Verdict("declared", "views", "", text)


def _records(case: Case) -> Iterator[Verdict]:
    """A co-learner reads the records of the policy's strands, by name."""
    for learner in case.recipe.learners:
        for strand in learner.strands:
            if case.strand(strand.name) is None:
                known = ", ".join(one.name for one in case.recipe.strands)
                text = f"reads the records of a strand that the recipe lacks (got '{strand.name}')"
                yield Verdict("error", "views", learner.name, text, f"name one of {known}")


def _selection(case: Case) -> Iterator[Verdict]:
    """How many of how many are kept."""
    for strand in case.recipe.strands:
        select, drawn = strand.source.select, strand.source.per_prompt
        if select.kind != "best":
            continue
        if not select.keep:
            text = "select best keeps the `keep` highest rewards, and keep is 0"
            yield Verdict("error", "views", strand.name, text, "set select.keep to 1 or more")
        elif drawn and select.keep >= drawn:
            text = f"select best keeps {select.keep} of {drawn}: everything, whatever its reward"
            yield Verdict("warning", "views", strand.name, text, f"set select.keep below {drawn}")
