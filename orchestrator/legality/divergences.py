"""Divergences: targets equal to the policy, estimators as losses, prefixes of others, tails (V2, V5, V8, V11)."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from orchestrator.legality.points import IMPORTANCE, weights
from orchestrator.legality.sources import trained_context, writer
from orchestrator.legality.verdict import Case, Reading, Verdict
from orchestrator.needs import DISTRIBUTIONS, needs
from policies.config import Div, Gae, GroupCredit, PartCredit, Point, Strand, TeacherGap


def divergences(case: Case) -> Iterator[Verdict]:
    """Every divergence, then the models that they are taken against."""
    for reading in case.readings():
        kernel = reading.term.kernel
        if isinstance(kernel, Div):
            yield from _estimator(reading, kernel)
            yield from _stale(case, reading, kernel)
            yield from _prefixes(reading, kernel)
            yield from _support(case, reading, kernel)
    yield from _same_view(case)
    yield from _missing_teacher(case)
    yield from _tokenizers(case)


# ---------------------------------------------------------------- V5: estimators and stale data


def _estimator(reading: Reading, kernel: Div) -> Iterator[Verdict]:
    if kernel.form == "entropy":
        return
    if kernel.target == "uniform":
        text = f"form {kernel.form} against uniform has no view to read: uniform is the target of form entropy alone"
        yield Verdict("error", "views", reading.where, text, "set form: entropy, or target: reference or teacher")
    if kernel.form == "k1":
        text = "k1 as a loss: on the policy's own samples its gradient is 0 in expectation, so that it holds nothing"
        fix = "take k1 off the reward (credit.kl), or use form k2 (reverse KL's gradient) or k3 (forward KL's)"
        yield Verdict("error", "V5", reading.where, text, fix)
    if kernel.form == "k3":
        text = f"k3 as a loss: its gradient is that of the forward KL, KL({kernel.target} || policy)"
        fix = "k2 or rk3 have the reverse KL's, if that is meant"
        yield Verdict("warning", "V5", reading.where, text, fix)


def _stale(case: Case, reading: Reading, kernel: Div) -> Iterator[Verdict]:
    """A reverse divergence is an expectation under the policy of this step."""
    lag, who = case.stage.max_staleness, writer(reading.strand.source)
    stale = who == "earlier" or (who == "learner" and lag > 0)
    if kernel.form not in ("reverse", "k2") or not stale or any(kind in IMPORTANCE for kind in weights(reading)):
        return
    whose = f"rollouts up to {lag} versions old" if who == "learner" else "responses of earlier versions"
    text = f"a reverse divergence on {whose} needs an importance weight: it is an expectation under the policy"
    fix = "add the weight truncated_importance, use form rk3" + (
        ", or set max_staleness: 0" if who == "learner" else ""
    )
    yield Verdict("error", "V5", reading.where, text, fix)


# ---------------------------------------------------------------- V11: prefixes that another wrote


def _prefixes(reading: Reading, kernel: Div) -> Iterator[Verdict]:
    if writer(reading.strand.source) not in ("data", "model") or kernel.form not in ("reverse", "k2", "k3", "rk3"):
        return
    if kernel.form == "k3":
        text = "k3 averages over the policy's own samples, and another wrote these tokens: it estimates no divergence"
    else:
        text = "a reverse divergence on tokens that another wrote: an objective on prefixes the learner may never reach"
    fix = "use form forward, or take the divergence on rollouts"
    yield Verdict("warning", "V11", reading.where, text, fix)


# ---------------------------------------------------------------- V8: support and tokenizers


def _support(case: Case, reading: Reading, kernel: Div) -> Iterator[Verdict]:
    if kernel.form not in DISTRIBUTIONS:
        return
    if kernel.support == "full" and case.around.frozen_engine != "torch":
        text = (
            f"the whole vocabulary needs the {kernel.target}'s last hidden states, and the {case.around.frozen_engine} "
            "engine gives its likeliest tokens alone"
        )
        fix = "set resources.frozen.engine: torch, or support: top_k"
        yield Verdict("error", "V8", reading.where, text, fix)
    if kernel.support == "top_k" and kernel.tail == "raw":
        text = f"tail raw: a partial sum over {kernel.top_k} tokens, biased, and not even a bound of the divergence"
        yield Verdict("warning", "V8", reading.where, text, "set tail: bucket")
    if kernel.support == "top_k" and kernel.tail == "renormalise":
        text = f"tail renormalise: what the policy gives to tokens outside the top {kernel.top_k} is free of cost"
        yield Verdict("declared", "V8", reading.where, text)


def _tokenizers(case: Case) -> Iterator[Verdict]:
    """Teachers score the learner's token ids, so they must mean the same text."""
    model = fingerprint(case.around.model) if case.around.files and case.around.model else None
    if model is None:
        return
    for folder in sorted(teacher_folders(case)):
        found = fingerprint(folder)
        if found is not None and found != model:
            text = f"{folder} has another tokenizer.json than {case.around.model}: the same token ids are other texts"
            fix = "take a teacher that shares the tokenizer, or let it write text: demonstrations: {kind: model}"
            yield Verdict("error", "V8", "", text, fix)


def fingerprint(folder: str) -> str | None:
    """policies.tokens.Tokenizer.fingerprint, without the tokenizer; None where there is no such file."""
    path = Path(folder) / "tokenizer.json"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def teacher_folders(case: Case) -> set[str]:
    """Folders of the teachers that are not the policy itself."""
    return {one for one in (case.recipe.teacher, *case.recipe.teachers.values()) if one and one != "self"}


def _missing_teacher(case: Case) -> Iterator[Verdict]:
    if case.recipe.teacher or case.recipe.teachers:
        return
    for strand in case.recipe.strands:
        views = sorted(needs(strand) & {"teacher_logps", "teacher_topk", "teacher_hidden"})
        prepares = strand.source.prepare is not None and strand.source.prepare.writer == "teacher"
        if views or prepares or strand.source.producer == "teacher":
            what = f"reads {', '.join(views)}" if views else "is written by the teacher"
            text = f"{what}, and the recipe names no teacher"
            yield Verdict("error", "views", strand.name, text, "set teacher to a model's folder, or to `self`")


# ---------------------------------------------------------------- V2: a target that is the policy itself


def _same_view(case: Case) -> Iterator[Verdict]:
    """Divergences that are 0 because both sides are one model under one context."""
    reads = [(strand, target, where) for strand in case.recipe.strands for target, where in _targets(strand)]
    own = [(target, where) for strand, target, where in reads if _is_policy(case, strand, target)]
    moved = any(_moves(case, strand) for strand in case.recipe.strands)
    for target, where in own:
        if _refreshed(case) == target and case.recipe.refresh.kind == "every" and case.recipe.refresh.every == 1:
            text = (
                f"the {target} is the policy itself in every step, in the same context: the divergence is 0 everywhere"
            )
            yield Verdict("error", "V2", where, text, _FIX[target])
        elif not moved:
            text = (
                f"the {target} begins as the policy itself, in the same context, and no other term moves the policy: "
                "the divergence stays 0 and nothing is learned"
            )
            yield Verdict("error", "V2", where, text, _FIX[target])
        elif target == "teacher":
            text = "the teacher begins as the policy itself, in the same context: it holds the policy to where it began"
            yield Verdict("declared", "V2", where, text)


_FIX = {
    "teacher": "give it a context of its own (source.teacher), or take another folder, or refresh it more slowly",
    "reference": "set refresh: {kind: fixed} or a longer `every`, and train on something else beside it",
}


def _targets(strand: Strand) -> Iterator[tuple[str, str]]:
    """(teacher or reference, where): every divergence from it, in a term or in the reward."""
    for term in strand.terms:
        if isinstance(term.kernel, Div) and term.kernel.target != "uniform" and term.kernel.form != "entropy":
            yield term.kernel.target, f"{strand.name}.{term.name}"
    match strand.credit:
        case TeacherGap():
            yield "teacher", strand.name
        case GroupCredit(kl=kl) | Gae(kl=kl) | PartCredit(kl=kl) if kl:
            yield "reference", strand.name


def _is_policy(case: Case, strand: Strand, target: str) -> bool:
    """Whether the target begins the stage as the policy, and sees what the loss sees."""
    if target == "reference":
        return True
    names = {case.recipe.teacher or "", *case.recipe.teachers.values()} - {""}
    itself = names == {"self"} or (case.around.first and _one_folder(case.around.model, names))
    return itself and strand.source.teacher == trained_context(strand.source)


def _one_folder(model: str, others: set[str]) -> bool:
    return bool(model) and {Path(name).resolve() for name in others} == {Path(model).resolve()}


def _refreshed(case: Case) -> str:
    """Which frozen model gets the learner's weights again."""
    return "teacher" if "self" in (case.recipe.teacher, *case.recipe.teachers.values()) else "reference"


def _moves(case: Case, strand: Strand) -> bool:
    """Whether a term of the strand has a gradient where every such divergence is 0."""
    for term in strand.terms:
        match term.kernel:
            case Div(form="entropy"):
                return True
            case Div(target=target):
                if not _is_policy(case, strand, target):
                    return True
            case Point(advantage="credit") if isinstance(strand.credit, TeacherGap) and not strand.credit.outcome:
                if not _is_policy(case, strand, "teacher"):
                    return True
            case _:
                return True
    return False
