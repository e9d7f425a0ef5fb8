"""Controls and sources that ask for more than the data hold, or than the engine can do."""

from collections.abc import Iterator

from orchestrator.controls.config import Buffer, Control, Freeze
from orchestrator.controls.prompt_config import Bottleneck, Curriculum
from orchestrator.legality.parameters import key_of
from orchestrator.legality.verdict import Case, Verdict
from orchestrator.legality.waits import from_before, writers
from policies.config import Strand

RULE = "data"


def supply(case: Case) -> Iterator[Verdict]:
    """Sizes against the number of prompts, demonstrations and past rollouts; partitioned weights."""
    for control in case.recipe.controls:
        if isinstance(control, Buffer):
            yield from _buffer(case, control)
        if isinstance(control, Curriculum | Bottleneck):
            yield from _candidates(case, control)
    yield from _step(case)
    yield from _replay(case)
    yield from _partitioned(case)


# ---------------------------------------------------------------- prompts


def _buffer(case: Case, control: Buffer) -> Iterator[Verdict]:
    """A prompt waits once, so that no more wait than there are."""
    key = key_of(case.recipe, control, "size")
    prompts, shown = case.around.prompts, case.around.demonstrated
    if prompts is not None and control.size > prompts:
        text = f"buffer.size is larger than the data: {prompts} prompts can wait (got {control.size}): it never fills"
        yield Verdict("error", RULE, control.strand, text, f"set it to {prompts} or less", key)
        return
    source = case.source(control.strand)
    given = source is not None and source.producer == "demonstration"
    if given and case.around.demonstrations and shown is not None and control.size > shown:
        text = f"buffer.size is larger than the data: {shown} prompts have a demonstration (got {control.size})"
        yield Verdict("error", RULE, control.strand, text, f"set it to {shown} or less", key)


def _candidates(case: Case, control: Curriculum | Bottleneck) -> Iterator[Verdict]:
    prompts, asked = case.around.prompts, control.candidates * case.stage.prompts_per_step
    if prompts is not None and control.candidates > 1 and asked > prompts:
        text = f"{control.kind}.candidates x prompts_per_step is {asked}, and there are {prompts} prompts: all of them "
        text += f"are candidates in every step (got {control.candidates})"
        fix = f"set it to {max(1, prompts // case.stage.prompts_per_step)} or less"
        yield Verdict("warning", RULE, "", text, fix, key_of(case.recipe, control, "candidates"))


def _step(case: Case) -> Iterator[Verdict]:
    prompts, asked = case.around.prompts, case.stage.prompts_per_step
    if prompts is not None and asked > prompts and any(one.source.per_prompt for one in case.recipe.strands):
        text = f"prompts_per_step is {asked}, and there are {prompts} prompts: a step has some of them twice"
        yield Verdict("warning", RULE, "", text, f"set it to {prompts} or less", ("prompts_per_step",))


# ---------------------------------------------------------------- replay


def _replay(case: Case) -> Iterator[Verdict]:
    """What cannot have been written by the stage's end."""
    for strand in case.recipe.strands:
        if strand.source.producer != "replay":
            continue
        prompts, asked = case.around.prompts, strand.source.per_step
        if prompts is not None and asked > prompts:
            text = f"asks for {asked} past rollouts a step, one of each prompt, and there are {prompts} prompts"
            yield Verdict("warning", RULE, strand.name, text, f"set its per_step to {prompts} or less")
        yield from _window(case, strand)


def _window(case: Case, strand: Strand) -> Iterator[Verdict]:
    own = [one.source for one in writers(case, strand)]
    if from_before(case, strand) or not own or any(source.per_step for source in own):
        return
    most = sum(source.per_prompt for source in own) * case.stage.steps
    if strand.source.window > most:
        text = (
            f"source.window is {strand.source.window}, and of a prompt that every step draws {most} are written by the "
        )
        text += f"end of the stage's {case.stage.steps} steps"
        yield Verdict("warning", RULE, strand.name, text, f"set it to {most} or less")


# ---------------------------------------------------------------- partitioned weights


def _partitioned(case: Case) -> Iterator[Verdict]:
    """What compares or keeps whole parameters, where no rank holds any; and what has nothing to compare."""
    every, key = case.stage.interference, ("interference",)
    trained = [one.name for one in case.recipe.strands if one.terms]
    whole = case.around.zero_stage < 3
    if every and not whole:
        text = f"no rank holds whole parameters at resources.learner.zero_stage 3 to take the cosine of (got {every})"
        yield Verdict("error", RULE, "", text, "set it to 0, or zero_stage to 2 or less", key)
    if every and len(trained) < 2:
        text = f"has no two strands to compare: {', '.join(trained)} trains alone (got {every})"
        yield Verdict("warning", RULE, "", text, "set it to 0", key)
    for control in case.recipe.controls:
        if isinstance(control, Freeze) and not whole:
            yield _frozen(control)


def _frozen(control: Control) -> Verdict:
    text = (
        "freeze follows parameters element by element, and at resources.learner.zero_stage 3 no rank holds them whole"
    )
    return Verdict("error", RULE, getattr(control, "strand", ""), text, "set zero_stage to 2 or less")
