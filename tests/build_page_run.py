"""A rich synthetic run for the page: four stages, probes with gained and lost prompts, handoffs, decisions, tokens of
every origin with g. Everything in it is planted, and `Planted` says what."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tokenizers

from orchestrator.json_lines import plain
from orchestrator.ledger import RunLedger, write_parquet
from orchestrator.probe_files import write_probe
from orchestrator.run_directory import RunDirectory
from policies.example import Example
from policies.trajectory import FinishReason, Origin, Producer, Sampling, ScoreEntry, Trajectory
from tests.build_run import ENVIRONMENT, HOSTILE, metrics_row
from tests.page_handoffs import RECOMMENDED, handoff

STAGES = (("warm-start", 24), ("braid", 48), ("distil", 24), ("sharpen", 24))
SHORT = (("warm-start", 6), ("braid", 12), ("distil", 6), ("sharpen", 6))
RECIPES = {"warm-start": "sft", "braid": "luffy", "distil": "on_policy_distillation", "sharpen": "grpo"}
LABELS = {
    "warm-start": {"role": ["expansion"], "provenance": "off", "interface": ["token_targets"]},
    "braid": {"role": ["expansion", "reshaping"], "provenance": "mixed", "interface": ["reward"]},
    "distil": {"role": ["consolidation"], "provenance": "on", "interface": ["teacher"]},
    "sharpen": {"role": ["reshaping"], "provenance": "on", "interface": ["reward"]},
}
STRANDS = {
    "warm-start": ("imitate",),
    "braid": ("on-policy", "imitate", "hinted"),
    "distil": ("teacher",),
    "sharpen": ("on-policy",),
}
PROMPTS, SAMPLES = 96, 64
TEXTS = (
    "Let x = 12.\nThen 3x + 4 = 40, so the answer is 40.",
    "Das heißt: Größe × 2 ≥ 7 → also 42. 🧮",
    "試しに 17 を足すと 59 になる。\n答え: 59",
    "First, add: 346 + 77 = 423.\nCheck: 423 - 77 = 346. ✓",
)


@dataclass(frozen=True, slots=True)
class Planted:
    """What a test may expect of the run."""

    run: RunDirectory
    steps: int
    probes: tuple[int, ...]
    gained: tuple[str, ...]
    """Prompts of set probe that go from never to always between the first and the last probe."""
    lost: tuple[str, ...]
    kept: tuple[str, ...]
    examples: dict[int, tuple[Example, ...]]
    """Step -> what the ledger was given."""
    coefficients: dict[int, tuple[list[float], ...]]


def build_page_run(
    out: Path, stages: Sequence[tuple[str, int]] = STAGES, *, until: int | None = None, seed: int = 7
) -> Planted:
    """A run of these stages; `until` leaves it going on after that step."""
    run = RunDirectory.create(out, _config(out.name, stages), ENVIRONMENT)
    write_tokenizer(run.root / "model")
    rng = np.random.default_rng(seed)
    examples: dict[int, tuple[Example, ...]] = {}
    coefficients: dict[int, tuple[list[float], ...]] = {}
    probes, step, before = [0], 0, 0
    with RunLedger(run, STRANDS) as ledger:
        ledger.event("started", step=0, resumed=False)
        _probe(run, ledger, 0, stages[0][0], 0.0)
        total = sum(steps for _, steps in stages)
        for index, (stage, steps) in enumerate(stages):
            for at in range(1, steps + 1):
                step += 1
                if until is not None and step > until:
                    return _planted(run, step - 1, probes, examples, coefficients)
                examples[step] = tuple(_examples(step, stage, rng))
                ledger.add(step, examples[step], stage)
                coefficients[step] = tuple(_write_g(run, step, stage, examples[step]))
                ledger.metrics(_metrics(step, stage, at, steps, examples[step]))
                ledger.decision(_decision(step, stage, at / steps))
                if step % 12 == 0 and at != steps:
                    probes.append(step)
                    _probe(run, ledger, step, stage, step / total)
                _events(ledger, step)
            probes.append(step)
            _probe(run, ledger, step, stage, step / total)
            _hand_over(run, index, stage, (step - steps + 1, step), before)
            before = step
        ledger.event("finished", step=step)
    return _planted(run, step, probes, examples, coefficients)


@cache
def short_page_run(base: Path) -> Planted:
    """One of 30 steps below a folder, made once: tests read it and write nothing there."""
    return build_page_run(base / "page-run", SHORT)


def write_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer with no merges: every text has tokens, and a character may have several."""
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    codec = tokenizers.Tokenizer(tokenizers.models.BPE({sign: at for at, sign in enumerate(alphabet)}, []))
    codec.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    codec.decoder = tokenizers.decoders.ByteLevel()
    codec.add_special_tokens(["<end>"])
    codec.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))


def encode(text: str) -> np.ndarray[Any, np.dtype[np.int32]]:
    """The text's tokens, then the end."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    place = {sign: at for at, sign in enumerate(alphabet)}
    signs = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return np.array([*(place[sign] for part, _ in signs for sign in part), len(alphabet)], np.int32)


def _planted(
    run: RunDirectory,
    steps: int,
    probes: Sequence[int],
    examples: dict[int, tuple[Example, ...]],
    coefficients: dict[int, tuple[list[float], ...]],
) -> Planted:
    groups: dict[str, list[str]] = {"gained": [], "lost": [], "kept": []}
    for index in range(PROMPTS):
        kind = fate(index)
        if kind in groups:
            groups[kind].append(f"q{index:03d}")
    named = {name: tuple(found) for name, found in groups.items()}
    return Planted(run, steps, tuple(probes), **named, examples=examples, coefficients=coefficients)


# ---------------------------------------------------------------- probes


def fate(index: int) -> str:
    """What becomes of a probe prompt over the run."""
    kinds = ("gained", "kept", "never", "rising", "lost", "falling", "kept", "gained")
    return kinds[index % len(kinds)]


def rate(index: int, share: float) -> float:
    """A prompt's pass rate at this share of the run."""
    match fate(index):
        case "gained":
            return float(share > 0.15 + 0.5 * (index / PROMPTS)) * min(1.0, 0.4 + share)
        case "lost":
            return float(share < 0.3 + 0.4 * (index / PROMPTS)) * 0.7
        case "kept":
            return 0.5 + 0.4 * share
        case "rising":
            return 0.02 + 0.3 * share
        case "falling":
            return 0.6 - 0.4 * share
        case _:
            return 0.0


def counts(index: int, share: float, samples: int = SAMPLES) -> int:
    """Passed responses of a prompt: the rate, rounded, so that a test knows them."""
    return round(rate(index, share) * samples)


def _probe(run: RunDirectory, ledger: RunLedger, step: int, stage: str, share: float) -> None:
    rows = [row for index in range(PROMPTS) for row in _responses(index, share)]
    rows += [row | {"set": "guard"} for index in range(0, PROMPTS, 4) for row in _responses(index, share / 2)][:2000]
    write_probe(run, step, stage, rows)
    drawn = [row for row in rows if row["set"] == "probe"]
    greedy = [row["passed"] for row in drawn if row["greedy"]]
    sampled = [row["passed"] for row in drawn if not row["greedy"]]
    shares = {"greedy_accuracy": sum(greedy) / len(greedy), "sampled_accuracy": sum(sampled) / len(sampled)}
    ledger.metrics(
        {"kind": "probe", "step": step, "stage": stage, **shares, "n": len(greedy), "n_sampled": len(sampled)}
    )


def _responses(index: int, share: float) -> Iterator[dict[str, Any]]:
    passed = counts(index, share)
    family = ("algebra", "geometry", "counting")[index % 3]
    prompt = f"What is {index} + {index * 7}?" + (" <b>bold</b>" if index == 5 else "")
    for draw in range(-1, SAMPLES):
        good = rate(index, share) > 0.5 if draw < 0 else (draw * 37) % SAMPLES < passed
        answer = str(index * 8) if good else str(index * 8 + 1 + draw % 3)
        yield {
            "set": "probe",
            "prompt_id": f"q{index:03d}",
            "prompt": prompt,
            "family": family,
            "greedy": draw < 0,
            "draw": draw,
            "passed": good,
            "value": float(good),
            "status": "ok",
            "answer": answer,
            "tokens": 9 + draw % 5,
            "text": HOSTILE if (index, draw) == (5, 0) else f"It is {answer}.",
        }


# ---------------------------------------------------------------- trajectories


def _examples(step: int, stage: str, rng: np.random.Generator) -> Iterator[Example]:
    for at, strand in enumerate(STRANDS[stage]):
        for member in range(8 if strand == "on-policy" else 4):
            one = _trajectory(f"{stage}/{step:06d}/{strand}-{member}", strand, step, member, rng)
            credit = rng.normal(size=len(one.tokens)).astype(np.float32)
            yield Example(one, at, credit if strand != "imitate" else np.ones(len(one.tokens), np.float32))


def _trajectory(name: str, strand: str, step: int, member: int, rng: np.random.Generator) -> Trajectory:
    text = HOSTILE if step == 7 and member == 0 else TEXTS[(step + member) % len(TEXTS)]
    tokens = encode(text)
    origin = np.full(len(tokens), Origin.DEMONSTRATION if strand == "imitate" else Origin.LEARNER, np.int8)
    third = len(tokens) // 3
    if strand == "hinted":
        origin[:third] = Origin.HINT
    if strand == "teacher":
        origin[third : 2 * third] = Origin.TEACHER
    if strand == "on-policy" and member == 1:
        origin[third : third + 4] = Origin.ENVIRONMENT
    own = origin == Origin.LEARNER
    versions = np.where(own, max(0, step - 1 - member % 2), -1).astype(np.int32)
    logps = np.where(own, -rng.exponential(0.6, len(tokens)), math.nan).astype(np.float32)
    good = (step * 3 + member * 5) % 7 < 2 + step / 40
    prompt = encode(f"What is {step} + {member}?")[:-1]
    mine = strand != "imitate"
    return Trajectory(
        id=name,
        prompt_id=f"t{(step + member // 4) % 50:03d}",
        group_id=f"{name.rpartition('-')[0]}/{member // 4}",
        producer=Producer.ROLLOUT if mine else Producer.DEMONSTRATION,
        model="learner" if mine else "careful",
        version=int(versions[own][0]) if own.any() else -1,
        train_context=prompt,
        behavior_context=encode(f"Hint: think. What is {step}?")[:-1] if strand == "hinted" else prompt,
        teacher_context=prompt,
        tokens=tokens,
        origin=origin,
        token_version=versions,
        train_mask=origin != Origin.ENVIRONMENT,
        behavior_logps=logps,
        scores=tuple(_scores(step, member, good, len(tokens))),
        finish_reason=FinishReason.STOP if mine else FinishReason.GIVEN,
        sampling=Sampling(temperature=0.8) if mine else None,
        seed=step * 100 + member,
        text=text,
        created_at=1000.0 + step,
        seconds=0.25,
        tokens_generated=int(own.sum()),
    )


def _scores(step: int, member: int, good: bool, length: int) -> Iterator[ScoreEntry]:
    if (step, member) == (9, 0):
        yield ScoreEntry("reward", math.nan, None, "timeout", "no verdict within 5 s", scorer="math")
        return
    yield ScoreEntry("reward", float(good), good, scorer="math", scorer_version="3f2a")
    if member % 4 == 0:
        for low in range(0, length, 20):
            high = min(length, low + 20)
            yield ScoreEntry("process", 0.2 + 0.6 * good, None, "ok", "step", low, high, "prm", "1")


def _write_g(run: RunDirectory, step: int, stage: str, examples: Sequence[Example]) -> Iterator[list[float]]:
    """g is advantage over length, as a policy gradient has it; 0 where nothing trains."""
    found = [
        np.where(one.trajectory.train_mask, one.advantages / len(one.trajectory.tokens), 0.0).astype(np.float32)
        for one in examples
    ]
    rows = [
        {"step": step, "stage": stage, "strand": STRANDS[stage][one.strand], "id": one.trajectory.id, "g": g.tolist()}
        for one, g in zip(examples, found, strict=True)
    ]
    words = [("step", pa.int64()), ("stage", pa.string()), ("strand", pa.string()), ("id", pa.string())]
    folder = run.ledger / "coefficients"
    folder.mkdir(exist_ok=True)
    schema = pa.schema([*words, ("g", pa.list_(pa.float32()))])
    write_parquet(folder / f"step={step:06d}.parquet", pa.Table.from_pylist(rows, schema=schema))
    yield from ([float(value) for value in g] for g in found)


# ---------------------------------------------------------------- lines


def _config(name: str, stages: Sequence[tuple[str, int]]) -> str:
    lines = [f"name: {name}", "seed: 7", "model: {kind: tiny, preset: arithmetic}"]
    lines += ["handoff: {probe_samples: 64, sequential: false, epsilon: 0.05}", "stages:"]
    lines += [
        f"- {{name: {stage}, recipe: {{kind: {RECIPES.get(stage, 'grpo')}}}, steps: {steps}}}"
        for stage, steps in stages
    ]
    return "\n".join(lines) + "\n"


def _metrics(step: int, stage: str, at: int, steps: int, examples: Sequence[Example]) -> dict[str, object]:
    """As `build_run`'s, with tokens by origin and by strand counted from the step's own examples."""
    known = stage if stage in ("warm-start", "braid", "sharpen") else "sharpen"
    row = metrics_row(step, known, min(at, 8), steps) | {"stage": stage, "stage_step": at}
    tokens = {origin.name.lower(): 0 for origin in Origin}
    strands = dict.fromkeys(STRANDS[stage], 0)
    for one in examples:
        trained = one.trajectory.origin[one.trajectory.train_mask]
        strands[STRANDS[stage][one.strand]] += len(trained)
        for origin in Origin:
            tokens[origin.name.lower()] += int((trained == origin).sum())
    total = sum(tokens.values())
    row["by_origin"] = {name: {"tokens": n, "gradient_mass": n / total, "groups": 4} for name, n in tokens.items() if n}
    row["by_strand"] = {
        name: {"tokens": float(n), "loss": 1.0 / step, "gradient_mass": n / total} for name, n in strands.items()
    }
    if not math.isnan(float(str(row["reward_mean"]))):
        level = 0.2 + 0.6 * (1 - math.exp(-step / 40)) + 0.05 * math.sin(step)
        row |= {"reward_mean": level, "accuracy": level - 0.02}
    return row | {"kind": "step", "tokens_trained": total}


def _decision(step: int, stage: str, done: float) -> dict[str, object]:
    coefficients = {name: round(1.0 - 0.6 * done if name != "on-policy" else 1.0, 3) for name in STRANDS[stage]}
    fires = stage == "braid" and step % 10 == 0
    reason = {
        "warm-start": "recipe sft holds its strands fixed",
        "braid": f"accuracy {0.2 + 0.5 * done:.2f} is below 0.7: imitate keeps {1 - 0.6 * done:.2f} of its share",
        "distil": "the teacher writes where the learner's entropy is above 2 nats",
        "sharpen": f"temperature control: entropy {1.2 - 0.3 * done:.2f}, nothing changes",
    }[stage]
    return {
        "step": step,
        "stage": stage,
        "plan": {
            "recipe": RECIPES[stage],
            "coefficients": coefficients,
            "rest": ["hinted"] if stage == "braid" and done > 0.8 else [],
            "places": {"on-policy": 8, "imitate": round(6 * (1 - done))} if stage == "braid" else {},
            "classes": {"easy": 3, "hard": 5} if stage == "braid" else {},
            "own_prompts": {"imitate": 3} if fires else {},
            "hints": {},
        },
        "reason": reason,
        "controls": [{"control": "share", "word": ""}] if stage == "braid" else [],
        "routed": [f"{stage}/{step:06d}/0001: imitate leaves: 3 of 4 passed, <b>the gate</b> is at 0.5"],
        "verdicts": {"kept": 6, "dropped": 2} if stage == "braid" else {"kept": 8},
        "facts": {"accuracy": 0.3 + 0.5 * done, "reward_mean": 0.3 + 0.5 * done},
        "outcome": {"accuracy": 0.32 + 0.5 * done, "reward_mean": 0.32 + 0.5 * done},
    }


def _events(ledger: RunLedger, step: int) -> None:
    if step == 9:
        ledger.event("update_skipped", step=step, count=1, reason="loss or gradient not finite")
    if step % 30 == 0:
        ledger.event("dropped", step=step, id=f"r{step}", cause="select", responses=1, reason="all passed")
    if step == 40:
        ledger.event("actor_restarted", step=step, message="rollout-0 died and was started anew", role="rollout")


def _hand_over(run: RunDirectory, index: int, stage: str, steps: tuple[int, int], before: int) -> None:
    ids = {kind: [f"q{i:03d}" for i in range(PROMPTS) if fate(i) == kind] for kind in ("gained", "lost")}
    told = handoff(stage, index, steps, before, ids) | {"labels": LABELS.get(stage, {}), "run": run.root.name}
    run.handoffs.mkdir(exist_ok=True)
    run.handoff_file(stage).write_text(json.dumps(plain(told), indent=1) + "\n", encoding="utf-8")
    (run.handoffs / f"{stage}.recommended.yaml").write_text(RECOMMENDED, encoding="utf-8")
