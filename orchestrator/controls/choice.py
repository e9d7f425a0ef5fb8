"""Which prompts a step has, and which strands each of them is for: what choosers say, one after the other.

First one control chooses prompts from the candidates (curriculum, bottleneck); then shares give those that no strand
has been named for to strands.
"""

from collections.abc import Sequence
from typing import NamedTuple

from orchestrator.controls import bottleneck, curriculum, shares
from orchestrator.controls.config import Control
from orchestrator.controls.moment import Moment, State
from orchestrator.controls.places import Place
from orchestrator.controls.prompt_config import Bottleneck, Curriculum, Shares
from orchestrator.controls.shares import Around


class Chosen(NamedTuple):
    """One control's word on the step's prompts."""

    state: State
    places: tuple[Place, ...]
    reason: str


def candidates(controls: Sequence[Control]) -> int:
    """How many prompts are drawn for each of the step's: the most that any control chooses from; 0 where none does."""
    asked = [one.candidates for one in controls if isinstance(one, Curriculum | Bottleneck)]
    return max([*asked, *(1 for one in controls if isinstance(one, Shares))], default=0)


class Pool(NamedTuple):
    """What there is to choose from."""

    drawn: Sequence[str]
    """Ids of `candidates` x `prompts` prompts in the order that they are drawn in; fewer where there are fewer."""
    prompts: int
    """Of a step."""
    around: Around


def choose(
    controls: Sequence[Control], states: Sequence[State], now: Moment, pool: Pool
) -> tuple[dict[int, Chosen], tuple[Place, ...] | None]:
    """Each chooser's word by its number, and the step's places; None where nobody chooses."""
    drawn, count = pool.drawn, pool.prompts
    if not candidates(controls):
        return {}, None
    said: dict[int, Chosen] = {}
    places = tuple(Place(one) for one in drawn[:count])
    for index, control in enumerate(controls):
        if isinstance(control, Curriculum):
            said[index] = Chosen(*curriculum.choose(control, states[index], now, drawn, count))
            places = said[index].places
        elif isinstance(control, Bottleneck):
            said[index] = Chosen(*bottleneck.choose(control, states[index], now, drawn, count))
            places = said[index].places
    for index, control in enumerate(controls):
        if isinstance(control, Shares):
            said[index] = Chosen(*shares.allot(control, states[index], now, places, pool.around))
            places = said[index].places
    return said, places
