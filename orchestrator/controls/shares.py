"""Fixed shares: each of the step's prompts is one strand's."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from orchestrator.controls.chance import uniform
from orchestrator.controls.moment import Moment, State
from orchestrator.controls.places import Place
from orchestrator.controls.prompt_config import Shares


class Around(NamedTuple):
    """The stage's strands."""

    strands: Sequence[str]
    rest: Collection[str]
    """Those that rest in this step, by other controls' word."""


def initial(control: Shares) -> State:
    """Nothing is owed to anybody."""
    return {"owed": dict.fromkeys(control.shares, 0.0)}


def allot(
    control: Shares, state: State, now: Moment, places: Sequence[Place], around: Around
) -> tuple[State, tuple[Place, ...], str]:
    """The places that no strand is named for, dealt to strands by their shares; the state carries what is left over.

    A strand is given a prompt when it is owed most, so that after any number of prompts each has its share to within
    one. What a resting strand would have had goes to the others in proportion; where all rest, nobody is named.
    """
    awake = {name: share for name, share in control.shares.items() if name not in around.rest and share > 0}
    open_ = [at for at, place in enumerate(places) if not place.only]
    if not awake or not open_:
        why = "every strand of the shares rests" if open_ else "no prompt is left to share out"
        return state, tuple(places), why
    owed, names = _dealt(control, state, awake, len(open_))
    order = sorted(range(len(open_)), key=lambda at: uniform(now.seed, "shares", now.step, at))
    others = frozenset(around.strands) - control.shares.keys()
    dealt = list(places)
    for at, name in zip(order, names, strict=True):
        dealt[open_[at]] = places[open_[at]]._replace(only=others | {name})
    return {"owed": owed}, tuple(dealt), _said(control, awake, names)


def _dealt(control: Shares, state: State, awake: dict[str, float], count: int) -> tuple[dict[str, float], list[str]]:
    """What is owed afterwards, and who has each of `count` prompts."""
    whole = sum(awake.values())
    owed = {name: float(state["owed"].get(name, 0.0)) for name in control.shares}
    names = []
    for _ in range(count):
        for name, share in awake.items():
            owed[name] += share / whole
        most = max(awake, key=lambda name: owed[name])
        owed[most] -= 1.0
        names.append(most)
    return {name: round(value, 9) for name, value in owed.items()}, names


def _said(control: Shares, awake: dict[str, float], names: Sequence[str]) -> str:
    given = ", ".join(f"{names.count(name)} to {name}" for name in awake)
    resting = [name for name in control.shares if name not in awake and control.shares[name] > 0]
    return f"of {len(names)} prompts {given}" + (f"; {', '.join(resting)} rests" if resting else "")
