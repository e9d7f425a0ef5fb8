"""Trajectories: checked at construction, and the same after Arrow, Parquet and Ray."""

import dataclasses
import math
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from policies.arrow import ARRAYS, SCHEMA, from_table, to_table
from policies.trajectory import (
    FinishReason,
    Origin,
    Preference,
    Producer,
    Sampling,
    ScoreEntry,
    Trajectory,
    changed,
    on_policy_share,
    reward,
)


def trajectory(size: int = 4, **overrides: object) -> Trajectory:
    """A learner's rollout of `size` tokens at version 3."""
    fields: dict[str, object] = dict(
        id="run/7",
        prompt_id="p1",
        group_id="g1",
        producer=Producer.ROLLOUT,
        model="learner",
        version=3,
        train_context=np.array([5, 6, 7], np.int32),
        behavior_context=np.array([5, 6, 7], np.int32),
        teacher_context=np.array([], np.int32),
        tokens=np.arange(size, dtype=np.int32),
        origin=np.zeros(size, np.int8),
        token_version=np.full(size, 3, np.int32),
        train_mask=np.ones(size, np.bool_),
        behavior_logps=np.linspace(-2, -0.5, size, dtype=np.float32),
    )
    return Trajectory(**{**fields, **overrides})  # type: ignore[arg-type]


def demonstration(size: int = 3, **overrides: object) -> Trajectory:
    return trajectory(
        size,
        **{
            "id": "demo/1",
            "producer": Producer.DEMONSTRATION,
            "version": -1,
            "origin": np.full(size, Origin.DEMONSTRATION, np.int8),
            "token_version": np.full(size, -1, np.int32),
            "behavior_logps": np.full(size, np.nan, np.float32),
            **overrides,
        },
    )


def full() -> list[Trajectory]:
    scored = trajectory(
        5,
        id="full",
        parent_id="run/7",
        scores=(
            ScoreEntry("reward", 0.5, True, scorer="answer", scorer_version="1"),
            ScoreEntry("step", math.nan, None, status="timeout", reason="5 s", start=0, end=2),
        ),
        preference=Preference("s1", 1.0),
        sampling=Sampling(temperature=0.7, stop=("#", "\n")),
        finish_reason=FinishReason.STOP,
        train_mask=np.array([True, False, True, True, False]),
        text="äß 汉字",
        seed=2**40,
        created_at=1.5,
        seconds=0.25,
        tokens_generated=5,
    )
    return [scored, demonstration(), trajectory(0, id="empty"), trajectory(1, id="one")]


def same(left: Trajectory, right: Trajectory) -> bool:
    for field in dataclasses.fields(Trajectory):
        want, got = getattr(left, field.name), getattr(right, field.name)
        if field.name in ARRAYS:
            if want.dtype != got.dtype or not np.array_equal(want, got, equal_nan=want.dtype.kind == "f"):
                return False
        elif repr(want) != repr(got):  # NaN is equal to itself here
            return False
    return True


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"origin": np.zeros(3, np.int8)},
            r"Trajectory\.origin of 'run/7': want one entry for each of the 4 tokens, got 3",
        ),
        ({"tokens": np.arange(4)}, r"Trajectory\.tokens of 'run/7': want a one-dimensional array of int32, got int64"),
        ({"train_context": [1, 2]}, r"Trajectory\.train_context .* got list"),
        (
            {"behavior_logps": np.zeros((4, 1), np.float32)},
            r"Trajectory\.behavior_logps .* got float32 of shape \(4, 1\)",
        ),
        ({"token_version": np.full(4, -1, np.int32)}, r"Trajectory\.token_version .* want a version >= 0 .* got -1"),
        ({"origin": np.full(4, Origin.TEACHER, np.int8)}, r"Trajectory\.token_version .* want -1 on tokens .* got 3"),
        ({"version": 2}, r"Trajectory\.version .* want 3, as on the first learner token, got 2"),
        (
            {"origin": np.array([0, 0, 0, 4], np.int8), "token_version": np.array([3, 3, 3, -1], np.int32)},
            r"Trajectory\.train_mask .* want false on environment tokens",
        ),
    ],
)
def test_a_trajectory_that_contradicts_itself_is_refused(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trajectory(**overrides)


def test_a_demonstration_has_no_version() -> None:
    with pytest.raises(ValueError, match=r"Trajectory\.version of 'demo/1': want -1"):
        demonstration(version=0)


def test_arrays_are_read_only_and_the_callers_array_is_not_touched() -> None:
    mine = np.arange(4, dtype=np.int32)
    held = trajectory(tokens=mine)
    with pytest.raises(ValueError, match="read-only"):
        held.tokens[0] = 9
    mine[0] = 1


def test_reward_is_the_score_of_that_name_and_unknown_is_nan() -> None:
    assert reward(full()[0]) == 0.5
    assert math.isnan(reward(trajectory()))
    assert math.isnan(reward(trajectory(scores=(ScoreEntry("reward", 0.0, None, status="timeout"),))))


def test_on_policy_share_counts_trained_tokens_of_that_version() -> None:
    mixed = trajectory(token_version=np.array([3, 3, 4, 4], np.int32), train_mask=np.array([True, True, True, False]))
    assert on_policy_share(mixed, 3) == pytest.approx(2 / 3)
    assert on_policy_share(mixed, 5) == 0.0
    assert on_policy_share(demonstration(), 3) == 0.0
    assert math.isnan(on_policy_share(trajectory(0), 3))


def test_a_table_has_a_column_for_every_field() -> None:
    assert set(SCHEMA.names) == {field.name for field in dataclasses.fields(Trajectory)}


def test_parquet_keeps_every_field(tmp_path: Path) -> None:
    rows = full()
    pq.write_table(to_table(rows), tmp_path / "t.parquet")
    back = from_table(pq.read_table(tmp_path / "t.parquet"))
    assert [same(a, b) for a, b in zip(rows, back, strict=True)] == [True] * len(rows)


def test_arrays_of_a_table_are_views_also_of_slices_and_chunks() -> None:
    rows = full()
    table = pa.concat_tables([to_table(rows[:2]), to_table(rows[2:])])
    for back, want in ((from_table(table), rows), (from_table(table.slice(1, 2)), rows[1:3])):
        assert all(same(a, b) for a, b in zip(want, back, strict=True))
        assert not any(getattr(row, name).flags.writeable for row in back for name in ARRAYS)
    first = from_table(table)[0]
    buffer = table.column("tokens").chunk(0).values.buffers()[1]
    assert buffer.address <= first.tokens.ctypes.data < buffer.address + buffer.size


def test_no_trajectories_are_an_empty_table() -> None:
    assert to_table([]).schema == SCHEMA
    assert from_table(to_table([])) == []


def test_a_table_of_something_else_is_refused_by_column() -> None:
    table = to_table(full())
    broken = table.drop_columns(["seed"]).set_column(0, "id", pa.array([1, 2, 3, 4]))
    with pytest.raises(ValueError, match=r"column 'id' is int64, want string; column 'seed' is missing"):
        from_table(broken)


@pytest.mark.ray
def test_ray_hands_arrays_over_without_a_copy() -> None:
    import ray

    short = tempfile.mkdtemp(prefix="ray-")  # pytest's own folders are too long for Ray's sockets
    ray.init(address="local", num_cpus=1, include_dashboard=False, _temp_dir=short, log_to_driver=False)
    try:
        rows = [trajectory(100_000, id="long"), *full()]
        plain = ray.put(rows)
        table = ray.put(to_table(rows))
        for one, two in ((ray.get(plain), ray.get(plain)), (from_table(ray.get(table)), from_table(ray.get(table)))):
            assert all(same(a, b) for a, b in zip(rows, one, strict=True))
            assert not any(getattr(row, name).flags.writeable for row in one for name in ARRAYS)
            # two reads see the same memory: the store's
            assert one[0].tokens.ctypes.data == two[0].tokens.ctypes.data
    finally:
        ray.shutdown()
        shutil.rmtree(short, ignore_errors=True)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"id": "run/8", "group_id": "g2", "parent_id": "run/7"},
        {"scores": (ScoreEntry("reward", 1.0, True),)},
        {"train_context": np.array([9], np.int32)},
        {"tokens": np.array([4, 3, 2, 1], np.int32)},
        {"version": -1, "origin": np.full(4, Origin.TEACHER, np.int8), "token_version": np.full(4, -1, np.int32)},
    ],
)
def test_a_changed_record_is_a_replaced_one(changes: dict[str, object]) -> None:
    before = trajectory()
    ours, theirs = changed(before, **changes), dataclasses.replace(before, **changes)  # type: ignore[arg-type]
    for field in dataclasses.fields(Trajectory):
        got, want = getattr(ours, field.name), getattr(theirs, field.name)
        if isinstance(want, np.ndarray):
            np.testing.assert_array_equal(got, want)
            assert got.dtype == want.dtype and not got.flags.writeable, field.name
        else:
            assert got == want, field.name
    assert before.id == "run/7" and before.parent_id == ""


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"version": 2}, ValueError),
        ({"train_mask": np.ones(3, np.bool_)}, ValueError),
        ({"teacher_context": np.zeros(2)}, ValueError),
        ({"origin": np.full(4, Origin.ENVIRONMENT, np.int8)}, ValueError),
        ({"token_version": np.full(4, -1, np.int32)}, ValueError),
        ({"reward": 1.0}, TypeError),
    ],
)
def test_a_change_that_breaks_the_record_is_refused_as_ever(changes: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        changed(trajectory(), **changes)
    with pytest.raises(error):
        dataclasses.replace(trajectory(), **changes)  # type: ignore[arg-type]
