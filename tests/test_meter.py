"""What is counted where the roles are asked: token for token what the ledger's own records say was computed."""

import asyncio
import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from fakes import trajectory
from recipe_runs import write

from actors.engine import SampleRequest
from actors.meter import Bill, Work, generated, joined, metered, scored, trained, using
from actors.pool import lengths
from orchestrator import bills
from orchestrator.history import History, read_history
from orchestrator.run import run
from policies.arrow import from_table
from policies.example import Example
from policies.trajectory import FinishReason, Producer, Sampling, Trajectory

CONTEXT, TOKENS = np.arange(3, dtype=np.int32), np.arange(5, dtype=np.int32)


def test_positions_are_those_that_are_read_and_tokens_those_that_are_asked_for() -> None:
    with metered() as bill:
        generated("rollout", "policy", [(3, 5), (4, 1), (6, 0)])
        scored("frozen", "reference", [CONTEXT, CONTEXT], [TOKENS, TOKENS[:0]])
    assert bill.rows() == [
        {"role": "frozen", "model": "reference", "kind": "score"} | _counts(1, 7, 5, 28),
        {"role": "rollout", "model": "policy", "kind": "generate"} | _counts(3, 7 + 4 + 6, 6, 28 + 10 + 21),
    ]


def _counts(sequences: int, positions: int, tokens: int, pairs: int) -> dict[str, int]:
    return {"sequences": sequences, "positions": positions, "tokens": tokens, "pairs": pairs}


def test_a_masked_example_is_not_computed_and_a_masked_token_is_read_without_its_logits() -> None:
    one = trajectory("a", 4, train_mask=np.array([True, False, True, True]))
    idle = trajectory("b", 6, train_mask=np.zeros(6, np.bool_))
    with metered() as bill:
        trained("policy", [Example(each, 0, np.ones(len(each.tokens), np.float32)) for each in (one, idle)])
    assert bill.of("learner", "policy", "train").as_row() == _counts(1, 6, 3, 21)


def test_what_an_engine_refused_was_not_computed() -> None:
    asked = [SampleRequest(name, CONTEXT, Sampling(), 0) for name in ("good", "refused", "silent")]
    good, silent = trajectory("good", 2), trajectory("silent", 0)
    refused = trajectory("refused", 0, finish_reason=FinishReason.ERROR)
    assert lengths(asked, [good, refused, silent]) == [(3, 2), (3, 0)]


def test_without_a_bill_nothing_is_counted_and_an_inner_bill_is_the_only_one() -> None:
    generated("rollout", "policy", [(3, 5)])
    with metered() as outer:
        with metered() as inner:
            generated("rollout", "policy", [(3, 5)])
        scored("learner", "policy", [CONTEXT], [TOKENS])
    assert [row["kind"] for row in inner.rows()] == ["generate"]
    assert [row["kind"] for row in outer.rows()] == ["score"]


def test_tasks_count_on_the_bill_of_whoever_started_them() -> None:
    async def asked(tokens: int) -> None:
        await asyncio.sleep(0.01)
        generated("rollout", "policy", [(1, tokens)])

    async def own(tokens: int) -> Bill:
        with metered() as bill:
            await asyncio.gather(*(asked(tokens) for _ in range(3)))
        return bill

    async def both() -> tuple[Bill, Bill]:
        one, other = await asyncio.gather(own(2), own(30))
        return one, other

    first, second = asyncio.run(both())
    assert first.of("rollout", "policy", "generate").tokens == 6
    assert second.of("rollout", "policy", "generate").tokens == 90


def test_calls_that_overlap_take_their_time_once() -> None:
    async def call(seconds: float) -> None:
        with using("scorer"):
            await asyncio.sleep(seconds)

    async def three() -> Bill:
        with metered() as bill:
            await asyncio.gather(call(0.3), call(0.2), call(0.3))
        return bill

    bill = asyncio.run(three())
    assert 0.25 < bill.seconds["scorer"] < 0.5, "0.3 s, and not 0.8"
    assert bill.wall >= bill.seconds["scorer"]


def test_a_call_that_fails_has_taken_its_time() -> None:
    with pytest.raises(RuntimeError), metered() as bill, using("rollout"):
        raise RuntimeError
    assert bill.seconds["rollout"] >= 0 and not math.isnan(bill.wall)


def test_rows_add_up_in_any_order_and_old_rows_add_nothing() -> None:
    one = {"work": [{"role": "rollout", "model": "policy", "kind": "generate"} | _counts(1, 2, 3, 4)]}
    two = {"work": [{"role": "learner", "model": "policy", "kind": "train"} | _counts(1, 1, 1, 1)]}
    two |= {"seconds_by_role": {"learner": 0.5}}
    whole = bills.added([one, two, one, {"step": 3}, {"work": None}])
    assert whole == bills.added([two, {}, one, one])
    assert [row["positions"] for row in whole["work"]] == [1, 4]
    assert whole["seconds_by_role"] == {"learner": 0.5}
    assert joined([Work(1, 2, 3, 4).as_row(), Work(1, 1, 1, 1).as_row()]) == _counts(2, 3, 4, 5)
    assert joined([]) == {}


# ---------------------------------------------------------------- a whole run, counted by hand


PIPELINE: dict[str, Any] = {
    "name": "counted",
    "seed": 5,
    "model": {"kind": "tiny", "preset": "arithmetic-small", "context": 64},
    "prompts": {
        "train": {"kind": "arithmetic", "digits": [1], "count": 40},
        "probe": {"kind": "arithmetic", "digits": [1], "count": 4, "seed": 9},
    },
    "handoff": {"probe_samples": 4, "bank": 3},
    "stages": [
        {"name": "imitate", "recipe": {"kind": "sft"}, "steps": 2, "prompts_per_step": 4},
        {
            "name": "mix",
            "recipe": {"kind": "luffy", "rollouts": 3, "length": 32},
            "steps": 2,
            "prompts_per_step": 2,
            "updates": 2,
            "interference": 2,
        },
        {
            "name": "sharpen",
            "recipe": {"kind": "grpo", "rollouts": 4, "kl": 0.1},
            "steps": 2,
            "prompts_per_step": 2,
        },
    ],
}


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> History:
    folder = tmp_path_factory.mktemp("counted")
    stages = [stage | {"sampling": {"max_tokens": 8}} for stage in PIPELINE["stages"]]
    assert run(write(PIPELINE | {"stages": stages}, folder / "p.yaml"), folder / "run", in_process=True) == 0
    return read_history(folder / "run")


def _of(records: list[Trajectory]) -> dict[str, int]:
    """Counts of whole sequences by their definition, one position at a time."""
    sequences = positions = tokens = pairs = 0
    for one in records:
        read = [*one.train_context.tolist(), *one.tokens.tolist()][:-1]
        sequences += 1
        tokens += sum(1 for trains in one.train_mask.tolist() if trains)
        for at, _ in enumerate(read):
            positions += 1
            pairs += len(read[: at + 1])
    return _counts(sequences, positions, tokens, pairs)


def _told(row: dict[str, Any]) -> dict[str, dict[str, int]]:
    keys = ("role", "model", "kind")
    return {
        "/".join(one[key] for key in keys): {key: value for key, value in one.items() if key not in keys}
        for one in row["work"]
    }


def _records(history: History, step: int) -> list[Trajectory]:
    return list(from_table(pq.read_table(history.run.trajectory_file(step))))


def test_every_step_s_work_is_what_its_records_took(counted: History) -> None:
    for row in counted.steps:
        records = _records(counted, row["step"])
        drawn = [one for one in records if one.producer is Producer.ROLLOUT]
        expected = {"learner/policy/train": _of(records)}
        if row["stage"] != "imitate":
            expected["rollout/policy/generate"] = _of(drawn)
        if row["stage"] == "mix":  # two updates: the old policy is asked about what was sampled from it
            expected["learner/policy/score"] = _of(drawn)
        if row["stage"] == "sharpen":
            expected["frozen/reference/score"] = _of(drawn)
        told = _told(row)
        extra = told.pop("learner/policy/interference", None)
        assert told == expected, row["step"]
        measured = row["stage"] == "mix" and row["stage_step"] == 1
        assert (extra is not None) == measured
        if extra is not None:
            assert 0 < extra["tokens"] < expected["learner/policy/train"]["tokens"], "of the first update alone"
        assert told["learner/policy/train"]["tokens"] == row["tokens_trained"]
        assert told.get("rollout/policy/generate", {}).get("tokens", 0) == row["tokens_generated"]


def test_flops_of_a_step_are_of_its_work(counted: History) -> None:
    shape = next(event for event in counted.events if event["kind"] == "models")["shapes"]["policy"]
    for row in counted.steps:
        expected = 0.0
        for one in row["work"]:
            times = 3 if one["kind"] in ("train", "interference") else 1
            inner = 2 * shape["active"] * one["positions"] + 4 * shape["attention"] * one["pairs"]
            expected += times * (inner + 2 * shape["head"] * one["tokens"])
        assert row["flops"] == expected > 0


def test_seconds_are_known_for_every_role_that_worked(counted: History) -> None:
    for row in counted.steps:
        roles = {one["role"] for one in row["work"]}
        assert roles <= set(row["seconds_by_role"])
        assert all(0 < spent <= row["seconds"] * 1.5 for spent in row["seconds_by_role"].values())
    assert "scorer" in counted.steps[-1]["seconds_by_role"]


def test_a_probe_counts_its_own_draws_and_what_it_scored(counted: History) -> None:
    for row in counted.probes:
        drawn = pq.read_table(counted.run.probe_file(row["step"])).to_pylist()
        positions = [one["context"] + max(one["tokens"], 1) - 1 for one in drawn]
        pairs = sum(n * (n + 1) // 2 for n in positions)
        tokens = sum(one["tokens"] for one in drawn)
        told = _told(row)
        assert told["rollout/policy/generate"] == _counts(len(drawn), sum(positions), tokens, pairs)
        asked = pq.read_table(counted.run.scored_file(row["step"])).to_pylist()
        copied = Counter((one["writer"], one["model"]) for one in asked)
        fresh = copied.total() - copied["bank", "before"] - copied["before", "before"]
        assert told["rollout/policy/score"]["sequences"] == fresh, "what an earlier probe said is not asked again"
        assert row["seconds_probe"] > 0
