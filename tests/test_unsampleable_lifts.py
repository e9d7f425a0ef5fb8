"""Where the policy never samples a right answer, GRPO alone stays where it is, and whatever brings in help moves it.

All on the real loop in one process, and read from the ledger. Every method has the same steps, rate, warm-up and
prompts a step (tests/unsampleable.py says where not, and why).
"""

import math
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.unsampleable import (
    HELD_OUT,
    PROMPTS,
    STEPS,
    TRAINED,
    at_least,
    finished,
    log_probability,
    probes,
    prompt_of,
    right,
    rows,
    start_model,
    steps,
)

QUICK = ("luffy", "relift", "hpt", "chord")
SLOW = ("srft", "uft", "sage", "scaf_grpo")


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


def test_the_start_model_knows_each_character_and_never_writes_the_answer(session: Path) -> None:
    finished(session, "grpo")
    model = start_model(session / "unsampleable")
    for number in (*TRAINED[::7], *HELD_OUT[::5]):
        whole = math.exp(log_probability(model, prompt_of(number), right(number)))
        assert 1e-8 < whole < 1e-5, "about one in a million: no wall, and out of a run's reach"


def test_grpo_alone_meets_no_reward_and_does_not_move(session: Path) -> None:
    out = finished(session, "grpo")
    told = steps(out)
    sampled = sum(one["funnel"]["written"] for one in told)
    assert sampled == STEPS * PROMPTS * 8
    # What it would have had to meet: at 1e-5 a response, a hit in 1280 has a probability of 1.3 %.
    assert all(one["accuracy"] == 0.0 and one["gradient_norm"] == 0.0 for one in told)
    assert [(one["greedy_accuracy"], one["sampled_accuracy"]) for one in probes(out)] == [(0.0, 0.0)] * 2
    first, last = (load_file(out / f"checkpoints/step-{at:06d}/model/model.safetensors") for at in (0, STEPS))
    assert all((first[name] == last[name]).all() for name in first), "no group holds a difference to learn from"


@pytest.mark.parametrize("method", [*QUICK, *(pytest.param(one, marks=pytest.mark.slow) for one in SLOW)])
def test_help_lifts_it(method: str, session: Path) -> None:
    """On held-out prompts. Sampled responses are independent given the weights: Wilson's bound holds at 99.9 %."""
    out = finished(session, method)
    before, after = probes(out)
    assert before["sampled_accuracy"] == before["greedy_accuracy"] == 0.0
    passed = round(after["sampled_accuracy"] * after["n_sampled"])
    assert at_least(passed, after["n_sampled"]) > 0.2, after
    assert after["greedy_accuracy"] > 0.5
    assert {one["stage"] for one in rows(out, "decisions")} == {"only"}
