"""A small pipeline for every recipe: a character model, tasks that half of its responses pass, data of every kind."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from orchestrator import recipes
from policies.config import TinyModel
from policies.model_folder import materialise
from policies.models import build, save_hf

MODEL = {"kind": "tiny", "preset": "arithmetic-small", "context": 512}
SMALL = {
    **dict.fromkeys(("rollouts", "pairs", "rows", "imitated", "solutions", "steps"), 4),
    **dict.fromkeys(("demonstrations", "references"), 1),
    **dict.fromkeys(("buffer", "size", "samples", "candidates"), 2),
    **dict.fromkeys(("warmup", "critic_warmup"), 0),
    "length": 64,
    "cache": 16,
}
"""Parameters by name, where a recipe has them: enough to train on, little to wait for."""

OWN: dict[str, dict[str, Any]] = {
    "dapo": {"length": 8, "cache": 4},
    "raft": {"rollouts": 4},
}
"""What single recipes need besides."""


def parameters(name: str, teacher: Path) -> dict[str, Any]:
    """The recipe's parameters for a small run."""
    found: dict[str, Any] = {}
    for key, parameter in recipes.file(name).parameters.items():
        if parameter.type == "paths":
            found[key] = {"*": str(teacher)}
        elif parameter.required:
            found[key] = str(teacher) if parameter.type == "path" else 2
        elif key in SMALL and parameter.type == "int":
            found[key] = max(SMALL[key], int(parameter.ge or 0))
        elif parameter.type == "str" and " " in str(parameter.default):  # a template: the model knows no capitals
            found[key] = str(parameter.default).lower().replace("[", "(").replace("]", ")")
    return found | OWN.get(name, {})


def teacher_folder(folder: Path) -> Path:
    """A model with weights of its own and the learner's tokenizer."""
    model = TinyModel(**MODEL)
    source = materialise(model, folder / "source")
    save_hf(build(source, model, seed=11), source, folder / "teacher")
    return folder / "teacher"


def write_data(folder: Path) -> None:
    """prompts, demonstrations, pairs, labels and step labels, as JSON lines."""
    draws = random.Random(0)
    prompts = [f"{a}+{b}=" for a in range(10) for b in range(10)][:40]
    draws.shuffle(prompts)
    rows: dict[str, list[dict[str, Any]]] = {
        "prompts": [],
        "demonstrations": [],
        "preferences": [],
        "labels": [],
        "steps": [],
    }
    for prompt in prompts:
        a, b = (int(one) for one in prompt.rstrip("=").split("+"))
        right, wrong = f"{a + b}", f"{(a + b + 1) % 19}"
        criteria = ["shows a digit", "ends"]
        rows["prompts"].append({"prompt": prompt, "reference": right, "criteria": criteria})
        rows["demonstrations"] += [{"prompt": prompt, "response": right}, {"prompt": prompt, "response": f"{right}#"}]
        rows["preferences"].append({"prompt": prompt, "chosen": right, "rejected": wrong})
        rows["labels"] += [
            {"prompt": prompt, "completion": right, "label": True},
            {"prompt": prompt, "completion": wrong, "label": False},
        ]
        rows["steps"].append(
            {"prompt": prompt, "completions": [f"{a};", right], "labels": [True, draws.random() < 0.5]}
        )
    for name, found in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")


OUTCOME = {"kind": "format", "pattern": r"(?s).*[0-4].*"}
STEPS = {"kind": "steps", "separator": "4", "step": {"kind": "format", "pattern": r"(?s).*[a-m].*"}, "outcome": OUTCOME}
VERIFIERS = {
    **dict.fromkeys(("math_shepherd", "pav", "step_credit"), STEPS),
    "s2r": {"kind": "rubric", "parts": [{**STEPS, "name": "part"}]},
}
"""Recipe -> verifier, where it has to speak of steps or parts."""


def pipeline(name: str, folder: Path, teacher: Path, **stage: Any) -> dict[str, Any]:
    """The pipeline of one recipe; `stage` adds to its stage."""
    labels = "steps.jsonl" if name == "prm_training" else "labels.jsonl"
    return {
        "name": "small",
        "seed": 3,
        "model": MODEL,
        "prompts": {"train": {"kind": "jsonl", "path": str(folder / "prompts.jsonl")}},
        "demonstrations": {"kind": "jsonl", "path": str(folder / "demonstrations.jsonl")},
        "preferences": {"kind": "jsonl", "path": str(folder / "preferences.jsonl")},
        "labels": {"kind": "jsonl", "path": str(folder / labels)},
        "verifier": VERIFIERS.get(name, OUTCOME),
        "stages": [
            {
                "name": "only",
                "recipe": {"kind": name, **parameters(name, teacher)},
                "steps": 3,
                "prompts_per_step": 4,
                "optimizer": {"learning_rate": 1e-3},
                "sampling": {"max_tokens": 8},
                **stage,
            }
        ],
    }


def write(content: Mapping[str, Any], path: Path) -> Path:
    """The pipeline as a file."""
    path.write_text(yaml.safe_dump(dict(content)), encoding="utf-8")
    return path
