"""`braid diagnose`, `probe` and `eval` on a small model that was taught three families of sums, two of them wrongly."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.held_apart import held_apart
from orchestrator.load import read
from orchestrator.run import run
from orchestrator.subject import Asked, subject
from policies.bad_input import BadInput
from tests.recipe_runs import teacher_folder, write

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
VERIFIER = '{kind: answer, marker: ""}'
RESOURCES = {"rollout": {"engine": "torch"}, "learner": {"engine": "torch"}, "frozen": {"engine": "torch"}}


def tasks() -> list[dict[str, Any]]:
    """Ten prompts a family, with what the model is `taught` and what is right."""
    found = []
    for a in range(10):
        sums = [("right", f"{a}+1=", WORDS[a + 1], WORDS[a + 1])]
        # one letter is wrong, and what follows it is as it should be
        sums += [("one-token", f"{a}+0=", f"x{WORDS[a][1:]}", WORDS[a])]
        # the good answer is of another kind altogether
        sums += [("another-way", f"{a}-0=", f"{a}", f"it is {WORDS[a]}; so")]
        found += [{"family": f, "prompt": p, "taught": t, "reference": r} for f, p, t, r in sums]
    return found


@dataclass(frozen=True, slots=True)
class Taught:
    """A folder with the data, and a run that taught the model."""

    folder: Path
    model: Path

    def file(self, name: str) -> str:
        return str(self.folder / name)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Taught]:
    folder = tmp_path_factory.mktemp("taught")
    rows = tasks()
    files: Mapping[str, list[dict[str, Any]]] = {
        "tasks": [{key: row[key] for key in ("prompt", "reference", "family")} for row in rows],
        "right": [{key: row[key] for key in ("prompt", "reference")} for row in rows if row["family"] == "right"],
        "taught": [{"prompt": row["prompt"], "response": row["taught"]} for row in rows],
        "worked": [{"prompt": row["prompt"], "response": row["reference"]} for row in rows],
        "probe": [{"prompt": f"{a}1+1=", "reference": WORDS[a + 1], "family": "right"} for a in range(6)],
    }
    for name, own in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    stage = {"name": "teach", "recipe": {"kind": "sft"}, "steps": 110, "prompts_per_step": 30}
    content = {
        "name": "taught",
        "seed": 4,
        "model": {"kind": "tiny", "preset": "arithmetic-small", "context": 64},
        "prompts": {
            name: {"kind": "jsonl", "path": f"{file}.jsonl"} for name, file in (("train", "tasks"), ("probe", "probe"))
        },
        "demonstrations": {"kind": "jsonl", "path": "taught.jsonl"},
        "verifier": {"kind": "answer", "marker": ""},
        "resources": RESOURCES,
        "stages": [{**stage, "optimizer": {"learning_rate": 4e-3}, "sampling": {"max_tokens": 16}}],
        "handoff": {"probe_samples": 8},
    }
    assert run(write(content, folder / "taught.yaml"), folder / "run", in_process=True) == 0
    yield Taught(folder, folder / "run" / "checkpoints" / "step-000110" / "model")


def braid(*words: str) -> tuple[int, str]:
    """Exit code and stdout; bad input is raised."""
    done = CliRunner().invoke(app, words)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def options(taught: Taught, prompts: str = "tasks.jsonl") -> list[str]:
    return [
        str(taught.model),
        "--prompts",
        taught.file(prompts),
        "--verifier",
        VERIFIER,
        "--max-tokens",
        "16",
        "--in-process",
    ]


def test_what_was_planted_in_a_model_is_diagnosed_and_the_recommended_pipeline_runs(
    taught: Taught, tmp_path: Path
) -> None:
    out = tmp_path / "next.yaml"
    given = ["--demonstrations", taught.file("worked.jsonl"), "--samples", "48", "--out", str(out), "--json"]
    code, said = braid("diagnose", *options(taught), *given)
    found = json.loads(said)
    expected = {"right": "mastered", "one-token": "unavailable_action", "another-way": "unreached_prefix"}
    named = [(expected[one["family"]], one["likeliest"]) for one in found["prompts"]]
    assert code == 0 and sum(truth == told for truth, told in named) >= 28, named
    for one in found["crucial"]:
        assert one["tokens"][0]["position"] == 0, "the first letter is the one that the model was taught wrong"
    assert found["classes"]["mastered"]["share"]["low"] < 1 / 3 < found["classes"]["mastered"]["share"]["high"]
    assert found["bottleneck"] == "undecided", "two hold it back alike"
    pipeline = read(out)
    assert pipeline.stages[0].recipe.kind == "bottleneck" and Path(pipeline.model.path) == taught.model  # type: ignore[union-attr]
    short = [
        "stages.route.steps=2",
        "stages.route.prompts_per_step=4",
        *(f"resources.{name}.engine=torch" for name in RESOURCES),
    ]
    assert run(out, tmp_path / "next", [*short, "handoff.probe_samples=4"], in_process=True) == 0


def test_the_table_says_what_to_run_and_nothing_is_recommended_where_all_is_mastered(
    taught: Taught, tmp_path: Path
) -> None:
    given = ["--demonstrations", taught.file("worked.jsonl"), "--samples", "24", "--out", str(tmp_path / "a.yaml")]
    _, said = braid("diagnose", *options(taught), *given, "--set", "handoff.confidence=0.9")
    assert "unavailable action" in said and "crucial tokens:" in said and "token 1 of" in said
    assert f"braid run {tmp_path / 'a.yaml'}" in said.replace("\n", "")
    _, said = braid("diagnose", *options(taught, "right.jsonl"), "--samples", "64", "--out", str(tmp_path / "b.yaml"))
    assert "bottleneck: none" in said and "harder prompts" in said and list(tmp_path.glob("b*")) == []


def test_a_runs_checkpoints_are_measured_again_without_touching_the_run(taught: Taught, tmp_path: Path) -> None:
    home = taught.folder / "run"
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    _, said = braid("eval", str(home), "--prompts", taught.file("tasks.jsonl"), "--in-process", "--json")
    lines = {one["family"]: one for one in json.loads(said)["families"]}
    assert lines["all"]["prompts"] == 30 and lines["right"]["greedy"]["value"] >= 0.9
    assert lines["one-token"]["sampled"]["high"] < 0.5 and lines["another-way"]["sampled"]["value"] == 0
    out = tmp_path / "probe.parquet"
    _, said = braid("probe", str(home), "--step", "0", "--samples", "8", "--out", str(out), "--in-process", "--json")
    found = json.loads(said)
    assert found["step"] == 0 and found["completion"]["pass_at_k"][0]["after"]["value"] == 0
    assert pq.read_table(out).num_rows == 6 * 9, "a greedy response and eight for each held-out prompt"
    _, said = braid("probe", str(home), "--samples", "8", "--in-process")
    assert "pass@1" in said and "good trajectories" in said
    _, said = braid(
        "diagnose", str(home), "--samples", "16", "--out", str(tmp_path / "c.yaml"), "--in-process", "--json"
    )
    assert {one["id"] for one in json.loads(said)["prompts"]} == {f"probe-{at}" for at in range(6)}
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before


def test_a_file_of_prompts_is_held_apart_with_its_demonstrations(taught: Taught, tmp_path: Path) -> None:
    asked = Asked(
        taught.model,
        Path(taught.file("tasks.jsonl")),
        demonstrations=Path(taught.file("worked.jsonl")),
        verifier=VERIFIER,
        max_tokens=16,
    )
    found = held_apart(subject(asked), tmp_path / "x.yaml")
    rows = {
        name: [json.loads(line) for line in (tmp_path / f"x.{name}.jsonl").read_text().splitlines()]
        for name in ("train", "probe", "demonstrations")
    }
    asked_for = {row["prompt"]: row for row in (*rows["train"], *rows["probe"])}
    assert len(asked_for) == 30 and found.count == len(rows["train"]) and rows["probe"]
    assert {row["prompt"]: row["reference"] for row in asked_for.values()} == {
        row["prompt"]: row["reference"] for row in tasks()
    }
    assert sorted(row["prompt"] for row in rows["demonstrations"]) == sorted(row["prompt"] for row in rows["train"])
    one = tmp_path / "one.jsonl"
    one.write_text('{"prompt": "1+1=", "reference": "two"}\n' * 1)
    alone = held_apart(subject(Asked(taught.model, one, verifier=VERIFIER, max_tokens=16)), tmp_path / "y.yaml")
    assert alone.probe is None and alone.count == 1


MISTAKES: dict[str, tuple[list[str], str]] = {
    "no model": (["diagnose", "nowhere"], "MODEL: no such folder (got 'nowhere')"),
    "no prompts": (["eval", "{model}"], "--prompts: a model folder has no prompts of its own"),
    "no file": (["probe", "{model}", "--prompts", "nowhere.jsonl"], "--prompts: no such file (got 'nowhere.jsonl')"),
    "no step": (["eval", "{model}", "--step", "3"], "--step: a model folder has no steps (got 3)"),
    "no checkpoint": (["eval", "{run}", "--step", "3"], "has no checkpoint of that step (got 3); it has 0, "),
    "no tokenizer": (["eval", "{empty}", "--prompts", "{tasks}"], "MODEL: "),
    "no verifier": (
        ["eval", "{model}", "--prompts", "{tasks}", "--verifier", "mth"],
        "--verifier: unknown kind (got 'mth')",
    ),
    "not YAML": (["eval", "{model}", "--prompts", "{tasks}", "--verifier", "{kind: a"], "--verifier: (got '{kind: a')"),
    "a list": (["eval", "{model}", "--prompts", "{tasks}", "--verifier", "[a]"], "neither a kind nor a mapping"),
    "a key": (
        ["eval", "{model}", "--prompts", "{tasks}", "--verifier", "{kind: math, marke: a}"],
        "--verifier: marke: unknown key",
    ),
    "no references": (
        ["eval", "{model}", "--prompts", "{bare}", "--set", "prompts.train.reference=null"],
        "math compares with a reference",
    ),
    "too long": (["eval", "{model}", "--prompts", "{long}", "--max-tokens", "16"], "lower --max-tokens"),
    "other answers": (
        ["probe", "{model}", "--prompts", "{tasks}", "--demonstrations", "{bare}"],
        "no column 'response'",
    ),
    "strangers": (
        ["probe", "{model}", "--prompts", "{tasks}", "--demonstrations", "{strange}"],
        "no row answers any of the prompts",
    ),
    "a teacher": (
        ["diagnose", "{model}", "--prompts", "{tasks}", "--teacher", "{empty}"],
        "--teacher: holds no tokenizer.json",
    ),
    "it exists": (
        ["diagnose", "{model}", "--prompts", "{tasks}", "--out", "{beside}"],
        "x.train.jsonl' exists and is not overwritten",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_its_option_and_its_fix(mistake: str, taught: Taught, tmp_path: Path) -> None:
    words, told = MISTAKES[mistake]
    (tmp_path / "empty").mkdir()
    files = {
        "bare": {"prompt": "1+1="},
        "long": {"prompt": "1" * 60, "reference": "1"},
        "strange": {"prompt": "7+7=", "response": "14"},
        "x.train": {"prompt": "somebody's data"},
    }
    for name, row in files.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    places = {
        "model": taught.model,
        "run": taught.folder / "run",
        "tasks": taught.file("tasks.jsonl"),
        "empty": tmp_path / "empty",
        "beside": tmp_path / "x.yaml",
        **{name: tmp_path / f"{name}.jsonl" for name in files},
    }
    filled = [str(places.get(word[1:-1], word)) if word.startswith("{") else word for word in words]
    with pytest.raises(BadInput) as error:
        braid(*filled)
    assert any(told in line for line in error.value.lines), error.value.lines


def test_a_verifier_that_says_nothing_measures_nothing(taught: Taught) -> None:
    silent = '{kind: format, pattern: "(a|aa)+$", timeout: 1e-9}'
    words = [str(taught.model), "--prompts", taught.file("right.jsonl"), "--verifier", silent]
    with pytest.raises(BadInput, match="gave no verdict on any of"):
        braid("eval", *words, "--max-tokens", "8", "--samples", "1", "--in-process")


def test_a_teacher_with_another_tokenizer_is_refused(taught: Taught, tmp_path: Path) -> None:
    other = teacher_folder(tmp_path)
    content = json.loads((other / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["0"], vocabulary["1"] = vocabulary["1"], vocabulary["0"]
    (other / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(BadInput, match="--teacher: has another tokenizer than MODEL"):
        braid("diagnose", *options(taught), "--teacher", str(other))


@pytest.mark.slow
@pytest.mark.ray
def test_engines_in_actors_of_their_own_say_the_same(taught: Taught, tmp_path: Path) -> None:
    """Ray and vLLM: other engines, the same model."""
    given = ["--demonstrations", taught.file("worked.jsonl"), "--samples", "32", "--json"]
    words = [one for one in options(taught) if one != "--in-process"]
    found = {}
    for name, more in (("ray", []), ("here", ["--in-process"])):
        _, said = braid("diagnose", *words, *more, *given, "--out", str(tmp_path / f"{name}.yaml"))
        found[name] = {one["id"]: one for one in json.loads(said)["prompts"]}
        assert read(tmp_path / f"{name}.yaml").stages
    alike = [found["ray"][at]["likeliest"] == found["here"][at]["likeliest"] for at in found["here"]]
    assert sum(alike) >= 28
    for at, one in found["here"].items():
        assert found["ray"][at]["reach"] == pytest.approx(one["reach"], rel=0.02, abs=1e-6)
