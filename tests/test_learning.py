"""Learning, end to end on the CPU with the real loop, engine, verifier and learner: reward rises, sooner with help.

The task: answer `7`, and end there. A policy alone finds the part that a random one sometimes meets (a digit first)
and stays there; one demonstration in each group brings the rest into reach. Everything runs in this process
(actors/local.py); tests/test_run.py drives the same loop over Ray.
"""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeLedger, NoEyes

from actors.local import local_parts
from orchestrator.collect import Collector
from orchestrator.config import ArithmeticPrompts, RecipeChoice, SamplingConfig, Stage
from orchestrator.loop import Ports, RunState, StageRun, run_stage
from orchestrator.prompts import load as load_prompts
from orchestrator.recipes import load
from policies.config import Optimizer, TinyModel
from policies.model_folder import materialise
from policies.tokens import Tokenizer
from policies.trajectory import Origin
from teachers.demonstrations import DemonstrationSet, given
from verifiers.config import FormatVerifier, RubricVerifier

MODEL = TinyModel(preset="arithmetic-small", context=32)
# Parts of a right answer can be right: without that a random policy meets no reward at all.
VERIFIER = RubricVerifier(
    parts=(
        FormatVerifier(pattern=r"(?s)\d.*", name="digit first"),
        FormatVerifier(pattern=r"\d\d?", name="short"),
        FormatVerifier(pattern=r"7", name="seven", weight=2.0),
    )
)


async def learn(folder: Path, recipe: str, steps: int, **parameters: Any) -> list[float]:
    """Mean reward of the rollouts at each step."""
    where = materialise(MODEL, folder / recipe)
    tokenizer = Tokenizer.load(where)
    source = ArithmeticPrompts(digits=(1,), count=16)
    prompts = load_prompts(source, tokenizer, base=folder, context=32, max_tokens=4, key="prompts.train")
    tokens = tokenizer.response("7")
    book = DemonstrationSet.of("book", [given(one, tokens, "7", name="book", index=0) for one in prompts])
    parts = local_parts(where, MODEL, VERIFIER, seed=1)
    chosen = load(recipe, **parameters)
    stage = Stage(
        name="learn",
        recipe=RecipeChoice(kind=recipe),
        steps=steps,
        prompts_per_step=8,
        optimizer=Optimizer(learning_rate=3e-3),
        sampling=SamplingConfig(max_tokens=4),
    )
    ledger = FakeLedger()

    async def after(run: StageRun, state: RunState) -> None: ...

    by_id = {one.id: one for one in prompts}
    collector = Collector(parts.sampler, parts.scorer, prompts, by_id, book, seed=5)
    ports = Ports(collector, parts.learner, parts, ledger, NoEyes(), None, None, after, lambda run, state: False)
    await parts.learner.begin_stage(chosen.strands, stage.optimizer, steps)
    await parts.publish(0)
    await run_stage(StageRun(0, stage, chosen.strands, chosen.controls), ports, RunState())
    await parts.sampler.close()
    assert all(row["on_policy_share"] == row["share_learner"] for row in ledger.rows)
    if recipe == "luffy":
        shares = {int(o) for added in ledger.added.values() for one in added for o in one.trajectory.origin}
        assert shares == {Origin.LEARNER, Origin.DEMONSTRATION}
    return [float(row["reward_mean"]) for row in ledger.rows]


def first_above(rewards: list[float], level: float) -> int:
    """The first step from which three in a row are above `level`."""
    above = np.array(rewards) > level
    runs = [step for step in range(len(above) - 2) if above[step : step + 3].all()]
    return runs[0] if runs else len(rewards)


@pytest.fixture(scope="module")
def curves(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    folder = tmp_path_factory.mktemp("learning")
    alone = asyncio.run(learn(folder, "grpo", 40))
    helped = asyncio.run(learn(folder, "luffy", 40, rollouts=7, length=32))
    return {"grpo": alone, "luffy": helped}


def test_reward_rises_on_policy(curves: dict[str, list[float]]) -> None:
    rewards = curves["grpo"]
    assert np.mean(rewards[:3]) < 0.12, "a random policy seldom begins with a digit"
    assert np.mean(rewards[-10:]) > 0.2


def test_reward_rises_sooner_and_further_with_a_demonstration_in_each_group(curves: dict[str, list[float]]) -> None:
    assert np.mean(curves["luffy"][-5:]) > 0.8
    assert first_above(curves["luffy"], 0.3) < first_above(curves["grpo"], 0.3)
