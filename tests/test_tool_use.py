"""Tool use end to end: imitate calls of a calculator, then be rewarded for right answers; without the tool, nothing.

The numbers have six digits, which the model cannot add. Whole runs of examples/tools.yaml, in one process and over Ray.
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from orchestrator.load import read
from orchestrator.prompts import load as load_prompts
from orchestrator.run import run
from policies.arrow import from_table
from policies.model_folder import materialise
from policies.tokens import Tokenizer
from policies.trajectory import Origin, Trajectory
from teachers.demonstrations import load as load_demonstrations
from teachers.tool_caller import expression
from verifiers.environments.config import ToolsEnvironment
from verifiers.environments.tools import ToolsEpisode, open_kit

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "tools.yaml"


def lines(out: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "ledger" / f"{name}.jsonl").read_text().splitlines()]


def probes(out: Path) -> list[dict[str, Any]]:
    return [row for row in lines(out, "metrics") if row["kind"] == "probe"]


def trained(out: Path) -> list[Trajectory]:
    files = sorted((out / "ledger" / "trajectories").glob("*.parquet"))
    return [one for file in files for one in from_table(pq.read_table(file))]


def parted(one: Trajectory, tokenizer: Tokenizer) -> list[tuple[bool, str]]:
    """(whether the environment said it, the text) piece by piece."""
    own = one.origin == Origin.ENVIRONMENT
    cuts = [0, *(np.flatnonzero(np.diff(own.astype(np.int8))) + 1).tolist(), len(own)]
    return [
        (bool(own[low]), tokenizer.decode(one.tokens[low:high], skip_special=False)) for low, high in pairwise(cuts)
    ]


def test_a_demonstration_is_an_episode_of_the_runs_environment(tmp_path: Path) -> None:
    pipeline = read(EXAMPLE)
    tokenizer = Tokenizer.load(materialise(pipeline.model, tmp_path))
    room: dict[str, Any] = {"base": ROOT, "context": 128}
    prompts = list(load_prompts(pipeline.prompts.train, tokenizer, key="prompts.train", max_tokens=24, **room))[:200]
    config, environment = pipeline.demonstrations, pipeline.environment
    assert config is not None
    found = load_demonstrations(config, prompts, tokenizer, seed=0, environment=environment, **room)
    assert len(found) == 200
    for prompt, one in zip(prompts, found.flat, strict=True):
        asked, answer = prompt.text.rstrip("="), json.loads(prompt.reference)
        said = [(False, f"({asked})"), (True, f"={answer};"), (False, f"#{answer}<eos>")]
        assert parted(one, tokenizer) == said
        assert one.train_mask.tolist() == [origin != Origin.ENVIRONMENT for origin in one.origin]
        assert one.text == f"#{answer}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("346501+77213=", "346501+77213"),
        ("What is (12 + 3) * 4? Answer at once.", "(12 + 3) * 4"),
        ("7 apples and 12-5 pears", "12-5"),
    ],
)
def test_the_caller_finds_the_expression(text: str, found: str) -> None:
    assert expression(text) == found


def test_the_caller_says_where_there_is_none() -> None:
    with pytest.raises(ValueError, match="no arithmetic"):
        expression("what colour is the sky?")


def measured(model: Path, folder: Path, environment: str) -> float:
    """Greedy accuracy of a model on the held-out prompts, with this environment: as a run of one step begins."""
    sets = [
        f"model={{kind: hf, path: {model}, context: 128, dtype: float32}}",
        f"environment={environment}",
        "demonstrations=null",
        "stages=[{name: only, recipe: {kind: grpo, rollouts: 2}, steps: 1, prompts_per_step: 1}]",
    ]
    assert run(EXAMPLE, folder, sets, in_process=True) == 0
    first = probes(folder)[0]
    return float(first["greedy_accuracy"])


@pytest.mark.slow
def test_a_model_learns_to_call_and_is_nothing_without_the_tool(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run(EXAMPLE, out, in_process=True) == 0
    start, warm, sharp = probes(out)
    assert start["greedy_accuracy"] == start["sampled_accuracy"] == 0
    assert warm["greedy_accuracy"] > 0.5 and warm["sampled_accuracy"] > 0.3
    assert sharp["greedy_accuracy"] > 0.5 and sharp["sampled_accuracy"] > warm["sampled_accuracy"] + 0.02
    rewards = [row["reward_mean"] for row in lines(out, "metrics") if row.get("stage") == "sharpen" and "loss" in row]
    assert np.mean(rewards[-16:]) > np.mean(rewards[:8]) + 0.02, "192 responses a step"
    tokenizer, environment = Tokenizer.load(out / "model"), read(EXAMPLE).environment
    assert isinstance(environment, ToolsEnvironment)
    calculator = ToolsEpisode(open_kit(environment))
    for one in trained(out):
        pieces = parted(one, tokenizer)
        for (_, call), (by_tool, said) in pairwise(pieces):
            told = calculator.step(call).observation if by_tool else ""
            assert not told or told.startswith("error") or said == f"={told};", "the tool's words are its answer"
        for by_tool, text in pieces:
            assert by_tool or text.partition(")")[2] in ("", "<eos>"), "a call ends the model's turn"
            assert not by_tool or (text.startswith("=") and text.endswith(";"))
        assert not one.train_mask[one.origin == Origin.ENVIRONMENT].any()
    model = sorted((out / "checkpoints").iterdir())[-1] / "model"
    same = measured(
        model, tmp_path / "on", "{kind: tools, calls: {form: plain, open: '(', close: ')', before: '=', after: ';'}}"
    )
    assert same == pytest.approx(sharp["greedy_accuracy"])
    assert measured(model, tmp_path / "off", "null") < 0.05


FATAL = """
import os

from verifiers.environments.protocol import Turn


class Fatal:
    def start(self, task):
        self.fatal = task.seed % 7 == 0

    def step(self, text):
        if self.fatal:
            os._exit(1)
        return Turn("1;", reward=0.5, done=len(text) % 2 == 0)
"""
SHORT = ("resources.rollout.engine=torch", "resources.learner.engine=torch", "prompts.probe=null")


@pytest.mark.slow
def test_an_environment_is_an_actor_of_a_run_over_ray(tmp_path: Path) -> None:
    """Short: the episodes are played by actors of their own, over vLLM."""
    out = tmp_path / "run"
    sets = [
        *("stages.warm-start.steps=2", "stages.sharpen.steps=2", "stages.sharpen.prompts_per_step=2"),
        *("environment.replicas=2", "prompts.probe.count=4", "prompts.train.count=64"),
    ]
    assert run(EXAMPLE, out, sets) == 0
    assert len(probes(out)) == 3 and len([row for row in lines(out, "metrics") if row["kind"] == "step"]) == 4
    assert not [row for row in lines(out, "events") if row["kind"] in ("failed", "environment_restart")]
    assert all(any(e.name == "environment" for e in one.scores) for one in trained(out) if one.version >= 0)


@pytest.mark.slow
def test_an_environment_whose_process_dies_costs_its_episodes_and_not_the_run(tmp_path: Path) -> None:
    (tmp_path / "fatal.py").write_text(FATAL)
    out = tmp_path / "run"
    sets = [
        *SHORT,
        f"environment={{kind: custom, path: {tmp_path / 'fatal.py'}, name: Fatal, replicas: 2, turns: 2}}",
        *("demonstrations=null", "verifier={kind: environment}", "prompts.train.count=64"),
        "stages=[{name: only, recipe: {kind: grpo, rollouts: 4}, steps: 4, prompts_per_step: 6}]",
    ]
    assert run(EXAMPLE, out, sets) == 0
    events = lines(out, "events")
    assert [row for row in events if row["kind"] == "environment_restart"]
    lost = [row for row in events if row["kind"] == "dropped" and row["cause"] == "no_verdict"]
    assert lost and all(row["reason"] for row in lost)
    for one in trained(out):
        values = {entry.name: entry.value for entry in one.scores if entry.start is None}
        assert values["reward"] == values["environment"] in (0.5, 1.0), "what trains was rewarded by a living one"
