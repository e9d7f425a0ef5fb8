"""Judges in whole runs: critiques that are revised after, pairs that are preferred, and a folder served by an actor."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from actors import cluster
from actors.config import Judge
from actors.judge_replica import JudgeReplica
from actors.scorer import ScorerReplica
from benchmarks.judge_server import Request, serving
from orchestrator.run import run
from policies.arrow import from_table
from policies.tokens import Tokenizer
from policies.trajectory import Trajectory
from tests.judge_cases import judge, quoted, verdict
from tests.recipe_runs import MODEL, write
from tests.test_every_recipe import rows
from tests.test_judge_replica import speaking_folder
from verifiers.config import JudgeVerifier

SECRET = "sk-very-secret-0123456789"
PRINCIPLES = {"kind": "constitution", "principles": ["use a digit", "be short"]}
TEMPLATE = "{{ prompt }} was answered {{ parent }} but {{ reason }}"


def pipeline(folder: Path, verifier: dict[str, Any], recipe: dict[str, Any]) -> Path:
    prompts = [{"prompt": f"{at}+1=", "reference": str(at + 1)} for at in range(8)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in prompts))
    content = {
        "name": "judged",
        "seed": 3,
        "model": MODEL,
        "prompts": {"train": {"kind": "jsonl", "path": str(folder / "prompts.jsonl")}},
        "verifier": verifier,
        "stages": [
            {
                "name": "only",
                "recipe": recipe,
                "steps": 2,
                "prompts_per_step": 2,
                "optimizer": {"learning_rate": 1e-3},
                "sampling": {"max_tokens": 8},
            }
        ],
    }
    return write(content, folder / "pipeline.yaml")


def trained(out: Path) -> list[Trajectory]:
    """What trained, from the ledger."""
    files = sorted((out / "ledger" / "trajectories").glob("*.parquet"))
    return [one for file in files for one in from_table(pq.read_table(file))]


def test_a_constitution_criticises_and_the_learner_revises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", SECRET)

    def answer(request: Request) -> str:
        return verdict(request, f"it was {len(quoted(request)['RESPONSE'])} long", met={"1": True, "2": False})

    out = tmp_path / "run"
    with serving(answer) as server:
        verifier = judge(server, PRINCIPLES, endpoint={"key_variable": "JUDGE_KEY"})
        recipe = {"kind": "constitutional_ai", "rollouts": 2, "revisions": 2, "template": TEMPLATE}
        assert run(pipeline(tmp_path, verifier, recipe), out, in_process=True) == 0, rows(out, "events")
        assert all(one.headers["authorization"] == f"Bearer {SECRET}" for one in server.requests)
    found = trained(out)
    revisions = [one for one in found if "/revisions-" in one.id]
    assert len(revisions) == 8
    tokenizer = Tokenizer.load(next((out / "checkpoints").glob("*/model")))
    for one in revisions:
        seen = tokenizer.decode(one.behavior_context)
        assert " was answered " in seen and " but it was " in seen and " long" in seen
        assert "answered" not in tokenizer.decode(one.train_context)
    everything = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert SECRET.encode() not in everything, "the key is in a file of the run"


def test_pairs_of_a_group_become_preferences(tmp_path: Path) -> None:
    def answer(request: Request) -> str:
        sides = quoted(request)
        a, b = (sides[f"RESPONSE {side}"].count("1") for side in "AB")
        return verdict(request, better="tie" if a == b else "A" if a > b else "B")

    out = tmp_path / "run"
    with serving(answer) as server:
        verifier = judge(server, {"kind": "pairwise", "against": "all"})
        path = pipeline(tmp_path, verifier, {"kind": "online_dpo", "rollouts": 6})
        assert run(path, out, in_process=True) == 0, rows(out, "events")
    for one in trained(out):
        named = {entry.name: entry for entry in one.scores}
        assert named["reward"].status == "ok" and 0 <= named["reward"].value <= 1
        assert named["position_bias"].value == 0
    by_id = {one.id: one for one in trained(out)}
    assert by_id, "some pair was preferred"


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_folder_is_asked_as_an_actor(tmp_path: Path) -> None:
    folder = str(speaking_folder(tmp_path))
    own = JudgeVerifier.model_validate(
        {"kind": "judge", "model": {"kind": "folder", "path": folder}, "form": {"kind": "rubric"}, "max_tokens": 8}
    )
    hold = cluster.start("judged", cpus=2)
    try:
        actor = hold.spawn(JudgeReplica, folder, Judge(threads=1, context=2048), role="judge", index=0)
        scorer = ScorerReplica(own, 120.0, {own.wanted()[0].name: hold.share(actor)})
        found = scorer.score([(str(at), "2+2?", text, "null") for at, text in enumerate(("4", "<|im_end|>5"))])
    finally:
        hold.stop()
    for entries in found:
        assert [(one.status, one.passed) for one in entries] == [("error", None)]
        assert "no verdict" in entries[0].reason or "declined" in entries[0].reason, entries[0].reason
