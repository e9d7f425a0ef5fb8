"""A synthetic run directory: two or three stages with every kind of row, for the tests of ledger and eyes."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from orchestrator.ledger import RunLedger
from orchestrator.probe_files import write_probe
from orchestrator.run_directory import RunDirectory
from policies.example import Example
from policies.trajectory import FinishReason, Origin, Producer, Sampling, ScoreEntry, Trajectory

CONFIG = """\
name: synthetic
seed: 7
model: {kind: tiny, preset: arithmetic}
stages:
- {name: warm-start, recipe: {kind: sft}, steps: 4}
- {name: braid, recipe: {kind: luffy}, steps: 6}
- {name: sharpen, recipe: {kind: grpo}, steps: 6}
"""
ENVIRONMENT = {"python": "3.11.7", "platform": "Linux", "cores": 2, "memory_gib": 23.0, "packages": {"torch": "2.13"}}
STAGES = (("warm-start", 4), ("braid", 6), ("sharpen", 6))
STRANDS = {"warm-start": ("imitate",), "braid": ("on-policy", "imitate"), "sharpen": ("on-policy",)}
HOSTILE = "<script>alert('x')</script>\x1b[31m\x07 & \u202ereversed"


def trajectory(
    name: str,
    *,
    origin: Origin = Origin.LEARNER,
    version: int = 0,
    value: float = 1.0,
    text: str = "346+77=423",
    length: int = 6,
    status: str = "ok",
) -> Trajectory:
    """A response of `length` tokens by one writer; `value` is its reward."""
    tokens = np.arange(length, dtype=np.int32)
    mine = origin == Origin.LEARNER
    context = np.arange(3, dtype=np.int32)
    reason = "" if status == "ok" else "no verdict within 5 s"
    score = ScoreEntry("reward", value, None if math.isnan(value) else value > 0.5, status, reason, scorer="answer")
    return Trajectory(
        id=name,
        prompt_id=f"p-{name}",
        group_id=f"g-{name}",
        producer=Producer.ROLLOUT if mine else Producer.DEMONSTRATION,
        model="learner" if mine else "careless",
        version=version if mine else -1,
        train_context=context,
        behavior_context=context,
        teacher_context=context,
        tokens=tokens,
        origin=np.full(length, origin, np.int8),
        token_version=np.full(length, version if mine else -1, np.int32),
        train_mask=np.ones(length, np.bool_),
        behavior_logps=np.full(length, -0.5 if mine else math.nan, np.float32),
        scores=(score,),
        finish_reason=FinishReason.STOP if mine else FinishReason.GIVEN,
        sampling=Sampling() if mine else None,
        seed=1,
        text=text,
        created_at=1000.0,
        seconds=0.25,
        tokens_generated=length if mine else 0,
    )


def example(name: str, *, strand: int = 0, advantage: float = 1.0, **facts: object) -> Example:
    """A trajectory with one advantage on each token."""
    one = trajectory(name, **facts)  # type: ignore[arg-type]
    return Example(one, strand, np.full(len(one.tokens), advantage, np.float32))


def step_examples(step: int, stage: str) -> list[Example]:
    """What the learner consumes in a step: rollouts, then demonstrations, as the stage's strands say."""
    names = STRANDS[stage]
    examples = []
    if "on-policy" in names:
        index = names.index("on-policy")
        examples += [
            example(f"s{step}-r{i}", strand=index, version=step - 1, value=float(i % 2), advantage=2.0 * (i % 2) - 1)
            for i in range(4)
        ]
    if "imitate" in names:
        index = names.index("imitate")
        examples += [example(f"s{step}-d{i}", strand=index, origin=Origin.DEMONSTRATION) for i in range(2)]
    if step == 7:
        examples.append(example("hostile", strand=0, version=6, value=math.nan, status="timeout", text=HOSTILE))
    return examples


def metrics_row(step: int, stage: str, stage_step: int, stage_steps: int) -> dict[str, object]:
    """A line as the loop writes it."""
    rollout = stage != "warm-start"
    demonstrated = {"warm-start": 1.0, "braid": 0.4 - 0.05 * stage_step, "sharpen": 0.0}[stage]
    wave = math.sin(step)
    by_strand = {
        name: {"loss": 1.0 / step, "tokens": 100.0, "gradient_mass": 0.3 + 0.1 * index}
        for index, name in enumerate(STRANDS[stage])
    }
    seconds = {"generate": 1.0 if rollout else 0.0, "score": 0.1, "train": 0.8, "publish": 0.05, "ledger": 0.01}
    return {
        "step": step,
        "stage": stage,
        "stage_step": stage_step,
        "stage_steps": stage_steps,
        "version": step,
        "loss": 2.0 / step + 0.05 * wave,
        "gradient_norm": 1.0 + 0.2 * wave if step != 9 else math.nan,
        "learning_rate": 1e-4,
        "skipped": int(step == 9),
        "reward_mean": min(1.0, 0.2 + 0.05 * step) if rollout else math.nan,
        "accuracy": min(1.0, 0.15 + 0.05 * step) if rollout else math.nan,
        "unknown_rewards": int(step == 7),
        "tokens_trained": 2000,
        "tokens_generated": 1800 if rollout else 0,
        "share_learner": 1 - demonstrated,
        "share_demonstration": demonstrated,
        "share_teacher": 0.0,
        "on_policy_share": 1 - demonstrated,
        "staleness_mean": 0.0 if rollout else math.nan,
        "ess": 0.97 if rollout else math.nan,
        "seconds": sum(seconds.values()) + 0.04,
        **{f"seconds_{part}": spent for part, spent in seconds.items()},
        "response_length_mean": 5.0 if rollout else math.nan,
        "truncated_share": 0.02 if rollout else math.nan,
        "by_strand": by_strand,
        **accounts(step, stage, demonstrated),
    }


def accounts(step: int, stage: str, demonstrated: float) -> dict[str, object]:
    """Who wrote what trains, and what became of the responses: where there are two strands a gate drops one."""
    shares = {"learner": 1 - demonstrated, "demonstration": demonstrated}
    strands = {
        name: way(8, 0, {"select": 1}) if name == "on-policy" else way(0, 4, {"control": int(stage == "braid")})
        for name in STRANDS[stage]
    }
    parts = list(strands.values())
    whole = {
        key: sum(one[key] for one in parts)  # type: ignore[misc]
        for key in ("written", "given", "admitted", "trained", "masked", "aside", "unaccounted")
    }
    tables = {
        key: {name: count for one in parts for name, count in one[key].items()}  # type: ignore[attr-defined]
        for key in ("scored", "dropped")
    }
    return {
        "by_origin": {
            name: {"tokens": 2000 * share, "loss": share, "gradient_mass": share * share, "groups": 4, "ess": 0.9}
            for name, share in shares.items()
            if share
        },
        "staleness": {"0": 3, "2": 1} if stage != "warm-start" else {},
        "interference": {"on-policy|imitate": -0.5 + 0.1 * step} if stage == "braid" and step % 2 else {},
        "funnel": {**whole, **tables, "by_strand": strands},
        "decided": f"imitate {demonstrated:.3g}" if stage == "braid" else "",
    }


def way(written: int, given: int, dropped: dict[str, int]) -> dict[str, object]:
    """One strand's funnel, in which everybody else trains."""
    lost, came = sum(dropped.values()), written + given
    counts = {"written": written, "given": given, "admitted": came - dropped.get("control", 0), "trained": came - lost}
    scored = {"ok": written} if written else {"none": given}
    return {**counts, "masked": 0, "aside": 0, "unaccounted": 0, "scored": scored, "dropped": dropped}


def probe(run: RunDirectory, ledger: RunLedger, step: int, stage: str, correct: int, n: int = 32) -> None:
    """A probe of n greedy and n sampled responses, `correct` of each passed."""
    rows = [
        {
            "prompt_id": f"q{i}",
            "family": "2-digit" if i % 2 else "3-digit",
            "greedy": greedy,
            "passed": i < correct,
            "value": float(i < correct),
            "status": "ok",
            "tokens": 4,
            "text": "423",
        }
        for greedy in (True, False)
        for i in range(n)
    ]
    write_probe(run, step, stage, rows)
    share = correct / n
    line = {"step": step, "stage": stage, "greedy_accuracy": share, "sampled_accuracy": share, "n": n}
    ledger.metrics({"kind": "probe", **line})


def decide(ledger: RunLedger, step: int, stage: str, share: float) -> None:
    """The step's decision, as the controls give it."""
    fires = stage == "braid" and step == 8
    plan = {
        "coefficients": {"on-policy": 1 - share, "imitate": share},
        "places": {"imitate": 2, "on-policy": 6} if stage == "braid" else {},
        "own_prompts": {"imitate": 2} if fires else {},
    }
    verdicts = {"kept": 5, "dropped": 1, "without imitate": 3} if stage == "braid" else {"kept": 6}
    reason = f"share of demonstrations {share:.2f}: linear from 0.4 to 0.1"
    told = {"plan": plan, "reason": reason, "verdicts": verdicts, "routed": ["g1: <b>dropped</b>"]}
    ledger.decision({"step": step, "stage": stage, **told, "facts": {"accuracy": 0.4}, "outcome": {"accuracy": 0.5}})


def build_run(
    out: Path, stages: Sequence[tuple[str, int]] = STAGES, *, probes: bool = True, until: int | None = None
) -> RunDirectory:
    """A run of these stages; `until` leaves it unfinished after that step."""
    run = RunDirectory.create(out, CONFIG, ENVIRONMENT)
    step = 0
    with RunLedger(run, STRANDS) as ledger:
        ledger.event("started", step=0, resumed=False)
        if probes:
            probe(run, ledger, 0, stages[0][0], correct=2)
        for index, (stage, steps) in enumerate(stages):
            for stage_step in range(1, steps + 1):
                step += 1
                if until is not None and step > until:
                    return run
                ledger.add(step, step_examples(step, stage), stage)
                row = metrics_row(step, stage, stage_step, steps)
                decide(ledger, step, stage, float(row["share_demonstration"]))  # type: ignore[arg-type]
                ledger.metrics(row)
                if step == 9:
                    ledger.event("nonfinite_step", step=step, detail="gradient norm is not finite; update skipped")
            if probes:
                probe(run, ledger, step, stage, correct=10 + 8 * index)
        ledger.event("finished", step=step)
    return run
