"""Rubrics: several verifiers of one response, each part's score kept beside the whole's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from verifiers import config
from verifiers.grader import Grader, Item
from verifiers.kinds import Tools
from verifiers.score import Score, Status


@dataclass(frozen=True, slots=True)
class Rubric:
    """The parts' graders, by name, and how their scores make one."""

    config: config.RubricVerifier
    parts: Mapping[str, Grader]

    def grade(self, items: Sequence[Item], until: float) -> list[Score]:
        """The whole's score for each item, with its parts."""
        columns = {name: part.grade(items, until) for name, part in self.parts.items()}
        rows = [{name: column[at] for name, column in columns.items()} for at in range(len(items))]
        return [weigh(self.config, row) for row in rows]

    def close(self) -> None:
        """End what the parts started."""
        for part in self.parts.values():
            part.close()


def open_grader(own: config.RubricVerifier, tools: Tools) -> Grader:
    """A grader over the parts' graders."""
    return Rubric(own, {config.part_name(part): tools.open(part) for part in own.parts})


def weigh(rubric: config.RubricVerifier, parts: Mapping[str, Score]) -> Score:
    """Weighted mean of the parts' values; passed if every required part passed; unknown if any part is."""
    for name, part in parts.items():
        if part.status != Status.OK:
            unknown = Score.unknown(part.status, f"{name}: {part.reason}")
            return Score(unknown.value, None, unknown.status, unknown.reason, parts=dict(parts))
    total = sum(part.weight for part in rubric.parts)
    value = sum(part.weight * parts[config.part_name(part)].value for part in rubric.parts) / total
    failed = [name for part in rubric.parts if part.required and not parts[name := config.part_name(part)].passed]
    reason = "; ".join(f"{name}: {parts[name].reason}" for name in failed)
    return Score(value=value, passed=not failed, reason=reason, parts=dict(parts))
