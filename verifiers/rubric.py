"""Rubrics: several verifiers of one response, each part's score kept beside the whole's.

A gate that fails, or a veto that passes, decides: the whole is 0 whatever the others say, even where one of them has
no verdict. Else the whole is unknown exactly when some verdict of the parts without one would change it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from verifiers import config
from verifiers.grader import Grader, Item
from verifiers.kinds import Tools, expense
from verifiers.score import Score, Status

Parts = Mapping[str, Score]
"""Scores by the parts' names."""


@dataclass(frozen=True)
class Rubric:
    """The parts' graders, by name, and how their scores make one."""

    config: config.RubricVerifier
    parts: Mapping[str, Grader]

    def grade(self, items: Sequence[Item], until: float) -> list[Score]:
        """The whole's score for each item, with its parts; what a gate has decided is not asked on at a cost."""
        rows: list[dict[str, Score]] = [{} for _ in items]
        for wave in self._waves:
            asked = [at for at, row in enumerate(rows) if not decided(self.config, row)]
            for name in wave:
                column = self.parts[name].grade([items[at] for at in asked], until)
                for at, score in zip(asked, column, strict=True):
                    rows[at][name] = score
        return [weigh(self.config, self._whole(row)) for row in rows]

    def close(self) -> None:
        """End what the parts started."""
        for part in self.parts.values():
            part.close()

    @cached_property
    def _waves(self) -> list[list[str]]:
        """Names of the parts that are asked together: what computes, then by expense, gates and vetoes first."""
        waves: dict[tuple[int, bool], list[str]] = {}
        for part in self.config.parts:
            cost = expense(part)
            waves.setdefault((cost, cost > 0 and not part.decides), []).append(config.part_name(part))
        return [waves[key] for key in sorted(waves)]

    def _whole(self, row: Parts) -> dict[str, Score]:
        """The row in the rubric's order; a part that was not asked says by whom it was spared."""
        reason = decided(self.config, row)
        skipped = Score.unknown(Status.SKIPPED, f"not asked: {reason}")
        return {name: row.get(name, skipped) for name in map(config.part_name, self.config.parts)}


def open_grader(own: config.RubricVerifier, tools: Tools) -> Grader:
    """A grader over the parts' graders."""
    return Rubric(own, {config.part_name(part): tools.open(part) for part in own.parts})


def decided(rubric: config.RubricVerifier, parts: Parts) -> str:
    """Why the whole is 0 whatever the other parts say; empty where no gate among `parts` failed and no veto fired."""
    said = (_shut(part, parts.get(config.part_name(part))) for part in rubric.parts)
    return "; ".join(filter(None, said))


def _shut(part: config.AnyVerifier, score: Score | None) -> str:
    """What a gate or a veto forbids by; empty where it does not."""
    forbids = part.role == "veto"
    if not part.decides or score is None or score.status != Status.OK or score.passed is not forbids:
        return ""
    return f"{part.role} {config.part_name(part)}: {score.reason or ('it passed' if forbids else 'it failed')}"


def weigh(rubric: config.RubricVerifier, parts: Parts) -> Score:
    """The whole's score from one of each part: weighted mean, gates, vetoes, and what is unknown."""
    reason = decided(rubric, parts)
    if reason:
        return Score(value=0.0, passed=False, reason=reason, parts=dict(parts))
    named = [(part, parts[config.part_name(part)]) for part in rubric.parts]
    counted = [(part.weight, score.value) for part, score in named if part.counts]
    total = math.fsum(weight for weight, _ in counted)
    value = math.fsum(weight * value for weight, value in counted) / total
    failed = [(config.part_name(part), score) for part, score in named if part.demanded and score.passed is False]
    for part, score in named:
        if _matters(part, score, value, bool(failed)):
            told = score if score.status != Status.OK else Score.unknown(Status.ERROR, "it says no pass or fail")
            reason = f"{config.part_name(part)}: {told.reason}"
            return Score(math.nan, None, told.status, reason, parts=dict(parts))
    return Score(value, not failed, reason=_joined(failed), parts=dict(parts))


def _matters(part: config.AnyVerifier, score: Score, value: float, failed: bool) -> bool:
    """Whether the part leaves the whole open: `value` and `failed` are what the known parts come to."""
    if part.counts and score.status != Status.OK:
        return True
    if score.passed is not None:
        return False
    if part.decides:
        return not (failed and value == 0)
    silent = score.status == Status.OK and part.required is None  # a reward model that knows no pass demands none
    return part.demanded and not failed and not silent


def _joined(failed: Iterable[tuple[str, Score]]) -> str:
    return "; ".join(f"{name}: {score.reason}" for name, score in failed)
