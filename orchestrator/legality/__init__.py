"""What a recipe's mathematics allows: errors that stop a run before it costs anything, and biases that it declares.

Each rule is a property of strands, terms, controls and learners, never of a recipe's name, so that any composition is
judged. The rules are methods' V1 to V15, and those over what a schedule does, which verdicts it reads and how much data
it asks for; two of the first hold by construction, and have nothing to refuse here:

* V7: a normaliser is a count over the whole step (policies/reduce.py), so that none can be a micro-batch's.
* V13's first half: the members of a set share one unit, which no micro-batch or rank parts (policies/batch.py).
"""

from orchestrator.config import Stage
from orchestrator.legality.allotments import allotments
from orchestrator.legality.contexts import contexts
from orchestrator.legality.controls import controls
from orchestrator.legality.divergences import divergences
from orchestrator.legality.environments import environments
from orchestrator.legality.groups import groups
from orchestrator.legality.points import points
from orchestrator.legality.preferences import preferences
from orchestrator.legality.schedule import schedule
from orchestrator.legality.silence import silence
from orchestrator.legality.stages import stages
from orchestrator.legality.steps import steps
from orchestrator.legality.supply import supply
from orchestrator.legality.verdict import Case, Surroundings, Verdict, surroundings
from orchestrator.recipes import Recipe

__all__ = ["Surroundings", "Verdict", "judge", "surroundings"]

_RULES = (
    *(groups, stages, points, divergences, preferences, contexts, environments, steps),
    *(controls, allotments, schedule, silence, supply),
)
_ORDER = ("error", "warning", "declared")


def judge(stage: Stage, recipe: Recipe, around: Surroundings | None = None) -> tuple[Verdict, ...]:
    """Every finding about one stage, each once, errors first."""
    case = Case(stage, recipe, around or Surroundings())
    found = dict.fromkeys(verdict for rule in _RULES for verdict in rule(case))
    return tuple(sorted(found, key=lambda verdict: _ORDER.index(verdict.level)))
