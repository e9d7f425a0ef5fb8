"""What only the ledgers can show of a study's claim: that the trajectories were the very same ones, or others."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import pyarrow.parquet as pq

from orchestrator.experiment_config import Experiment
from orchestrator.history import History
from orchestrator.run_directory import RunDirectory


@dataclass(frozen=True, slots=True)
class Claim:
    """Whether a run kept to what its study claims of it."""

    verdict: Literal["kept", "broken", "unknown"]
    told: str


def claim(experiment: Experiment, here: History | None, there: History | None) -> Claim:
    """The claim of a variant's run against the baseline's of the same seed; unknown while one has no steps."""
    if here is None or there is None or not here.steps or not there.steps:
        return Claim("unknown", "one of the two has no steps yet")
    match experiment.study:
        case "interface_swap":
            return _same(here, there)
        case "provenance_swap":
            return _others(here, there)
        case "stage_order":
            return _every_stage(here, there)
        case _:
            return Claim("kept", "nothing is claimed")


def _same(here: History, there: History) -> Claim:
    """The very same responses in every step that both have done."""
    steps = _shared(here, there)
    if not steps:
        return Claim("unknown", "the ledgers share no step")
    for step in steps:
        mine, theirs = (trained(one.run, step) for one in (here, there))
        if mine != theirs:
            apart = (mine - theirs).total() + (theirs - mine).total()
            return Claim("broken", f"step {step} trained on other trajectories: {apart} stand on one side alone")
    count = sum(trained(here.run, step).total() for step in steps)
    return Claim("kept", f"the same {count:,} trajectories, step by step, in {len(steps)} steps")


def _others(here: History, there: History) -> Claim:
    """Not the same responses throughout, or nothing was swapped."""
    steps = _shared(here, there)
    shares = " and ".join(_producers(one) for one in (here, there))
    if steps and all(trained(here.run, step) == trained(there.run, step) for step in steps):
        return Claim("broken", f"the very same trajectories in all {len(steps)} steps, {shares}: nothing was swapped")
    return Claim("kept", f"trained on {shares}")


def _every_stage(here: History, there: History) -> Claim:
    """The same stages, each at its full length: a budget may have cut off what came last."""
    orders = [", ".join(f"{span.name} {span.last - span.first + 1}" for span in one.stages) for one in (here, there)]
    lengths = [{span.name: span.last - span.first + 1 for span in one.stages} for one in (here, there)]
    told = f"{orders[1]} steps, where the baseline has {orders[0]}"
    return Claim("kept" if lengths[0] == lengths[1] else "broken", told)


def trained(run: RunDirectory, step: int) -> Counter[str]:
    """Digest of (prompt, response tokens) -> how often the learner consumed it in that step."""
    table = pq.read_table(run.trajectory_file(step), columns=["prompt_id", "tokens"])
    return Counter(_digest(row["prompt_id"], row["tokens"]) for row in table.to_pylist())


def _digest(prompt: str, tokens: Iterable[int]) -> str:
    return hashlib.blake2b(f"{prompt}\n{','.join(map(str, tokens))}".encode(), digest_size=12).hexdigest()


def _shared(here: History, there: History) -> list[int]:
    """Steps whose trajectories both runs have on disk."""
    done = [{int(row["step"]) for row in one.steps} for one in (here, there)]
    both = sorted(done[0] & done[1])
    return [step for step in both if all(one.run.trajectory_file(step).is_file() for one in (here, there))]


def _producers(history: History) -> str:
    """`75 % demonstration, 25 % rollout`, of the trajectories that were consumed."""
    counts = Counter[str]()
    for path in sorted(history.run.trajectories.glob("step=*.parquet")):
        counts.update(map(str, pq.read_table(path, columns=["producer"])["producer"].to_pylist()))
    total = counts.total()
    return ", ".join(f"{count / total:.0%} {name}" for name, count in counts.most_common()) if total else "nothing"
