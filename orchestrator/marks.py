"""What each token of an example is part of and asked for, and which examples must stay together. Pure."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from orchestrator.needs import needs
from orchestrator.records import Member
from policies.config import Set, Strand
from policies.trajectory import Float32, Int32, Origin, Preference, ScoreEntry, Trajectory, reward

PARTS = ("part", "turn", "step")
"""Names of score entries whose spans divide a response, the first that it has."""


def parts(one: Trajectory) -> Int32 | None:
    """[T] number of the part that each token is of, -1 for none; None for a response that nothing divides."""
    for name in PARTS:
        spans = _spans(one, name)
        if spans:
            return _numbered(len(one.tokens), [(entry.start or 0, entry.end or 0) for entry in spans])
    between = one.origin == Origin.ENVIRONMENT
    if not between.any():
        return None
    own = np.flatnonzero(np.diff(np.concatenate([[True], between, [True]]).astype(np.int8)))
    return _numbered(len(one.tokens), [(int(start), int(end)) for start, end in zip(own[::2], own[1::2], strict=True)])


def targets(strand: Strand, one: Trajectory) -> Float32 | None:
    """[T] what a scalar head should say: a step's label on the step's last token, else the response's on its last.

    None where no term of the strand asks; NaN on every other token.
    """
    if "targets" not in needs(strand) or not len(one.tokens):
        return None
    found = np.full(len(one.tokens), np.nan, np.float32)
    steps = [entry for entry in _spans(one, "step") if entry.status == "ok"]
    for entry in steps:
        found[(entry.end or 0) - 1] = entry.value
    if not steps:
        found[-1] = reward(one) if one.preference is None else one.preference.label
    return found


def unit(strand: Strand, one: Trajectory) -> str:
    """Examples of one name are never parted: a set, or all of a strand whose link ranks the whole step."""
    if any(isinstance(term.kernel, Set) and term.kernel.link == "aot" for term in strand.terms):
        return f"strand {strand.name}"
    return one.preference.set_id if one.preference is not None else ""


def baseline_rows(strand: Strand, index: int, members: Sequence[Member]) -> list[Member]:
    """KTO's mismatched rows: each row's context with the next row's response, the last with the first's.

    They form the baseline alone (arXiv 2402.01306, section 4.1): their label is NaN and they are in no set.
    """
    if not any(isinstance(term.kernel, Set) and term.kernel.link == "kto" for term in strand.terms):
        return []
    own = [one for one in members if one.strand == index]
    following = own[1:] + own[:1] if len(own) > 1 else []
    return [
        Member(_mismatched(one.trajectory, after.trajectory), index) for one, after in zip(own, following, strict=False)
    ]


def _mismatched(one: Trajectory, after: Trajectory) -> Trajectory:
    return replace(
        after,
        id=f"{one.id}~mismatched",
        prompt_id=one.prompt_id,
        group_id=one.group_id,
        parent_id=after.id,
        train_context=one.train_context,
        behavior_context=one.behavior_context,
        teacher_context=one.teacher_context,
        behavior_logps=np.full(len(after.tokens), np.nan, np.float32),
        scores=(),
        preference=Preference("", float("nan")),
    )


def _spans(one: Trajectory, name: str) -> list[ScoreEntry]:
    found = [entry for entry in one.scores if entry.name == name and entry.start is not None and entry.end is not None]
    return sorted(found, key=lambda entry: (entry.start, entry.end))


def _numbered(size: int, spans: Sequence[tuple[int, int]]) -> Int32:
    found = np.full(size, -1, np.int32)
    for number, (start, end) in enumerate(spans):
        found[start:end] = number
    return found
