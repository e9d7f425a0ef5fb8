"""How long a decision takes: a step's plan and the routing of its groups, for each control and for usual sets.

    python -m benchmarks.decisions [--groups 4096] [--members 8] [--rounds 9]

One core, no engine. Each set of controls first decides a few steps, so that its memory holds every prompt that a step
can have; the table gives medians over the rounds, and the longest whole decision.
"""

import argparse
import random
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from orchestrator.controls import (
    Alternate,
    Anneal,
    Bernoulli,
    Bottleneck,
    Buffer,
    Constant,
    Control,
    Curriculum,
    Freeze,
    Gate,
    GroupStats,
    Ladder,
    MemberStats,
    Mixture,
    Prefix,
    Scaffold,
    Scope,
    Shares,
    StartWhen,
    State,
    ZeroVariance,
    candidates,
    initial,
    plan_step,
    route_groups,
)

STRANDS = ("rl", "sft", "replay")
WARM = 3
"""Steps before the clock runs."""

MIXTURE, BUFFER, GATE = (
    Mixture(strand="sft", against="rl"),
    Buffer(watch="rl", strand="sft"),
    Gate(strand="rl", otherwise="sft"),
)
DYNAMIC, LADDER = ZeroVariance(action="redraw"), Ladder(strand="rl")
SHARES, CURRICULUM = Shares(shares={"rl": 0.7, "sft": 0.2, "replay": 0.1}), Curriculum(watch="rl")
BISECT, START = Prefix(strand="rl", schedule="bisect"), StartWhen(strand="replay")
BOTTLENECK = Bottleneck(reinforce="rl", imports="sft", replay="replay")

ALONE: tuple[Control, ...] = (
    Constant(strand="sft"),
    MIXTURE,
    Bernoulli(strand="sft", against="rl"),
    Alternate(strand="sft", against="rl"),
    Anneal(strand="sft", curve="cosine"),
    Prefix(strand="rl"),
    Scaffold(strand="rl"),
    START,
    Freeze(strand="sft"),
    DYNAMIC,
    GATE,
    BUFFER,
    LADDER,
    BISECT,
    SHARES,
    CURRICULUM,
    BOTTLENECK,
)
TOGETHER: tuple[tuple[Control, ...], ...] = (
    (MIXTURE, DYNAMIC),
    (BUFFER, DYNAMIC),
    (GATE, MIXTURE, DYNAMIC),
    (BISECT, LADDER, DYNAMIC),
    (SHARES, CURRICULUM, START, DYNAMIC),
    (BOTTLENECK, DYNAMIC),
    (BOTTLENECK, MIXTURE, GATE, LADDER, DYNAMIC),
    (CURRICULUM, SHARES, MIXTURE, BUFFER, GATE, BISECT, LADDER, START, DYNAMIC),
)


class Took(NamedTuple):
    """Seconds of one decision."""

    plan: float
    route: float


def scored(prompts: Sequence[str], members: int, step: int) -> list[GroupStats]:
    """Groups of one demonstration and `members` - 1 responses; each prompt has a solve rate of its own, some 0 or 1."""
    chance, groups = random.Random(step), []
    given = MemberStats("sft", compared=False)
    for at, prompt in enumerate(prompts):
        rate = min(max((int(prompt[1:]) * 0.618034 % 1.0) * 1.4 - 0.2, 0.0), 1.0)
        verdicts = [chance.random() < rate for _ in range(members - 1)]
        mine = tuple(MemberStats("rl", float(passed), passed) for passed in verdicts)
        groups.append(GroupStats(f"g{at}", prompt, (*mine, given)))
    return groups


def timed(controls: Sequence[Control], groups: int, members: int, rounds: int) -> list[Took]:
    """Each round's plan and routing, step after step, the states going along."""
    drawn = [f"p{number}" for number in range(groups * max(candidates(controls), 1))]
    scope = Scope(1000, STRANDS, groups, lambda step: drawn)
    states: Sequence[State] = [initial(control) for control in controls]
    found: list[Took] = []
    for step in range(WARM + rounds):
        start = time.perf_counter()
        plan = plan_step(controls, states, step, {"accuracy": 0.5}, 0, scope)
        planned = time.perf_counter() - start
        prompts = [place.prompt for place in plan.places] if plan.places is not None else drawn
        stats = scored(prompts[:groups] + drawn[: groups - len(prompts)], members, step)
        start = time.perf_counter()
        states, _ = route_groups(controls, plan.states, stats, step)
        found.append(Took(planned, time.perf_counter() - start))
    return found[WARM:]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=4096)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    table = Table(title=f"{asked.groups} groups of {asked.members} members: ms of one decision")
    table.add_column("controls")
    for name in ("plan", "route", "both", "longest"):
        table.add_column(name, justify="right")
    for controls in (*((one,) for one in ALONE), *TOGETHER):
        took = timed(controls, asked.groups, asked.members, asked.rounds)
        both = [one.plan + one.route for one in took]
        medians = (statistics.median(each) for each in ([t.plan for t in took], [t.route for t in took], both))
        cells = [f"{1000 * seconds:.1f}" for seconds in (*medians, max(both))]
        table.add_row(" + ".join(one.kind for one in controls), *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
