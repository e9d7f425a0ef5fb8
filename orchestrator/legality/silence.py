"""Verdicts that controls count, and verifiers that do not give them."""

from collections.abc import Iterator
from typing import assert_never

from orchestrator.controls.config import Control, StartWhen, ZeroVariance
from orchestrator.controls.decide import watched
from orchestrator.legality.facts import OF_VERDICTS
from orchestrator.legality.verdict import Case, Verdict
from orchestrator.legality.waits import from_before, is_judged, writers
from orchestrator.needs import needs
from policies.config import Strand
from verifiers.config import (
    AnswerVerifier,
    AnyVerifier,
    FormatVerifier,
    MathVerifier,
    RubricVerifier,
    StepsVerifier,
    TaskVerifier,
    part_name,
)
from verifiers.environment_config import EnvironmentVerifier
from verifiers.judge_config import JudgeVerifier
from verifiers.model_config import PreferenceModelVerifier, ProcessModelVerifier, RewardModelVerifier
from verifiers.program_config import ProgramVerifier
from verifiers.text_config import (
    FunctionVerifier,
    JsonSchemaVerifier,
    LanguageVerifier,
    LengthVerifier,
    RepetitionVerifier,
    TagsVerifier,
)

RULE = "verdicts"


def silence(case: Case) -> Iterator[Verdict]:
    """Every control that reads a verdict which is not given, or is always the same, and replay that asks for one."""
    yield from _replayed(case)
    verifier = case.around.verifier
    if verifier is None:
        return
    counting = [one for one in case.recipe.controls if watched(one) or _waits(one)]
    if not case.around.referenced and (comparing := compares(verifier)):
        yield from _unreferenced(case, counting, comparing)
        return
    optional = always_passes(verifier)
    for control in counting if optional else ():
        if isinstance(control, StartWhen) and control.fact != "accuracy":
            continue
        who = ", ".join(watched(control)) or getattr(control, "strand", "")
        text = (
            f"{control.kind} counts how many responses passed, and {optional} fails none of them, whatever their value"
        )
        fix = "make a part of the rubric required (or a gate), give a model a threshold, or choose one that can fail"
        yield Verdict("error", RULE, who, text, fix)


def _replayed(case: Case) -> Iterator[Verdict]:
    """Past trajectories are chosen by the verdict that they got when they trained."""
    for strand in case.recipe.strands:
        own = writers(case, strand)
        if not (asked := _of_the_past(strand)) or from_before(case, strand) or not own:
            continue
        if not any(is_judged(case, one, case.recipe.strands) for one in own):
            names = ", ".join(one.name for one in own)
            text = f"source.past.{asked} asks for what the verifier said of {names}, and nobody asks it for a verdict"
            fix = "give one of them a credit that reads rewards, or ask for any past"
            yield Verdict("error", RULE, strand.name, text, fix)


def _of_the_past(strand: Strand) -> str:
    """The key by which replay asks for verdicts; empty where it does not."""
    keys = ("passed", "at_least", "at_most") if strand.source.producer == "replay" else ()
    return next((key for key in keys if getattr(strand.source.past, key) is not None), "")


def _waits(control: Control) -> bool:
    return isinstance(control, StartWhen) and control.fact in OF_VERDICTS


def _unreferenced(case: Case, counting: list[Control], verifier: str) -> Iterator[Verdict]:
    """Every verdict is unknown: what reads one hears nothing for ever."""
    said = f"prompts.train.reference is null, and the verifier {verifier} compares with it: every verdict is unknown"
    fix = "name the column of the reference, or judge by format"
    judged = [one for one in case.recipe.controls if isinstance(one, ZeroVariance) and one.action != "keep"]
    for control in (*counting, *judged):
        who = ", ".join(watched(control)) or getattr(control, "strand", "")
        yield Verdict("error", RULE, who, f"{control.kind} reads verdicts; {said}", fix)
    if any(learner.role == "reward" for learner in case.recipe.learners):
        return  # a co-learner's score is the reward
    for strand in case.recipe.strands:
        if strand.terms and ("rewards" in needs(strand) or _of_the_past(strand)):
            yield Verdict("error", RULE, strand.name, f"reads rewards; {said}", fix)


# ---------------------------------------------------------------- what a verifier says


def compares(verifier: AnyVerifier) -> str:
    """The part that needs a reference, by its kind; empty where none does. One that cannot judge silences the whole."""
    match verifier:
        case AnswerVerifier() | MathVerifier() | ProgramVerifier() | TaskVerifier():
            return verifier.kind
        case FormatVerifier() | FunctionVerifier() | EnvironmentVerifier():
            return ""
        case RewardModelVerifier() | ProcessModelVerifier() | RepetitionVerifier() | TagsVerifier():
            return ""
        case LengthVerifier() | LanguageVerifier() | JsonSchemaVerifier() | JudgeVerifier():
            return verifier.kind if verifier.reads_reference else ""
        case PreferenceModelVerifier():
            return verifier.kind if verifier.against == "reference" else ""
        case StepsVerifier():
            return compares(verifier.outcome)
        case RubricVerifier():
            heard = [part for part in verifier.parts if part.counts or part.decides or part.demanded]
            return next((found for part in heard if (found := compares(part))), "")
        case _:
            assert_never(verifier)


def always_passes(verifier: AnyVerifier) -> str:
    """The verifier that fails no response that it judges, in words; empty where one can fail."""
    match verifier:
        case RubricVerifier():
            demanded = [part for part in verifier.parts if part.demanded]
            vetoed = any(part.role == "veto" for part in verifier.parts)
            if not vetoed and all(always_passes(part) for part in demanded):
                return f"a rubric without a required part ({', '.join(part_name(part) for part in verifier.parts)})"
            return ""
        case StepsVerifier():
            return always_passes(verifier.outcome)
        case RewardModelVerifier() | PreferenceModelVerifier() | ProcessModelVerifier():
            return f"{verifier.kind} without a threshold" if verifier.threshold is None else ""
        case LengthVerifier():
            return "length against the group" if verifier.against == "group" else ""
        case _:
            return ""
