"""After a group is scored: what becomes of it, and why.

Controls are heard in three turns, whatever their order in the recipe. A ladder first: while it asks for the group
again, the others wait for the group that comes of it. Then those that send members away or remember the prompt; they
all see the same members. Last those that judge whether what is left holds a difference.
"""

import math
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache, partial
from typing import NamedTuple, assert_never

from orchestrator.controls import bottleneck, curriculum
from orchestrator.controls.config import (
    Alternate,
    Anneal,
    Bernoulli,
    Buffer,
    Constant,
    Control,
    Freeze,
    Gate,
    Ladder,
    Mixture,
    Prefix,
    Scaffold,
    StartWhen,
    ZeroVariance,
)
from orchestrator.controls.group import Count, GroupStats, count
from orchestrator.controls.hints import bounds
from orchestrator.controls.ladder import climb
from orchestrator.controls.moment import Memory, State
from orchestrator.controls.prompt_config import Bottleneck, Curriculum, Shares
from orchestrator.controls.routing import SILENT, Routing, Routings

EQUAL = 1e-9
"""Rewards this close are one reward: a rubric's weighted mean may differ in its last bit."""

Hear = Callable[[GroupStats], Routing]
"""A control's word on a group; what it remembers changes in place."""

Judge = Callable[[GroupStats, Collection[str]], Routing]
"""Its word on what is left of the group once these strands' members left it."""


def route_group(
    controls: Sequence[Control], states: Sequence[State], group: GroupStats, step: int = 0
) -> tuple[tuple[State, ...], Routings]:
    """The states after one group, and what becomes of it."""
    after, (routings,) = route_groups(controls, states, [group], step)
    return after, routings


def route_groups(
    controls: Sequence[Control], states: Sequence[State], groups: Sequence[GroupStats], step: int = 0
) -> tuple[tuple[State, ...], tuple[Routings, ...]]:
    """The states after `groups` of the stage's step `step`, routed in this order, and what becomes of each.

    The same as `route_group` on one after another; states are copied once, so the cost is linear in the groups.
    """
    memories = [_opened(control, state) for control, state in zip(controls, states, strict=True)]
    turns = _turns(controls, memories, step)
    silent = Routings((SILENT,) * len(controls))
    routed = tuple(_route(turns, silent, group) for group in groups)
    return tuple(_closed(control, memory) for control, memory in zip(controls, memories, strict=True)), routed


def _opened(control: Control, state: State) -> Memory:
    match control:
        case Buffer():
            return {"waiting": dict.fromkeys(state["waiting"])}  # in order, and quick to ask
        case Prefix() | Curriculum() | Bottleneck():  # an entry is replaced, never changed in place
            return {**state, "prompts": dict(state["prompts"])}
        case _:
            return dict(state)


def _closed(control: Control, memory: Memory) -> State:
    return {"waiting": list(memory["waiting"])} if isinstance(control, Buffer) else memory


class _Turns(NamedTuple):
    """The controls that have a word on groups, with their place in the recipe, by the turn they are heard in."""

    ladders: list[tuple[int, Ladder]]
    prompts: list[tuple[int, Hear]]
    """They send members away or remember the prompt."""
    judges: list[tuple[int, Judge]]
    """They say whether what is left holds a difference."""


def _turns(controls: Sequence[Control], memories: Sequence[Memory], step: int) -> _Turns:
    turns = _Turns([], [], [])
    for index, (control, memory) in enumerate(zip(controls, memories, strict=True)):
        match control:
            case Ladder():
                turns.ladders.append((index, control))
            case Gate() | Buffer() | Prefix() | Curriculum() | Bottleneck():
                turns.prompts.append((index, _prompted(control, memory, step)))
            case ZeroVariance():
                turns.judges.append((index, partial(_zero_variance, control, memory)))
            case Constant() | Mixture() | Bernoulli() | Alternate() | Scaffold() | StartWhen() | Freeze() | Anneal():
                pass
            case Shares():
                pass
            case _:
                assert_never(control)
    return turns


def _prompted(control: Gate | Buffer | Prefix | Curriculum | Bottleneck, memory: Memory, step: int) -> Hear:
    match control:
        case Gate():
            return partial(_gate, control)
        case Buffer():
            return partial(_remember, control, memory)
        case Prefix():
            return partial(_bisect, control, memory)
        case Curriculum():
            return partial(curriculum.observe, control, memory, step=step)
        case Bottleneck():
            return partial(bottleneck.observe, control, memory, step=step)
        case _:
            assert_never(control)


def _route(turns: _Turns, silent: Routings, group: GroupStats) -> Routings:
    words = list(silent.each)
    for index, ladder in turns.ladders:
        if count(group, ladder.strand).responses:
            words[index], group = climb(ladder, group)
            if words[index].hint_level:
                return Routings(tuple(words))
            break  # a group climbs one ladder alone
    for index, hear in turns.prompts:
        words[index] = hear(group)
    if turns.judges:
        leaving = [strand for word in words for strand in word.without]
        for index, judge in turns.judges:
            words[index] = judge(group, leaving)
    each = tuple(words)
    return silent if each == silent.each else Routings(each)


# ---------------------------------------------------------------- prompts


def _gate(control: Gate, group: GroupStats) -> Routing:
    """One of the two strands leaves (HPT, arXiv 2509.04419); a strand that would leave nobody behind stays."""
    present = count(group, control.otherwise).responses > 0
    return _gated(count(group, control.strand), control.otherwise, control.at_most, present)


@lru_cache(maxsize=1 << 12)
def _gated(counted: Count, theirs: str, at_most: int, present: bool) -> Routing:
    """The gate's word by what it goes by alone; few counts are met, each many times. `present`: some are theirs."""
    ours = counted.strand
    if not counted.responses:
        return SILENT
    if counted.known and counted.passed <= at_most:
        if not present:
            return Routing(reason=f"{ours} stays, as the prompt has nothing of {theirs}'s: {counted}")
        reason = f"{theirs} trains, {ours} leaves: {counted}, the gate is at {at_most}"
        return Routing(reason=reason, without=frozenset({ours}))
    if not present:
        return SILENT
    limit = f", the gate is at {at_most}" if counted.known else ": no sign that they fail"
    return Routing(reason=f"{ours} trains, {theirs} leaves: {counted}{limit}", without=frozenset({theirs}))


def _remember(control: Buffer, memory: Memory, group: GroupStats) -> Routing:
    """A prompt that fails waits once, however often it fails (ReLIFT, arXiv 2506.07527)."""
    counted, waiting = count(group, control.watch), memory["waiting"]
    if not counted.known:
        return Routing(reason=f"{group.prompt} does not wait: {counted}") if counted.unknown else SILENT
    if counted.passed > control.at_most:
        return SILENT
    if group.prompt in waiting:
        return Routing(reason=f"{group.prompt} waits already: {counted}")
    waiting[group.prompt] = None
    return Routing(reason=f"{group.prompt} waits, {len(waiting)} of {control.size}: {counted}")


def _bisect(control: Prefix, memory: Memory, group: GroupStats) -> Routing:
    """Halve the way to the shortest prefix that some responses pass from; a stride of 1 then follows the learner.

    Only prompts whose prefix was moved have an entry, so the memory is bounded by the data; a prompt whose responses
    all pass from the least is forgotten.
    """
    if control.schedule != "bisect":
        return SILENT
    counted, prompts = count(group, control.strand), memory["prompts"]
    if not counted.known:
        return Routing(reason=f"{group.prompt}'s prefix stays: {counted}") if counted.unknown else SILENT
    bottom, top = bounds(control)
    at, stride = prompts.get(group.prompt, (bottom, max(1, (top - bottom + 1) // 2)))
    if group.segments not in (None, at):
        return Routing(reason=f"{group.prompt}'s prefix stays: it had {group.segments} parts then and has {at} since")
    if counted.passed and counted.failed:
        return SILENT
    to = max(bottom, at - stride) if counted.passed else min(top, at + stride)
    if to == at:
        if counted.passed:
            prompts.pop(group.prompt, None)
        return SILENT
    prompts[group.prompt] = [to, max(1, stride // 2)]
    return Routing(reason=f"{group.prompt}'s prefix goes from {at} to {to} of {control.segments} parts: {counted}")


# ---------------------------------------------------------------- differences


def _zero_variance(control: ZeroVariance, memory: Memory, group: GroupStats, leaving: Collection[str]) -> Routing:
    rewards = [one.reward for one in group.members if one.compared and one.strand not in leaving]
    if not rewards:
        return SILENT  # imitation has no rewards to judge by
    if max(rewards) - min(rewards) > EQUAL:  # where one is unknown this may be false, and is never wrongly true
        memory["kept"] = memory.get("kept", 0) + 1
        return SILENT
    finding = _sameness(rewards)
    action = control.action if finding else "keep"
    if action == "redraw" and group.round >= control.rounds:
        action, finding = "drop", f"{finding}; {group.round} other prompts were drawn before"
    word = {"keep": "kept", "drop": "dropped", "redraw": "redrawn"}[action]
    memory[word] = int(memory.get(word, 0)) + 1
    reason = f"{word}: {finding}" if finding else ""
    return Routing("keep" if action == "keep" else "drop", reason, redraw=action == "redraw")


def _sameness(rewards: Sequence[float]) -> str:
    """Why the rewards hold no difference to learn from; empty if they hold one."""
    known = [reward for reward in rewards if not math.isnan(reward)]
    if not known:
        return f"none of {len(rewards)} rewards is known"
    if max(known) - min(known) > EQUAL:
        return ""
    unknown = len(rewards) - len(known)
    tail = f" ({unknown} more are unknown)" if unknown else ""
    if len(known) == 1:
        return f"one reward alone, {known[0]:g}, has nothing to compare with{tail}"
    return f"all {len(known)} rewards are {known[0]:g}{tail}"
