"""Fixed shares: each of the step's prompts is one strand's."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from orchestrator.controls.chance import shuffled
from orchestrator.controls.moment import Moment, State
from orchestrator.controls.places import Place
from orchestrator.controls.prompt_config import Shares

EQUAL = 1e-9
"""Far below the least that can be owed, far above what a float loses over a run's prompts."""


class Around(NamedTuple):
    """The stage's strands."""

    strands: Sequence[str]
    rest: Collection[str]
    """Those that have nothing of the step's prompts, by other controls' word: they rest, or train on their own."""


def initial(control: Shares) -> State:
    """Nothing is dealt yet. `dealt`: the strands that shared prompts, as `a+b` -> each one's prompts so far."""
    return {"dealt": {}}


def allot(
    control: Shares, state: State, now: Moment, places: Sequence[Place], around: Around
) -> tuple[State, tuple[Place, ...], str]:
    """The places that no strand is named for, dealt to strands by their shares; the state counts what each has had.

    Of all the prompts that the same k > 1 strands shared, each has its share to within 1 - 1 / (2k - 2), after any
    number of them. What a resting strand would have had goes to the others in proportion; where all rest, nobody is
    named. Which of a step's prompts are whose is the run's seed's.
    """
    awake = {name: share for name, share in control.shares.items() if name not in around.rest and share > 0}
    open_ = [at for at, place in enumerate(places) if not place.only]
    if not awake or not open_:
        idle = f"none of {', '.join(control.shares)} is there for {len(open_)} prompts: they are the others'"
        return state, tuple(places), idle if open_ else "no prompt is left to share out"
    among = "+".join(awake)
    before: Mapping[str, int] = state["dealt"].get(among, {})
    names, after = _dealt(awake, before, len(open_))
    others = frozenset(around.strands).difference(control.shares)
    only = {name: others | {name} for name in awake}
    dealt = list(places)
    for at, name in zip(shuffled(len(open_), now.seed, "shares", now.step), names, strict=True):
        dealt[open_[at]] = Place(places[open_[at]].prompt, only[name])
    return {"dealt": {**state["dealt"], among: after}}, tuple(dealt), _said(control, around, awake, names)


def _dealt(awake: Mapping[str, float], before: Mapping[str, int], count: int) -> tuple[list[str], dict[str, int]]:
    """Who has each of `count` more prompts, and what each has had then.

    Tijdeman's rule (The chairman assignment problem, Discrete Mathematics 32, 1980): of those who are owed enough, the
    one whose debt would be the first to grow too large. To give to whom most is owed lets debts of four or more
    strands grow past one prompt.
    """
    had, whole = [before.get(name, 0) for name in awake], sum(awake.values())
    share = [part / whole for part in awake.values()]
    least = 1.0 / (2 * len(share) - 2) if len(share) > 1 else 0.0
    order, start = [], sum(had) + 1
    for total in range(start, start + count):
        soonest, first = -1, math.inf
        for each, part in enumerate(share):
            owed = total * part - had[each]
            if owed >= least - EQUAL and (1.0 - least - owed) / part < first - EQUAL:
                soonest, first = each, (1.0 - least - owed) / part
        had[soonest] += 1  # debts sum to 1, so that someone's reaches `least`
        order.append(soonest)
    names = list(awake)
    return [names[each] for each in order], dict(zip(names, had, strict=True))


def _said(control: Shares, around: Around, awake: Mapping[str, float], names: Sequence[str]) -> str:
    """`of 8 prompts 6 to rl, 2 to sft; replay has none: what it would have had is the others'`."""
    given = ", ".join(f"{names.count(name)} to {name}" for name in awake)
    away = [name for name, share in control.shares.items() if share > 0 and name in around.rest]
    has, it = ("has", "it") if len(away) == 1 else ("have", "they")
    told = f"; {', '.join(away)} {has} none: what {it} would have had is the others'"
    return f"of {len(names)} prompts {given}" + (told if away else "")
