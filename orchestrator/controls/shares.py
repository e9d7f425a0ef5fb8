"""Fixed shares: each of the step's prompts is one strand's."""

from collections.abc import Sequence

from orchestrator.controls.moment import State
from orchestrator.controls.places import Place
from orchestrator.controls.prompt_config import Shares


def initial(control: Shares) -> State:
    """Nothing is owed to anybody."""
    return {"owed": dict.fromkeys(control.shares, 0.0)}


def allot(control: Shares, state: State, places: Sequence[Place]) -> tuple[State, tuple[Place, ...], str]:
    """The places that no strand is named for, dealt to strands by their shares; the state carries what is left over."""
    raise NotImplementedError
