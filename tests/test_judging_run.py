"""Models that judge in whole runs: trained by Braid's own recipes, loaded as verifiers, served by an actor."""

import json
import math
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors import cluster
from actors.config import Judge
from actors.scalar_replica import ScalarReplica
from actors.scorer import ScorerReplica
from actors.served import Remote
from orchestrator.run import run
from policies.bad_input import BadInput
from tests.judging_models import Slow, asks, classifier_folder
from tests.recipe_runs import MODEL, teacher_folder, write
from tests.test_every_recipe import rows
from verifiers.config import RewardModelVerifier
from verifiers.grader import Item
from verifiers.score import Status
from verifiers.verifier import build


def answers(draw: random.Random, *, good: bool) -> str:
    """Good answers are made of low digits."""
    return "".join(draw.choice("01234" if good else "56789") for _ in range(draw.randint(2, 6)))


def trained(folder: Path, recipe: dict[str, Any], steps: int, **data: Any) -> Path:
    """The model that a run of the recipe leaves."""
    content = {
        "name": "judge",
        "seed": 3,
        "model": MODEL,
        "prompts": {"train": {"kind": "jsonl", "path": str(folder / "prompts.jsonl")}},
        "stages": [
            {
                "name": "only",
                "recipe": recipe,
                "steps": steps,
                "prompts_per_step": 1,
                "optimizer": {"learning_rate": 3e-3},
            }
        ],
        **data,
    }
    (folder / "prompts.jsonl").write_text(json.dumps({"prompt": "1+1=", "reference": "2"}) + "\n")
    out = folder / "run"
    assert run(write(content, folder / "pipeline.yaml"), out, in_process=True) == 0, rows(out, "events")
    return sorted((out / "checkpoints").iterdir())[-1] / "model"


def lines(path: Path, found: list[dict[str, Any]]) -> dict[str, str]:
    path.write_text("".join(json.dumps(one) + "\n" for one in found))
    return {"kind": "jsonl", "path": str(path)}


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on pairs by `reward_model_training`."""
    folder, draw = tmp_path_factory.mktemp("pairs"), random.Random(0)
    pairs = [
        {"prompt": f"{at % 10}+1=", "chosen": answers(draw, good=True), "rejected": answers(draw, good=False)}
        for at in range(200)
    ]
    recipe = {"kind": "reward_model_training", "pairs": 16}
    return trained(folder, recipe, 25, preferences=lines(folder / "pairs.jsonl", pairs))


def test_a_reward_model_that_braid_trained_ranks_what_it_has_not_seen(reward_model: Path):
    draw = random.Random(1)
    pairs = [(answers(draw, good=True), answers(draw, good=False)) for _ in range(40)]
    items = [Item("7+1=", text, None, str(at)) for at, pair in enumerate(pairs) for text in pair]
    for kind in ("reward_model", "preference_model"):
        found = build({"kind": kind, "path": str(reward_model)}).score_many(items)
        assert {one.status.value for one in found} == {"ok"}
        right = sum(good.value > bad.value for good, bad in zip(found[::2], found[1::2], strict=True))
        assert right >= 36, (kind, right)
    untrained = sorted(reward_model.parents[1].iterdir())[0] / "model"
    found = build({"kind": "reward_model", "path": str(untrained)}).score_many(items)
    assert sum(good.value > bad.value for good, bad in zip(found[::2], found[1::2], strict=True)) < 36


def test_a_process_reward_model_that_braid_trained_finds_the_bad_step(tmp_path: Path):
    draw = random.Random(0)
    made = []
    for at in range(200):
        labels = [draw.random() < 0.5 for _ in range(3)]
        steps = [answers(draw, good=label) for label in labels]
        made.append({"prompt": f"{at % 10}+1=", "completions": steps, "labels": labels})
    labels = {**lines(tmp_path / "steps.jsonl", made), "separator": ";"}
    folder = trained(tmp_path, {"kind": "prm_training", "rows": 16}, 30, labels=labels)
    draw = random.Random(1)
    wanted = [[draw.random() < 0.5 for _ in range(3)] for _ in range(30)]
    items = [Item("7+1=", ";".join(answers(draw, good=one) for one in steps), None) for steps in wanted]
    found = build({"kind": "prm", "path": str(folder), "separator": ";"}).score_many(items)
    said = [[span.value > 0.5 for span in score.spans] for score in found]
    right = sum(a == b for own, want in zip(said, wanted, strict=True) for a, b in zip(own, want, strict=True))
    assert right >= 80, f"{right} of 90 steps"
    assert all(score.value == pytest.approx(min(span.value for span in score.spans)) for score in found)


# ---------------------------------------------------------------- in a run


def grpo(folder: Path, verifier: dict[str, Any], **more: Any) -> dict[str, Any]:
    lines(folder / "prompts.jsonl", [{"prompt": f"{at}+1=", "reference": "2"} for at in range(8)])
    return {
        "name": "judged",
        "seed": 3,
        "model": MODEL,
        "prompts": {"train": {"kind": "jsonl", "path": str(folder / "prompts.jsonl")}},
        "verifier": verifier,
        "resources": {"rollout": {"engine": "torch"}, "learner": {"engine": "torch"}, "scorer": {"replicas": 2}},
        "stages": [
            {
                "name": "only",
                "recipe": {"kind": "grpo", "rollouts": 4},
                "steps": 2,
                "prompts_per_step": 2,
                "sampling": {"max_tokens": 8},
            }
        ],
        **more,
    }


def rewards(out: Path) -> list[Any]:
    import pyarrow.parquet as pq

    from policies.arrow import from_table

    files = sorted((out / "ledger" / "trajectories").glob("*.parquet"))
    return [one.scores for file in files for one in from_table(pq.read_table(file))]


@pytest.mark.parametrize(
    "how", [True, pytest.param(False, marks=[pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)])]
)
def test_a_policy_trains_on_a_reward_model_and_a_preference_model(how: bool, reward_model: Path, tmp_path: Path):
    verifier = {
        "kind": "rubric",
        "parts": [
            {"kind": "reward_model", "path": str(reward_model), "squash": True},
            {"kind": "preference_model", "path": str(reward_model)},
        ],
    }
    out = tmp_path / "run"
    assert run(write(grpo(tmp_path, verifier), tmp_path / "p.yaml"), out, in_process=how) == 0, rows(out, "events")
    found = rewards(out)
    assert len(found) == 16
    by_name = [{one.name: one for one in scores} for scores in found]
    assert {one.status for scores in by_name for one in scores.values()} == {"ok"}
    assert all(set(scores) == {"reward", "reward_model", "preference_model"} for scores in by_name)
    for scores in by_name:
        parts = [scores[name].value for name in ("reward_model", "preference_model")]
        assert scores["reward"].value == pytest.approx(sum(parts) / 2, abs=1e-6)
    assert sum(scores["preference_model"].value for scores in by_name) == pytest.approx(len(by_name) / 2, abs=1e-5)


def test_a_reward_model_judges_each_answer_of_an_episode(reward_model: Path, tmp_path: Path):
    verifier = {"kind": "reward_model", "path": str(reward_model), "squash": True, "threshold": 0.5}
    play = {"kind": "retry", "request": "9", "framing": "inline"}
    content = grpo(tmp_path, verifier, environment=play)
    out = tmp_path / "run"
    assert run(write(content, tmp_path / "p.yaml"), out, in_process=True) == 0, rows(out, "events")
    for scores in rewards(out):
        turns = [one for one in scores if one.name == "turn"]
        assert len(turns) == 2
        assert all(one.status == "ok" and 0 < one.value < 1 and one.passed == (one.value > 0.5) for one in turns)


def test_retry_refuses_a_verifier_that_compares(reward_model: Path, tmp_path: Path):
    from orchestrator.load import read

    verifier = {"kind": "preference_model", "path": str(reward_model)}
    with pytest.raises(BadInput, match="retry asks it for one at a time"):
        read(write(grpo(tmp_path, verifier, environment={"kind": "retry"}), tmp_path / "p.yaml"))


def test_folders_and_machines_that_do_not_fit_are_refused_before_the_start(tmp_path: Path):
    def told(verifier: dict[str, Any], **resources: Any) -> str:
        content = grpo(tmp_path, verifier)
        content["resources"] |= resources
        from orchestrator.load import read

        with pytest.raises(BadInput) as caught:
            read(write(content, tmp_path / "p.yaml"))
        return str(caught.value)

    teacher = teacher_folder(tmp_path)
    assert "verifier.path: no such folder" in told({"kind": "reward_model", "path": "nowhere"})
    parts = [{"kind": "answer"}, {"kind": "prm", "path": str(teacher)}]
    said = told({"kind": "rubric", "parts": parts})
    assert "verifier.parts[1].path: config.json: architectures: Qwen3ForCausalLM has no scalar head" in said
    assert "resources.judge.gpus: the verifier answer asks no model (got 1" in told(
        {"kind": "answer"}, judge={"gpus": 1}
    )
    model = {"kind": "reward_model", "path": str(classifier_folder(tmp_path / "reward"))}
    assert "resources.judge.gpus: a model with a scalar head uses one GPU" in told(model, judge={"gpus": 2})


# ---------------------------------------------------------------- an actor that dies


def eventually(ask: Callable[[], Any], wanted: str, seconds: float = 120.0) -> Any:
    """The first answer with this status; fails after `seconds`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = ask()
        if found.status == wanted:
            return found
        time.sleep(0.5)
    raise AssertionError(f"no {wanted} within {seconds} s: {found}")


@pytest.fixture(scope="module")
def hold() -> Iterator[cluster.Cluster]:
    started = cluster.start("judging", cpus=2)
    yield started
    started.stop()


def test_what_waited_too_long_in_a_queue_is_not_read(tmp_path: Path):
    replica = ScalarReplica(str(classifier_folder(tmp_path)), Judge(threads=1))
    asked = [asks("sun", "warm")]
    for ago, status in ((0.0, "ok"), (-5.0, "ok"), (100.0, "timeout")):
        (found,) = replica.read(asked, 60.0, time.time() - ago)
        assert found.status == status
    assert replica.read(asked, 60.0)[0].status == Status.OK


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_late_model_is_timeout_by_name(hold: cluster.Cluster):
    model = hold.spawn(Slow, role="judge", index=1)
    cluster.fetch(model.ready(), deadline=120, what="starting")
    remote = Remote(model)
    (late,) = replace(remote, grace=0.0).read([asks("sun", "warm")], 0.5)
    assert late.status == Status.TIMEOUT and "longer than 0.5 s on judging/judge-1" in late.reason
    assert remote.read([asks("sun", "warm")], 60.0)[0].status == Status.OK


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_model_that_dies_is_an_error_by_name_and_is_started_again_once(hold: cluster.Cluster, tmp_path: Path):
    folder = str(classifier_folder(tmp_path))
    model = hold.spawn(ScalarReplica, folder, Judge(threads=1), role="judge", index=0, restarts=1)
    verifier = RewardModelVerifier(path=folder)
    scorer = ScorerReplica(verifier, 60.0, {"reward:" + folder: hold.share(model)})
    local = build(verifier)

    def ask() -> Any:
        ((entry,),) = scorer.score([("t", "sun", "warm", "null")])
        return entry

    def kill() -> None:
        reference = model.handle.__ray_call__.remote(lambda _: os.getpid())
        os.kill(cluster.fetch(reference, deadline=60, what="its process"), signal.SIGKILL)

    first = ask()
    assert first.value == pytest.approx(local.score("sun", "warm", None).value, rel=1e-4)
    assert (first.scorer, first.scorer_version) == local.identity == scorer.identity()
    kill()
    broken = eventually(ask, "error")
    assert broken.reason.startswith("judging/judge-0 died") and math.isnan(broken.value) and broken.passed is None
    assert eventually(ask, "ok").value == first.value
    kill()
    eventually(ask, "error")
    time.sleep(2)
    assert ask().status == "error", "it is not started a third time"
