"""After the verdicts: under which context each response trains, and under which the teacher sees it."""

from dataclasses import replace

from orchestrator.asking import Asking, facts_of, said_of, sibling
from orchestrator.given import is_given
from orchestrator.held_out import is_held_out
from orchestrator.records import Dropped, Group, Member
from policies.config import Source
from policies.prompt import Prompt
from policies.trajectory import Int32, Trajectory
from teachers.contexts import Facts, Unavailable


def framed(asking: Asking, group: Group, prompt: Prompt | None, longest: int) -> tuple[Group, list[Dropped]]:
    """The group under the contexts that its strands name; whoever has no such context leaves it, with the reason.

    `longest` is the most tokens of context and response that the model reads; 0 is no limit.
    """
    kept: list[Member] = []
    dropped: list[Dropped] = []
    for member in group.members:
        made = _framed(asking, member, group, prompt)
        size = len(made.trajectory.train_context) + len(made.trajectory.tokens) if isinstance(made, Member) else 0
        if isinstance(made, Dropped):
            dropped.append(made)
        elif longest and size > longest:
            reason = f"{size} tokens under its training context, and the model reads {longest}"
            dropped.append(Dropped(made.trajectory.id, reason, "context"))
        else:
            kept.append(made)
    return replace(group, members=tuple(kept)), dropped


def _framed(asking: Asking, member: Member, group: Group, prompt: Prompt | None) -> Member | Dropped:
    one, strand = member.trajectory, asking.strands[member.strand]
    given, source = is_given(strand), strand.source
    if given and not (source.train or source.teacher or source.context_shift == "keep"):
        return member
    if prompt is None:
        return Dropped(one.id, "its prompt is not among prompts.train, so no template can be filled", "context")
    facts = _facts(asking, member, group, prompt)
    trained = _train(asking, source, one, prompt, facts)
    if given and not source.train and source.context_shift != "keep":
        trained = one.train_context
    teacher = asking.context(source.teacher, prompt, facts) if source.teacher or not given else one.teacher_context
    for made in (trained, teacher):
        if isinstance(made, Unavailable):
            return Dropped(one.id, made.reason, "context")
    assert not isinstance(trained, Unavailable) and not isinstance(teacher, Unavailable)
    return replace(member, trajectory=replace(one, train_context=trained, teacher_context=teacher))


def _train(asking: Asking, source: Source, one: Trajectory, prompt: Prompt, facts: Facts) -> Int32 | Unavailable:
    if source.context_shift == "keep" or (source.turn and not source.train):
        return one.behavior_context  # a second turn's context is its first turn's
    return asking.context(source.train, prompt, facts)


def attributes(one: Trajectory) -> dict[str, float]:
    """Scores of the whole response, by name, that a template may show: no held-out ones."""
    heard = (entry for entry in one.scores if entry.start is None and not is_held_out(entry))
    return {entry.name: entry.value for entry in heard if entry.status == "ok"}


def _facts(asking: Asking, member: Member, group: Group, prompt: Prompt) -> Facts:
    """What the response was asked with, and what is known since; without a parent it is itself `parent`."""
    one, shelf = member.trajectory, asking.demonstrations
    facts = member.facts or facts_of(prompt, shelf.for_prompt(prompt.id, 0) if shelf else None)
    found = sibling(group.members, one.id)
    known = replace(facts, attributes=attributes(one) or None, sibling=facts.sibling if found is None else found)
    return known if member.parent is not None else replace(known, parent=one.text, reason=said_of(one))
