"""Contexts and lineage: what the writer, the loss and the probe see; parents, parts and hints (V4, V12)."""

from collections.abc import Iterator

from orchestrator.controls.config import Ladder, Prefix, Scaffold
from orchestrator.legality.environments import played
from orchestrator.legality.points import IMPORTANCE, weights
from orchestrator.legality.sources import called, group, writer
from orchestrator.legality.verdict import Case, Reading, Verdict
from orchestrator.needs import templates, variables
from policies.config import PartCredit, Point, ProcessCredit, Source, Strand, TurnCredit

HINTS = Ladder | Prefix | Scaffold
"""Controls that put more into the writer's context, or into the response, than the prompt."""


def contexts(case: Case) -> Iterator[Verdict]:
    """Every strand's contexts and lineage, then every term that asks for parts."""
    for strand in case.recipe.strands:
        yield from _shift(case, strand)
        yield from _templates(case, strand)
        yield from _lineage(case, strand)
        yield from _prefix(case, strand)
        yield from _turns(case, strand)
    for reading in case.readings():
        yield from _parts(case, reading)
    yield from _scaffolded(case)


# ---------------------------------------------------------------- V4: the loss sees another context than the writer saw


def _shift(case: Case, strand: Strand) -> Iterator[Verdict]:
    source = strand.source
    if writer(source) == "data":
        yield from _unseen(strand, source)
        return
    if source.prepare is not None:
        if any(attempt != source.train for attempt in source.prepare.attempts):
            text = "what was written under an attempt's template is learned under another context"
            yield Verdict("declared", "V4", strand.name, text)
        return
    differ = source.behavior != source.train
    if differ and source.context_shift is None and strand.terms:
        text = "the loss sees another context than the writer saw, and the recipe does not say what the ratio does"
        fix = "set source.context_shift to keep, recompute or importance"
        yield Verdict("error", "V4", strand.name, text, fix)
    elif not differ and source.context_shift is not None:
        text = f"context_shift {source.context_shift}, and writer and loss see the same context"
        yield Verdict("warning", "V4", strand.name, text, "remove it, or give behavior and train different templates")
    elif differ and source.context_shift is not None:
        yield from _declared_shift(case, strand, source.context_shift)


def _unseen(strand: Strand, source: Source) -> Iterator[Verdict]:
    if source.behavior:
        text = f"source.behavior is a template for the writer, and {called(source)} is written already: nobody sees it"
        yield Verdict("warning", "V4", strand.name, text, "write source.train, which the loss sees")
    if source.train:
        yield Verdict("declared", "V4", strand.name, "the loss sees a template that whoever wrote the data did not")


def _declared_shift(case: Case, strand: Strand, shift: str) -> Iterator[Verdict]:
    """What a declared shift means, and whether the terms do what it says."""
    if shift == "keep":
        text = (
            "keep: the loss sees the writer's context: the hinted task is learned and measured; none of it goes into "
            "the plain prompt"
        )
        yield Verdict("declared", "V4", strand.name, text)
    if shift == "recompute":
        text = (
            "recompute: old is the learner's under the training context; how the shift changed the sampling is ignored"
        )
        yield Verdict("declared", "V4", strand.name, text)
    for term in strand.terms:
        if not isinstance(term.kernel, Point):
            continue
        reading = Reading(f"{strand.name}.{term.name}", strand, term, False)
        by_weight = any(kind in IMPORTANCE for kind in weights(reading))
        divides = term.kernel.denominator == "behavior" or by_weight
        if shift == "importance" and not divides:
            text = (
                f"context_shift importance, and the ratio divides by {term.kernel.denominator}: it leaves the shift out"
            )
            yield Verdict("error", "V4", reading.where, text, "set denominator: behavior, or context_shift: recompute")
        if shift == "recompute" and divides:
            text = "context_shift recompute, and the term divides by what the writer's context gave: that is importance"
            yield Verdict("error", "V4", reading.where, text, "set denominator: old, or context_shift: importance")


# ---------------------------------------------------------------- V12: what probes ask


def _scaffolded(case: Case) -> Iterator[Verdict]:
    hinted = {strand.name for strand in case.recipe.strands if strand.source.behavior or strand.source.prefix}
    hinted |= {control.strand for control in case.recipe.controls if isinstance(control, HINTS)}
    if hinted:
        text = (
            f"{', '.join(sorted(hinted))}: rewards are of responses that had help; the headline probe asks the plain "
            "prompt, without any template"
        )
        yield Verdict("declared", "V12", "", text)


# ---------------------------------------------------------------- templates


def _templates(case: Case, strand: Strand) -> Iterator[Verdict]:
    for key, text in templates(strand.source):
        yield from _template(case, strand, key, text)


def _template(case: Case, strand: Strand, key: str, text: str) -> Iterator[Verdict]:
    from teachers.contexts import check_template  # only templates need jinja2 and the tokenizer's module

    faults = check_template(text)
    yield from (Verdict("error", "lineage", strand.name, f"source.{key}: {fault}", "mend it") for fault in faults)
    if faults:
        return
    read = variables(text)
    for name in sorted(read & {"parent", "reason"}):
        if not strand.source.parent and key != "teacher":  # a teacher sees the response itself and what was said of it
            said = f"source.{key} reads `{name}`, and the strand has no parent to read it of"
            yield Verdict("error", "lineage", strand.name, said, "set source.parent to the strand that is revised")
    for name in sorted(read & {"demonstration", "hint"}):
        if not case.around.demonstrations:
            said = f"source.{key} reads `{name}`, and the pipeline has no demonstrations"
            yield Verdict(
                "error", "lineage", strand.name, said, "add demonstrations, or take the name out of the template"
            )
    if "sibling" in read and sum(one.source.per_prompt for one in group(case.recipe)) < 2:
        said = f"source.{key} reads `sibling`, a passing response of the group, and groups have one member"
        yield Verdict("error", "lineage", strand.name, said, "set per_prompt to 2 or more")
    yield from _unset(case, strand, key, read)


def _unset(case: Case, strand: Strand, key: str, read: frozenset[str]) -> Iterator[Verdict]:
    """Names that a control fills in, and no such control."""
    kinds = {control.kind for control in case.recipe.controls if getattr(control, "strand", "") == strand.name}
    for name, kind in (("hint", "ladder"), ("criteria", "scaffold")):
        if name in read and not kinds & {kind, "prefix"}:
            said = f"source.{key} reads `{name}`, and no control sets it: it is empty"
            yield Verdict(
                "warning", "lineage", strand.name, said, f"add a control {{kind: {kind}, strand: {strand.name}}}"
            )


# ---------------------------------------------------------------- parents, turns, prefixes


def _lineage(case: Case, strand: Strand) -> Iterator[Verdict]:
    source = strand.source
    if source.turn and not source.parent:
        text = "source.turn follows a parent's tokens, and the strand has no parent"
        yield Verdict("error", "lineage", strand.name, text, "set source.parent to the strand of the first turn")
    if not source.parent:
        return
    if case.strand(source.parent) is None:
        known = ", ".join(one.name for one in case.recipe.strands if one.name != strand.name)
        text = f"source.parent names no strand (got '{source.parent}')"
        yield Verdict("error", "lineage", strand.name, text, f"name one of {known}" if known else "add it")
        return
    if _rings(case, strand):
        text = "is its own ancestor by source.parent: nobody could be asked first"
        yield Verdict("error", "lineage", strand.name, text, "let the first of the chain have no parent")
    if source.producer not in ("rollout", "teacher", "reference"):
        text = f"has a parent to revise, and producer {source.producer} writes nothing in this step"
        yield Verdict("error", "lineage", strand.name, text, "set producer: rollout (or teacher, reference)")
    if not source.turn and not variables(source.behavior) & {"parent", "reason"}:
        text = f"has parent {source.parent}, and its writer is not shown it"
        fix = "read `parent` in source.behavior, or write source.turn to go on in the same dialogue"
        yield Verdict("error", "lineage", strand.name, text, fix)


def _rings(case: Case, strand: Strand) -> bool:
    seen: set[str] = set()
    at: Strand | None = strand
    while at is not None and at.source.parent:
        if at.name in seen:
            return True
        seen.add(at.name)
        at = case.strand(at.source.parent)
    return False


def _prefix(case: Case, strand: Strand) -> Iterator[Verdict]:
    if not strand.source.prefix:
        return
    if not case.around.demonstrations:
        text = "its responses start with a part of the prompt's demonstration, and the pipeline has none"
        yield Verdict("error", "lineage", strand.name, text, "add demonstrations, or set source.prefix: false")
    if not any(control.kind == "prefix" and control.strand == strand.name for control in case.recipe.controls):
        text = "source.prefix, and no control says how much of the demonstration it is"
        fix = f"add controls: [{{kind: prefix, strand: {strand.name}}}]"
        yield Verdict("error", "controls", strand.name, text, fix)


def _turns(case: Case, strand: Strand) -> Iterator[Verdict]:
    if isinstance(strand.credit, TurnCredit) and not (strand.source.turn or played(case, strand)):
        text = "credit turn reads a reward for each turn, and the response has one turn"
        fix = "write source.parent and source.turn, give the pipeline an environment, or credit group"
        yield Verdict("error", "lineage", strand.name, text, fix)


def _parts(case: Case, reading: Reading) -> Iterator[Verdict]:
    kernel, strand = reading.term.kernel, case.strand(reading.strand.name) or reading.strand
    by_level = isinstance(kernel, Point) and kernel.level == "part"
    if not by_level and reading.term.only.part is None:
        return
    if strand.source.turn or played(case, strand) or isinstance(strand.credit, ProcessCredit | TurnCredit | PartCredit):
        return
    what = "level part" if by_level else f"only.part {reading.term.only.part}"
    text = f"{what} needs responses in parts, and nothing parts this strand's: no turn, no scores of parts"
    fix = "write source.turn, or credit process, turn or part; or read the whole response"
    yield Verdict("error", "lineage", reading.where, text, fix)
