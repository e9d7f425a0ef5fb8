"""All figures of a run with their titles, in a reader's order; the curves of long runs are means of neighbours."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from orchestrator.history import History
from orchestrator.json_lines import Row
from orchestrator.report.charts import figures
from orchestrator.report.decision_charts import decision_figures
from orchestrator.report.gradient_charts import funnel, gradient_figures, staleness
from orchestrator.report.traces import Figure
from orchestrator.report.verdict_charts import verdict_figures

MOST_POINTS = 1000
"""Points of a curve; a longer run's are means over neighbouring steps of one stage."""
WIDE = frozenset({"outcome", "provenance", "strand shares", "funnel"})
"""Figures that are drawn over the page's whole width."""


@dataclass(frozen=True, slots=True)
class Group:
    """Figures under one heading, and what each of them says."""

    title: str
    lead: str
    made: Callable[[History], Mapping[str, Figure]]
    said: Mapping[str, tuple[str, str]]
    """Name of a figure -> its title and its note."""


GROUPS = (
    Group(
        "Curves",
        "Shaded bands are stages.",
        figures,
        {
            "outcome": (
                "Outcome",
                "Rollouts during training, and probes on held-out prompts, which never touch the weights.",
            ),
            "provenance": (
                "Provenance",
                "Who wrote the tokens of each step's gradient, counted from the per-token record.",
            ),
            "loss": ("Loss", ""),
            "gradient norm": ("Gradient norm", "A gap is a step whose update was skipped."),
            "gradient mass": ("Gradient mass by strand", "Each strand's share of the gradient, not of the data."),
            "freshness": (
                "Freshness",
                "Share of tokens that the present policy sampled; effective sample size of the importance weights.",
            ),
            "length": ("Response length", ""),
            "time": ("Time", "Seconds of each step by part; parts overlap where samplers run ahead."),
        },
    ),
    Group(
        "Decisions",
        "What the controls decided for each step. Point at a step for the reasons.",
        decision_figures,
        {
            "strand shares": ("Who trains", "Each strand's share of the tokens that a step trained on."),
            "places": (
                "Whose prompts",
                "The step's prompts by the strands that controls chose them for; a+b is for both.",
            ),
            "classes": (
                "What keeps prompts from being solved",
                "The step's prompts by the class that the bottleneck control has them in.",
            ),
            "coefficients": (
                "Coefficients",
                "What each strand's loss is multiplied by; at 0 it rests. A mark is a step that a buffer filled.",
            ),
            "verdicts": (
                "What became of groups",
                "Once scored. `without` a strand: a control sent that strand's responses away, as a gate does.",
            ),
        },
    ),
    Group(
        "Where the gradient comes from",
        "Written and given responses are trained on, dropped for a cause, or stand aside for co-learners.",
        gradient_figures,
        {
            "funnel": (
                "From writer to gradient",
                "What became of every response. The bars are equally long: none is lost on the way.",
            ),
            "origin mass": ("Gradient mass by writer", "Shares of the sum of |g| over tokens, by who wrote them."),
            "origin tokens": ("Tokens by writer", "Shares of the same tokens, each counting once."),
            "origin loss": ("Loss by writer", "Each strand's loss, shared among its tokens by |g|."),
            "origin ess": (
                "Effective sample size by writer",
                "Of the importance weights, where the probability at sampling is known.",
            ),
            "staleness": ("Staleness", "Versions between the policy that sampled a token and the one that it trains."),
            "interference": (
                "Interference",
                "Cosine between two strands' gradients; below 0 they pull against each other.",
            ),
        },
    ),
    Group(
        "Verifiers",
        "Who judged, what was not judged, and how long it took.",
        verdict_figures,
        {
            "held out": (
                "Reward and held-out score",
                "Where the reward climbs and the held-out score does not follow, the policy learns to please the "
                "verifier.",
            ),
            "gap": (
                "Gap to the held-out score",
                "Reward less held-out score, on the responses that both judged; the band is the 95 % interval, "
                "between prompts.",
            ),
            "unknown": (
                "Responses without a verdict",
                "Share of those asked about that a scorer did not judge: error, timeout, refused.",
            ),
            "latency": ("Seconds for a verdict", ""),
        },
    ),
)


def groups(history: History, most: int = MOST_POINTS) -> list[dict[str, Any]]:
    """Groups that have figures: title, lead, `figures` of name, title, note, wide and plotly's `figure`.

    `per_point`: steps that one point of the curves stands for; totals are of all steps.
    """
    short, size = thinned(history, most)
    totals = {"funnel": funnel, "staleness": staleness}
    found = []
    for group in GROUPS:
        drawn = dict(group.made(short))
        if size > 1:
            drawn |= {name: make(history) for name, make in totals.items() if name in group.said}
        made = {name: drawn[name] for name in group.said if name in drawn and drawn[name]["data"]}
        if made:
            told = [
                {"name": name, "title": group.said[name][0], "note": group.said[name][1], "wide": name in WIDE}
                | {"figure": figure}
                for name, figure in made.items()
            ]
            found.append({"title": group.title, "lead": group.lead, "per_point": size, "figures": told})
    return found


def thinned(history: History, most: int = MOST_POINTS) -> tuple[History, int]:
    """The history with about `most` rows of steps and of decisions, each the mean of neighbours, and their number."""
    size = -(-len(history.steps) // most) if history.steps else 1
    if size <= 1 and len(history.decisions) <= most:
        return history, 1
    behind = max(size, -(-len(history.decisions) // most))
    return (
        replace(
            history,
            steps=_means(history.steps, size, ("funnel",)),
            decisions=_means(history.decisions, behind, ("facts", "outcome", "routed")),
        ),
        size,
    )


def _means(rows: Sequence[Row], size: int, unused: Sequence[str]) -> tuple[Row, ...]:
    """One row for each `size` neighbours of a stage: means of figures, and of the rest what the last row says; without
    what no curve is drawn from."""
    kept: list[Row] = []
    for _, one in groupby(rows, key=lambda row: row.get("stage")):
        stage = list(one)
        for at in range(0, len(stage), size):
            some = [{key: value for key, value in row.items() if key not in unused} for row in stage[at : at + size]]
            kept.append({**_mean(some), "step": some[-1].get("step")})
    return tuple(kept)


def _mean(values: Sequence[Any]) -> Any:
    """The mean of numbers, by key of maps; of anything else the newest. An unknown is in no mean."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    match known[-1]:
        case bool() | str() | list():
            return known[-1]
        case int() | float():
            numbers = [float(value) for value in known if isinstance(value, int | float)]
            return sum(numbers) / len(numbers)
        case Mapping():
            maps = [value for value in known if isinstance(value, Mapping)]
            keys = dict.fromkeys(key for one in maps for key in one)
            return {key: _mean([one.get(key) for one in maps]) for key in keys}
        case other:
            return other
