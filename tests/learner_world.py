"""Runs a scenario in a world of learner ranks, one process each: `python -m tests.learner_world scenario.json rank`.

Shared by test_learner (world size 1, in this process) and test_learner_world (spawned ranks).
"""

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from actors.config import Learner
from policies.config import (
    Clip,
    ConstantCredit,
    Div,
    Log,
    Model,
    Optimizer,
    Point,
    Reduce,
    Source,
    Strand,
    Term,
    TinyModel,
    TokenWeight,
)
from policies.example import Example
from policies.trajectory import FinishReason, Origin, Producer, Trajectory

TINY = TinyModel(preset="arithmetic-small", context=64)
IMITATION = Strand(
    name="imitate",
    source=Source(producer="demonstration", per_step=1),
    credit=ConstantCredit(),
    terms=(Term(name="nll", kernel=Point(denominator="current", shape=Log())),),
)
REINFORCE = Strand(
    name="reinforce",
    source=Source(producer="rollout", per_prompt=4),
    terms=(
        Term(name="clip", kernel=Point(denominator="old", shape=Clip()), reduce=Reduce(kind="sequence")),
        Term(name="bonus", kernel=Div(form="entropy", target="uniform"), coefficient=0.01),
    ),
)
STRANDS = (IMITATION, REINFORCE)
SHARP = REINFORCE.model_copy(
    update={
        "terms": (
            REINFORCE.terms[0].model_copy(update={"weights": (TokenWeight(kind="top_entropy", share=0.3),)}),
            *REINFORCE.terms[1:],
        )
    }
)
"""The same on the step's tokens of highest entropy: every rank has to know the whole step."""
FAST = {"learning_rate": 1e-2, "eps": 1e-4}
"""eps well above the rounding of tiny gradients, which AdamW would blow up to whole steps."""


def example(index: int, length: int, *, strand: int, group: str = "", seed: int = 0) -> Example:
    """A trajectory of random tokens; strand 0 imitates, strand 1 reinforces with random advantages."""
    draw = np.random.default_rng([seed, index])
    own = strand == 1
    context = draw.integers(2, 50, 4 + index % 3).astype(np.int32)
    trajectory = Trajectory(
        id=f"t{index}",
        prompt_id=f"p{index}",
        group_id=group or f"g{index}",
        producer=Producer.ROLLOUT if own else Producer.DEMONSTRATION,
        model="learner" if own else "book",
        version=0 if own else -1,
        train_context=context,
        behavior_context=context,
        teacher_context=context,
        tokens=draw.integers(2, 50, length).astype(np.int32),
        origin=np.full(length, int(Origin.LEARNER if own else Origin.DEMONSTRATION), np.int8),
        token_version=np.full(length, 0 if own else -1, np.int32),
        train_mask=np.ones(length, np.bool_),
        behavior_logps=np.full(length, -3.0 if own else np.nan, np.float32),
        finish_reason=FinishReason.STOP if own else FinishReason.GIVEN,
    )
    advantages = np.full(length, draw.normal() if own else 1.0, np.float32)
    return Example(trajectory=trajectory, strand=strand, advantages=advantages)


def examples(count: int = 12, seed: int = 0) -> list[Example]:
    """Two imitations for each four of a reinforced group, of uneven lengths."""
    return [
        example(i, 3 + (7 * i) % 19, strand=int(i % 3 > 0), group=f"g{i // 6}-{int(i % 3 > 0)}", seed=seed)
        for i in range(count)
    ]


def poisoned(step: list[Example]) -> list[Example]:
    """The first example's advantages are not numbers."""
    return [replace(step[0], advantages=np.full_like(step[0].advantages, np.inf)), *step[1:]]


def run(folder: Path, scenario: dict[str, Any], rank: int = 0, rendezvous: str = "") -> None:
    """Build, train, and write what happened to scenario["out"]; see the keys read here."""
    from actors.learner import LearnerRank

    model = TypeAdapter(Model).validate_python(scenario.get("model", TINY.model_dump()))
    world = scenario.get("world_size", 1)
    config = Learner(**scenario["learner"], replicas=world)
    learner = LearnerRank(folder, model, config, rank=rank, world_size=world, rendezvous=rendezvous, seed=3)
    follow(learner, scenario, rank, world)


def strands_of(scenario: dict[str, Any]) -> tuple[Strand, ...]:
    """The scenario's strands; `sharp`: the second reads figures of the whole step."""
    return (IMITATION, SHARP) if scenario.get("sharp") else STRANDS


def follow(learner: Any, scenario: dict[str, Any], rank: int, world: int) -> None:
    """`steps` steps from `first`, loading before and saving after where asked."""
    out = Path(scenario["out"])
    if scenario.get("load"):
        learner.load(Path(scenario["load"]))
    else:
        learner.begin_stage(
            strands_of(scenario), Optimizer(**scenario.get("optimizer", {"learning_rate": 1e-2, "eps": 1e-4})), steps=10
        )
    facts = [train(learner, index, scenario, rank, world) for index in range(*scenario["steps"])]
    if scenario.get("save"):
        learner.save(Path(scenario["save"]))
    weights = learner.export_weights(7)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"pulls-{rank}.json").write_text(json.dumps([fact.pop("coefficients") for fact in facts]))
    if rank == 0:
        np.save(out / "weights.npy", weights.buffer)
        (out / "facts.json").write_text(json.dumps(facts))


def train(learner: Any, index: int, scenario: dict[str, Any], rank: int, world: int) -> dict[str, Any]:
    """One step on data that depends on its index alone, shared out as the driver would."""
    from actors.sharding import split
    from policies.reduce import normalisers

    step = examples(scenario.get("examples", 12), seed=index)
    if index in scenario.get("poison", ()):
        step = poisoned(step)
    updates = split(step, scenario.get("updates", 1), world)
    denominators = [normalisers(strands_of(scenario), [e for share in update for e in share]) for update in updates]
    several, measured = scenario.get("updates", 1) > 1, scenario.get("interference", False)
    facts = learner.step([u[rank] for u in updates], denominators, {"reinforce": 0.5}, several, interference=measured)
    return asdict(facts) | {"coefficients": facts.coefficients.tolist()}


def result(scenario: dict[str, Any]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The float32 weights and the facts of each step that a scenario left."""
    out = Path(scenario["out"])
    raw = np.load(out / "weights.npy")
    half = scenario.get("model", {}).get("dtype") == "bfloat16"
    weights = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32) if half else raw.view(np.float32)
    return weights, json.loads((out / "facts.json").read_text())


def pulls(scenario: dict[str, Any]) -> list[np.ndarray]:
    """g of each step that a scenario left, flat, in the order of the step's examples."""
    from actors.sharding import deal, in_order

    ranks = scenario.get("world_size", 1)
    told = [json.loads((Path(scenario["out"]) / f"pulls-{rank}.json").read_text()) for rank in range(ranks)]
    found = []
    for place, index in enumerate(range(*scenario["steps"])):
        step = examples(scenario.get("examples", 12), seed=index)
        flats = [np.array(rank[place], np.float32) for rank in told]
        whole = in_order(step, deal(step, scenario.get("updates", 1), ranks), flats)
        assert whole is not None
        found.append(whole)
    return found


def spawn(folder: Path, scenarios: list[dict[str, Any]], deadline: float = 280.0) -> None:
    """Run scenarios of one world size, one after the other; AssertionError with a rank's own words if one fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.learner_world", str(folder), json.dumps(scenarios)]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), f"127.0.0.1:{port}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for rank in range(scenarios[0]["world_size"])
    ]
    end = time.monotonic() + deadline
    try:
        for rank in ranks:
            words, _ = rank.communicate(timeout=max(1.0, end - time.monotonic()))
            assert rank.returncode == 0, words[-4000:]
    finally:
        for rank in ranks:
            rank.kill()


def _leave() -> None:
    """End this rank once every rank is done.

    Without the interpreter's teardown: gloo's threads may outlive the objects that own them there, which now and then
    ends a rank whose results are written with "terminate called without an active exception". Braid's own ranks are
    actors, which Ray ends without a teardown as well.
    """
    import torch.distributed as dist

    if dist.is_initialized():
        dist.barrier()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for one in json.loads(sys.argv[2]):
        run(Path(sys.argv[1]), one, int(sys.argv[3]), sys.argv[4])
    _leave()
