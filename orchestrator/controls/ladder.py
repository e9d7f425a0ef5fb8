"""The hint ladder: a group that all failed is drawn again, each time with a hint that shows more.

SAGE (arXiv 2602.03143) trains on the hinted group, Scaf-GRPO (arXiv 2510.19807) on one hinted success among failures.
"""

from dataclasses import replace

from orchestrator.controls.config import Ladder
from orchestrator.controls.group import Count, GroupStats, MemberStats, count
from orchestrator.controls.hints import level_share
from orchestrator.controls.routing import SILENT, Routing


def climb(control: Ladder, group: GroupStats) -> tuple[Routing, GroupStats]:
    """The ladder's word, and the group as it goes on: meaningless while a further level is asked for."""
    counted = count(group, control.strand)
    if counted.passed:
        return _solved(control, group, counted) if group.level else (SILENT, group)
    if counted.failed and group.level < control.levels:
        return _ask(control, group, counted), group
    if not group.level:
        return Routing(reason=f"no hint is asked for: {counted}"), group
    reason = f"{counted} at hint level {group.level} of {control.levels}; the first group goes on as it was"
    return Routing(reason=reason, replace="none"), replace(group, members=group.first)


def _ask(control: Ladder, group: GroupStats, counted: Count) -> Routing:
    level = group.level + 1
    share = level_share(control, level)
    at = f" at hint level {group.level}" if group.level else ""
    reason = f"asked again at hint level {level} of {control.levels} ({share:.3g} of the demonstration): {counted}{at}"
    return Routing(reason=reason, hint_level=level, hint_share=share, hint_strand=control.strand)


def _solved(control: Ladder, group: GroupStats, counted: Count) -> tuple[Routing, GroupStats]:
    found = f"{counted} at hint level {group.level} of {control.levels}"
    if control.replace == "all":
        return Routing(reason=f"{found}; they take the failed ones' place", replace="all"), group
    failure = _first(group.first, control.strand, False)
    success = _first(group.members, control.strand, True)
    members = list(group.first)
    members[failure] = group.members[success]
    reason = f"{found}; one of them takes a failed one's place"
    return Routing(reason=reason, replace="one", swap=(failure, success)), replace(group, members=tuple(members))


def _first(members: tuple[MemberStats, ...], strand: str, passed: bool) -> int:
    return next(index for index, one in enumerate(members) if one.strand == strand and one.passed is passed)
