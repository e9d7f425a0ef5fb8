"""The documents of the page, by name: pure functions of a run's files, JSON values out.

`Reading.open(directory)` once; each document is a function of it and of plain values. Their docstrings give the exact
shapes. Unknown numbers are null. `braid ui` serves them under /api/NAME, the report holds them.
"""

from orchestrator.page.braid import braid, curves
from orchestrator.page.decisions import decided, decisions
from orchestrator.page.handoffs import costs, handoff, handoffs, reach
from orchestrator.page.reader import trajectory
from orchestrator.page.reading import Reading
from orchestrator.page.siblings import compare, comparison, runs
from orchestrator.page.stages import run
from orchestrator.page.support import Asked, prompt, support
from orchestrator.page.trajectories import Page, Wanted, trajectories

__all__ = [
    "Asked",
    "Page",
    "Reading",
    "Wanted",
    "braid",
    "compare",
    "comparison",
    "costs",
    "curves",
    "decided",
    "decisions",
    "handoff",
    "handoffs",
    "prompt",
    "reach",
    "run",
    "runs",
    "support",
    "trajectories",
    "trajectory",
]
