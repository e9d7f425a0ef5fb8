"""`braid label`: rows of step labels from a run's ledger or by completions, that a process model trains on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.labelling import label, responses
from orchestrator.run import run
from orchestrator.run_directory import RunDirectory
from policies.bad_input import BadInput
from policies.config import TinyModel
from policies.model_folder import materialise
from policies.tokens import Tokenizer
from policies.trajectory import Trajectory
from teachers.config import Labels
from teachers.given import Reading
from teachers.labels import load
from tests.recipe_runs import MODEL, pipeline, teacher_folder, write, write_data

OUTCOME = {"kind": "format", "pattern": r"(?s).*[13].*"}
LABELS = {"completions": 4, "steps": {"separator": "4"}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    teacher_folder(folder)
    for name, more in (("math_shepherd", {"step_labels": LABELS}), ("grpo", {}), ("sft", {})):
        content = pipeline(name, folder, folder / "teacher", sampling={"max_tokens": 24}, steps=2)
        assert (
            run(write(content | {"verifier": OUTCOME} | more, folder / f"{name}.yaml"), folder / name, in_process=True)
            == 0
        )
    yield folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(materialise(TinyModel(**MODEL), tmp_path_factory.mktemp("model")))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def sampled(folder: Path) -> dict[str, Trajectory]:
    return {one.id: one for one in responses(RunDirectory.open(folder))}


def check_rows(found: list[dict[str, Any]], known: dict[str, Trajectory], tokenizer: Tokenizer) -> None:
    """Each row is a response of the run, step by step, with labels that are shares of completions."""
    assert found
    for row in found:
        one = known[row["response"]]
        joined = "4".join(row["completions"])
        assert one.text in (joined, f"{joined}4"), "a step is written without the separator that ends it"
        assert one.text == tokenizer.decode(one.tokens)
        assert all(0 <= value <= 1 for value in row["labels"]) and len(row["labels"]) == len(row["completions"])
    assert any(0 < value < 1 for row in found for value in row["labels"]), "some label is a share"


def test_the_ledgers_labels_are_written_without_a_model(data: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    done = label(data / "math_shepherd", tmp_path / "labels.jsonl")
    known, found = sampled(data / "math_shepherd"), rows(tmp_path / "labels.jsonl")
    assert (done.rows, done.completions, done.separator) == (len(found), 0, "4")
    assert done.rows + done.left_out == len(known)
    check_rows(found, known, tokenizer)
    for row in found:
        values = [entry.value for entry in known[row["response"]].scores if entry.name == "step"]
        assert row["labels"] == values


def test_a_run_without_labels_is_completed_by_its_checkpoint(data: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    sets = ("step_labels.completions=3", "step_labels.steps.separator='4'")
    done = label(data / "grpo", tmp_path / "one.jsonl", sets, limit=12, in_process=True)
    assert done.rows + done.left_out == 12 and done.completions and done.tokens >= done.completions
    check_rows(rows(tmp_path / "one.jsonl"), sampled(data / "grpo"), tokenizer)
    again = label(data / "grpo", tmp_path / "two.jsonl", sets, limit=12, in_process=True)
    assert again == done and rows(tmp_path / "one.jsonl") == rows(tmp_path / "two.jsonl")


def test_what_is_written_is_read_at_the_steps_ends_and_trains(data: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    label(data / "math_shepherd", tmp_path / "labels.jsonl")
    config = Labels(kind="jsonl", path="labels.jsonl", separator="4")
    read = load(config, Reading(tokenizer, tmp_path, 512))
    known, plain = sampled(data / "math_shepherd"), 0
    for row, one in zip(rows(tmp_path / "labels.jsonl"), read.flat, strict=True):
        assert [score.value for score in one.scores] == row["labels"]
        own_one = known[row["response"]]
        own = [entry for entry in own_one.scores if entry.name == "step"]
        if set(own_one.tokens[:-1].tolist()).isdisjoint((tokenizer.pad_id, tokenizer.eos_id)):
            plain += 1
            for ours, theirs in list(zip(one.scores, own, strict=True))[:-1]:
                assert (ours.start, ours.end) == (theirs.start, theirs.end), "characters are tokens here"
        assert one.train_context.tolist() == own_one.train_context.tolist()
    assert plain, "some response has no special token within"
    content = pipeline("prm_training", data, data / "teacher", steps=1)
    content["labels"] = {"kind": "jsonl", "path": str(tmp_path / "labels.jsonl"), "separator": "4"}
    assert run(write(content, tmp_path / "prm.yaml"), tmp_path / "prm", in_process=True) == 0
    (step,) = [row for row in rows(tmp_path / "prm/ledger/metrics.jsonl") if row["kind"] == "step"]
    assert step["tokens_trained"] and step["loss"] > 0
    judged = pipeline("math_shepherd", data, data / "teacher", steps=1)
    (folder,) = (tmp_path / "prm" / "checkpoints").glob("step-*1/model")
    judged["verifier"] = {"kind": "prm", "path": str(folder), "separator": "4"}
    assert run(write(judged, tmp_path / "judged.yaml"), tmp_path / "judged", in_process=True) == 0
    for one in responses(RunDirectory.open(tmp_path / "judged")):
        scores = [entry.value for entry in one.scores if entry.name == "step"]
        assert scores and all(0 < value < 1 for value in scores), "the process model judges the steps of new responses"


def test_responses_of_a_file_are_judged_and_completed(data: Path, tmp_path: Path) -> None:
    prompts = [row["prompt"] for row in rows(data / "prompts.jsonl")[:3]]
    written = [{"prompt": prompt, "completion": text} for prompt in prompts for text in ("24;54;1", "0", "54;2")]
    (tmp_path / "given.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in written))
    sets = ("step_labels.completions=5", "step_labels.steps.separator='4'")
    out = tmp_path / "labels.jsonl"
    done = label(data / "sft", out, sets, file=tmp_path / "given.jsonl", in_process=True)
    assert (done.rows, done.left_out, done.completions) == (9, 0, 3 * 3 * 5), "ends of two steps, and of one"
    found = rows(out)
    assert {(row["prompt"], "4".join(row["completions"])) for row in found} == {
        (row["prompt"], row["completion"]) for row in written
    }
    last = {"24;54;1": 1.0, "0": 0.0, "54;2": 0.0}
    assert all(row["labels"][-1] == last["4".join(row["completions"])] for row in found)
    shares = {value for row in found for value in row["labels"][:-1]}
    assert shares <= {0.0, 0.2, 0.4, 0.6, 0.8, 1.0} and len(shares) > 1
    (tmp_path / "strange.jsonl").write_text(json.dumps({"prompt": "7+7+7=", "completion": "1"}))
    with pytest.raises(BadInput):
        label(data / "sft", tmp_path / "no.jsonl", file=tmp_path / "strange.jsonl", in_process=True)


def test_the_command_says_how_to_read_the_file(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"
    done = CliRunner().invoke(app, ["label", str(data / "math_shepherd"), "--out", str(out), "--limit", "3"])
    assert done.exit_code == 0, done.output
    assert f'labels: {{kind: jsonl, path: {out}, separator: "4"}}' in done.output
    assert len(rows(out)) <= 3


@pytest.mark.parametrize(
    ("name", "out", "expected"),
    [
        ("sft", "new.jsonl", "holds no response that a policy sampled"),
        ("grpo", "here.jsonl", "exists and is not overwritten"),
        ("nowhere", "new.jsonl", "no such directory"),
    ],
)
def test_what_cannot_be_labelled_is_refused(data: Path, tmp_path: Path, name: str, out: str, expected: str) -> None:
    (tmp_path / "here.jsonl").touch()
    with pytest.raises(BadInput) as caught:
        label(data / name, tmp_path / out)
    assert expected in caught.value.lines[0]
    assert not (tmp_path / "new.jsonl").exists()
