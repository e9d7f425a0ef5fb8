"""What a step's contexts show of the demonstration or the rubric: facts fixed before the step, counts by prompt."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from orchestrator.controls.chance import binomial
from orchestrator.controls.config import Ladder, Prefix


class PrefixHint(NamedTuple):
    """How many parts of the demonstration a response starts from."""

    schedule: Literal["cosine", "fixed", "bisect"]
    step: int
    segments: int
    """Parts of a demonstration."""
    share: float
    """cosine: the expected share of the parts; 0 once the schedule is over."""
    parts: int
    """fixed: every prompt's; bisect: that of a prompt without an entry in `prompts`."""
    prompts: Mapping[str, Any]
    """bisect: prompt id -> (parts, stride)."""


class ScaffoldHint(NamedTuple):
    """How much of the rubric the step's contexts show at most."""

    share: float


class Hint(NamedTuple):
    """What the collector does with a strand's contexts in this step."""

    prefix: PrefixHint | None = None
    scaffold: ScaffoldHint | None = None


def segments_for(hint: Hint, prompt_id: str, seed: int) -> int:
    """Parts of `prompt_id`'s demonstration that its responses start from; 0 without a prefix.

    cosine: binomial in the step's share, by a draw that (seed, step, prompt) names.
    """
    facts = hint.prefix
    if facts is None:
        return 0
    if facts.schedule == "cosine":
        return binomial(facts.segments, facts.share, seed, "prefix", facts.step, prompt_id) if facts.share else 0
    if facts.schedule == "bisect" and prompt_id in facts.prompts:
        return int(facts.prompts[prompt_id][0])
    return facts.parts


def share_for(hint: Hint, index: int, count: int) -> float:
    """Share of the rubric's criteria that response `index` of a prompt's `count` sees; 0 without a scaffold.

    The first sees most and the last nothing: (count-1-index)/(count-1); a lone response counts as a first one.
    """
    if hint.scaffold is None:
        return 0.0
    rank = (count - 1 - index) / (count - 1) if count > 1 else 1.0
    return rank * hint.scaffold.share


def level_share(control: Ladder, level: int) -> float:
    """Share of the demonstration that the hint of `level` (1 ... levels) shows; level 0 shows nothing."""
    return level / (control.levels if control.full else control.levels + 1)


def whole_parts(share: float, segments: int) -> int:
    """A share in whole parts, rounded down: never more than was asked for."""
    return int(share * segments + 1e-9)


def bounds(control: Prefix) -> tuple[int, int]:
    """Fewest and most parts that a bisected prefix may have."""
    bottom = whole_parts(control.low, control.segments)
    return bottom, max(bottom, whole_parts(control.high, control.segments))
