"""The plan says what a stage's controls will do: which steps, which coefficients, whose prompts, who supplies reach."""

import io

import pytest
from rich.console import Console

from orchestrator.config import Pipeline, Stage
from orchestrator.controls import Moment, decide, initial
from orchestrator.controls.config import (
    Alternate,
    Anneal,
    Bernoulli,
    Buffer,
    Constant,
    Freeze,
    Gate,
    Ladder,
    Mixture,
    Prefix,
    Scaffold,
    StartWhen,
    ZeroVariance,
)
from orchestrator.controls.prompt_config import Bottleneck, Curriculum, Shares
from orchestrator.load import resolve
from orchestrator.plan import plan
from orchestrator.plan_text import show
from orchestrator.schedule_text import say_schedule


def said(control, steps=300, prompts=8, tried=8):
    stage = Stage(name="x", recipe={"kind": "grpo"}, steps=steps, prompts_per_step=prompts)
    return say_schedule(control, stage, tried)


@pytest.mark.parametrize(
    ("control", "words"),
    [
        (Constant(strand="r", coefficient=0.5), "r at 0.5 in every step"),
        (Constant(strand="r", coefficient=0), "r at 0 in every step: it rests"),
        (
            Mixture(strand="d", against="r", warmup=10, decay=200),
            "d at μ, r at 1 - μ: steps 0-9: μ 0 -> 0.9 (linear); steps 10-209: μ 0.9 -> 0.05 (cosine); "
            "from step 210 on μ 0.05",
        ),
        (
            Mixture(strand="d", against="r", decay=400),
            "d at μ, r at 1 - μ: steps 0-399: μ 0.9 -> 0.05 (cosine, cut short by the stage's end at step 300)",
        ),
        (Bernoulli(strand="r", against="d", probability=0.25), "each step is for r with probability 0.25, else for d"),
        (
            Alternate(strand="d", against="r", steps=2),
            "2 d : 1 r, over and over; of 300 steps 200 and 100",
        ),
        (Anneal(strand="e"), "e: steps 0-99: 1 -> 0 (linear); from step 100 on 0: it rests"),
        (Shares(shares={"r": 0.75, "d": 0.25}), "of a step's 8 prompts 6 to r, 2 to d, on average"),
        (
            Curriculum(watch="r"),
            "8 of 32 candidates in each step: 2 least looked at, then those that r solves at 0.2 to 0.8",
        ),
        (Gate(strand="r", otherwise="d"), "by prompt: d where at most 0 responses of r passed, else r"),
        (
            Buffer(watch="r", strand="d", size=17),
            "a prompt waits if at most 0 responses of r passed; 17 make a step of d alone, step 3 at the earliest",
        ),
        (ZeroVariance(), "groups whose rewards are all equal: kept"),
        (ZeroVariance(action="drop"), "groups whose rewards are all equal: dropped"),
        (
            ZeroVariance(action="redraw"),
            "groups whose rewards are all equal: another prompt in their place, up to 3 times",
        ),
        (
            Ladder(strand="r", levels=4, full=True),
            "a group of r that all failed is drawn again with 0.25, 0.5, 0.75, 1 of the demonstration, "
            "until one passes",
        ),
        (
            Prefix(strand="r", over=100),
            "r starts from a share of the demonstration: steps 0-99: 0.95 -> 0.05 (cosine); from step 100 on nothing",
        ),
        (Prefix(strand="r", schedule="fixed"), "r starts from 4 of 5 parts of the demonstration"),
        (Prefix(strand="r", schedule="bisect"), "r starts from 0 to 4 of 5 parts of the demonstration, by prompt"),
        (
            Scaffold(strand="r"),
            "r is shown fewer of the rubric's criteria from step to step: half of them at step 60",
        ),
        (
            StartWhen(strand="p"),
            "p rests until accuracy of the last step is 0.35 or more, so in step 0 at least",
        ),
        (
            Freeze(strand="d"),
            "in steps of d alone the 0.5 of the parameters that the other steps moved most stay as they are",
        ),
    ],
    ids=lambda one: getattr(one, "kind", ""),
)
def test_a_control_says_what_it_will_do(control, words):
    assert said(control) == words


@pytest.mark.parametrize("steps", [1, 7, 300, 301])
def test_turns_are_counted_as_they_fall(steps):
    control = Alternate(strand="d", against="r", steps=3, against_steps=2)
    fallen = [decide(control, initial(control), Moment(at, steps, {}, 0)).coefficients for at in range(steps)]
    ours = sum("r" in one for one in fallen)
    assert said(control, steps).endswith(f"of {steps} steps {ours} and {steps - ours}")


def test_the_bottleneck_says_what_becomes_of_each_class():
    lines = said(Bottleneck(reinforce="r", imports="d", replay="p")).splitlines()
    assert lines[0].startswith("the first 8 that do not rest of 32 candidates")
    assert "unreached (solve rate below 0.1 and reach below 0.1): d, r as well after 3 imports" in lines
    assert "mastered (above 0.9): rests, r after 20 steps" in lines
    assert "lost (mastered once, below 0.5): p and r" in lines
    blind = said(Bottleneck(reinforce="r", imports="d", reach=0, distil="p"))
    assert "unreached (solve rate below 0.1): d" in blind
    assert "p where the step has room" in blind
    assert "lost (mastered once, below 0.5): d and r" in blind


# ---------------------------------------------------------------- in the plan


def made(tmp_path, **choice):
    stage = {"name": "only", "recipe": choice, "steps": 30, "prompts_per_step": 16}
    return plan(resolve(Pipeline.model_validate({"name": "x", "stages": [stage]}), tmp_path))


def shown(tmp_path, **choice):
    drawn = io.StringIO()
    show(made(tmp_path, **choice), Console(file=drawn, width=1000))
    return drawn.getvalue()


def test_reach_is_the_learner_s_where_it_is_asked_for(tmp_path):
    (stage,) = made(tmp_path, kind="bottleneck").stages
    views = {view.name: view for view in stage.views}
    assert views["reach"].supplier == "learner"
    assert "one pass without gradient" in views["reach"].note
    assert {"rewards", "demonstrations", "replay"} <= set(views)
    (blind,) = made(tmp_path, kind="bottleneck", reach=0.0).stages
    assert "reach" not in {view.name for view in blind.views}


def test_shared_prompts_are_counted_once(tmp_path):
    """12 prompts of 8 rollouts and 4 of one demonstration."""
    (stage,) = made(tmp_path, kind="mix").stages
    assert stage.trajectories == 100
    assert stage.shares == pytest.approx({"rollout": 0.96, "demonstration": 0.04})
    assert "30 of 100 trajectories" in shown(tmp_path, kind="mix")


def test_the_plan_shows_the_schedule(tmp_path):
    text = shown(tmp_path, kind="alternate", sft_steps=2)
    assert "2 demonstrations : 1 rollouts, over and over; of 30 steps 20 and 10" in text
    assert "30 of at most 144 trajectories" in text
    assert "at most" not in shown(tmp_path, kind="luffy")
