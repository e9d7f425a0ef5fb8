"""docs/replay.md: its source loads, its table has every key, its questions get the answers that the records give."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from orchestrator.ledger import RunLedger
from orchestrator.query import ask
from orchestrator.run_directory import RunDirectory
from policies.config import Past, Source
from policies.example import Example
from policies.trajectory import Origin, Producer, ScoreEntry, Trajectory, reward
from tests.fakes import trajectory

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "replay.md").read_text()
QUESTIONS = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
STRANDS = ("own", "taught", "again")


def rows(step: int) -> list[tuple[int, Trajectory]]:
    """A step's (strand, trajectory): two rollouts, one of them without a verdict, a teacher's, a replayed one."""
    prompt = {"prompt_id": f"p{step % 2}"}
    good = (ScoreEntry("length", 0.9), ScoreEntry("reward", step / 4, step >= 2))
    lost = (ScoreEntry("reward", float("nan"), None, "timeout"),)
    given = {"origin_of": Origin.TEACHER, "producer": Producer.TEACHER}
    logps = np.full(4, -step, np.float32)
    found = [
        (0, trajectory(f"s{step}/0", version=step - 1, scores=good, behavior_logps=logps, **prompt)),
        (0, trajectory(f"s{step}/1", version=step - 1, scores=lost, **prompt)),
        (1, trajectory(f"s{step}/t", 3, train_mask=np.array([True, False, True]), reward=0.25, **given, **prompt)),
    ]
    if step > 2:
        parent = {"parent_id": f"s{step - 2}/0", "producer": Producer.REPLAY, "version": step - 3}
        found.append((2, trajectory(f"s{step}/r", reward=0.0, **parent, **prompt)))
    return found


EVERY = [(step, strand, one) for step in range(1, 5) for strand, one in rows(step)]


def by_prompt() -> list[tuple[Any, ...]]:
    return sorted((step, x.id, STRANDS[at], x.producer, x.version) for step, at, x in EVERY if x.prompt_id == "p1")


def by_score() -> list[tuple[Any, ...]]:
    return [(x.id, step, reward(x)) for step, _, x in EVERY if reward(x) >= 0.5]


def by_version() -> list[tuple[Any, ...]]:
    own = sorted((x.version, x.id) for _, _, x in EVERY if x.version >= 1)
    return [(name, version, 3 - version) for version, name in own]


def by_origin() -> list[tuple[Any, ...]]:
    return [("again", 0, 8), ("own", 0, 32), ("taught", 2, 8)]


def by_age() -> list[tuple[Any, ...]]:
    return sorted(
        ((x.id, 4 - step) for step, _, x in EVERY if step >= 3 and x.producer is not Producer.REPLAY),
        key=lambda one: (one[1], one[0]),
    )


def by_return() -> list[tuple[Any, ...]]:
    return [("s3/r", 3, "s1/0", 1, -1.0), ("s4/r", 4, "s2/0", 2, -2.0)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = RunDirectory.create(tmp_path_factory.mktemp("ledger") / "run", "name: x\n", {})
    with RunLedger(directory, {"a": STRANDS}) as ledger:
        for step in range(1, 5):
            examples = [Example(one, at, np.zeros(len(one.tokens), np.float32)) for at, one in rows(step)]
            ledger.add(step, examples, "a")
    return directory.root


ANSWERS = (by_prompt, by_score, by_version, by_origin, by_age, by_return)


@pytest.mark.parametrize("at", range(len(ANSWERS)), ids=[one.__name__ for one in ANSWERS])
def test_a_question_of_the_page_gets_the_records_answer(run: Path, at: int) -> None:
    expected = ANSWERS[at]()
    assert expected and list(ask(run, QUESTIONS[at]).rows) == expected


def test_the_page_has_a_question_for_each_answer_and_a_row_for_each_key() -> None:
    assert len(QUESTIONS) == len(ANSWERS)
    told = re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")))
    assert sorted(told) == sorted(Past.model_fields)
    assert "rollout, revision |" in PAGE and Past().producers == ("rollout", "revision")


def test_the_source_of_the_page_loads() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    source = Source.model_validate(yaml.safe_load(block)["source"])
    assert source.past == Past(producers=("rollout", "teacher"), passed=True, versions=8)
    assert (source.window, source.limit, source.refill) == (16, 20_000, "best")
