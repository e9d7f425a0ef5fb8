"""`TrajectoryBatch` is checked by name, and `collate` puts every value where the model predicts its token."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.batch import TrajectoryBatch, collate, plan_micro_batches
from policies.config import Point, Reduce, Set, Source, Strand, Term
from policies.example import Example
from policies.reduce import normalisers
from policies.trajectory import Preference, Trajectory
from tests.test_trajectory import demonstration, trajectory


def example(one: Trajectory, strand: int = 0, **views: object) -> Example:
    size = len(one.tokens)
    return Example(one, strand, advantages=np.arange(size, dtype=np.float32) + 10 * strand, **views)  # type: ignore[arg-type]


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def three() -> list[Example]:
    """A rollout with a masked token, a demonstration of one token, and a rollout that wrote nothing."""
    first = trajectory(
        3, train_context=ids(1, 2), tokens=ids(3, 4, 5), train_mask=np.array([True, False, True]), group_id="g",
        preference=Preference("s", 1.0),
    )  # fmt: skip
    second = demonstration(1, train_context=ids(6), tokens=ids(7), group_id="h", preference=Preference("s", 0.0))
    third = trajectory(0, train_context=ids(8, 9), group_id="g")
    old = np.array([-1, -2, -3], np.float32)
    top = np.array([[3, 4], [5, 6], [7, 8]], np.int32)
    return [
        example(first, old_logps=old, teacher_topk_ids=top, teacher_topk_logps=top.astype(np.float32)),
        example(second, strand=1),
        example(third),
    ]


def test_packed_is_one_row_without_padding() -> None:
    batch = collate(three(), pad_id=99)
    assert batch.inputs_BT is not None and batch.positions_BT is not None and batch.sequence_BT is not None
    assert batch.inputs_BT.tolist() == [[1, 2, 3, 4, 6]]
    assert batch.tokens_BT.tolist() == [[2, 3, 4, 5, 7]]
    assert batch.positions_BT.tolist() == [[0, 1, 2, 3, 0]]
    assert batch.sequence_BT.tolist() == [[0, 0, 0, 0, 1]]
    assert batch.mask_BT.tolist() == [[False, True, False, True, True]]
    assert batch.lengths == (4, 1, 0)
    assert batch.size == 3


def test_padded_has_a_row_a_trajectory() -> None:
    batch = collate(three(), pad_id=99, packed=False)
    assert batch.inputs_BT is not None and batch.origin_BT is not None
    assert batch.inputs_BT.tolist() == [[1, 2, 3, 4], [6, 99, 99, 99], [99] * 4]
    assert batch.origin_BT.tolist() == [[-1, 0, 0, 0], [1, -1, -1, -1], [-1] * 4]
    assert batch.mask_BT.sum() == 3


@pytest.mark.parametrize("packed", [True, False])
def test_responses_hold_every_token_and_trained_the_masked_ones(packed: bool) -> None:
    batch = collate(three(), pad_id=99, packed=packed)
    _, responses = batch.responses()
    assert responses.tokens_BT.tolist() == [[3, 4, 5, 7]]
    assert responses.trajectory_BT.tolist() == [[0, 0, 0, 1]]
    assert responses.advantages_BT is not None and responses.advantages_BT.tolist() == [[0, 1, 2, 10]]
    assert responses.old_logps_BT is not None
    assert responses.old_logps_BT[0, :3].tolist() == [-1, -2, -3]
    assert responses.old_logps_BT[0, 3].isnan()  # nobody asked for it: unknown, not zero
    assert responses.behavior_logps_BT is not None and responses.behavior_logps_BT[0, 3].isnan()
    assert responses.teacher_topk_ids_BTK is not None
    assert responses.teacher_topk_ids_BTK[0, :3].tolist() == [[3, 4], [5, 6], [7, 8]]
    assert responses.version_BT is not None and responses.version_BT.tolist() == [[3, 3, 3, -1]]
    assert responses.reference_logps_BT is None
    slots, trained = batch.trained()
    assert trained.tokens_BT.tolist() == [[3, 5, 7]]
    assert batch.tokens_BT.flatten()[slots].tolist() == [3, 5, 7]
    for column, want in ((batch.group_B, [0, 1, 0]), (batch.set_B, [0, 0, -1]), (batch.strand_B, [0, 1, 0])):
        assert column is not None and column.tolist() == want
    assert batch.label_B is not None and batch.label_B[:2].tolist() == [1, 0]


def test_no_examples_are_an_empty_batch() -> None:
    for packed in (True, False):
        batch = collate([], pad_id=0, packed=packed)
        assert batch.size == 0
        assert batch.mask_BT.numel() == 0


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("old_logps_BT", torch.zeros(2, 3), r"TrajectoryBatch\.old_logps_BT: shape \(2, 3\), expected \(2, 4\)"),
        ("mask_BT", torch.zeros(2, 4), r"TrajectoryBatch\.mask_BT: type torch\.float32, expected bool"),
        (
            "advantages_BT",
            torch.zeros(2, 4, dtype=torch.int64),
            r"advantages_BT: type torch\.int64, expected a floating",
        ),
        ("origin_BT", torch.zeros(2, 4), r"origin_BT: type torch\.float32, expected an integer"),
        ("strand_B", torch.zeros(3, dtype=torch.int64), r"strand_B: shape \(3,\), expected \(2,\)"),
        (
            "teacher_topk_ids_BTK",
            torch.zeros(2, 4, dtype=torch.int64),
            r"teacher_topk_ids_BTK: shape .* expected \(2, 4, 4\)",
        ),
        ("tokens_BT", torch.zeros(8, dtype=torch.int64), r"tokens_BT: shape \(8,\), expected \(B, T\)"),
        ("version_BT", torch.zeros(2, 4, dtype=torch.int64, device="meta"), r"version_BT: on meta, expected cpu"),
    ],
)
def test_a_column_that_does_not_fit_is_named(column: str, value: torch.Tensor, message: str) -> None:
    fields = {"tokens_BT": torch.zeros(2, 4, dtype=torch.int64), "mask_BT": torch.ones(2, 4, dtype=torch.bool)}
    with pytest.raises(ValueError, match=message):
        TrajectoryBatch(**{**fields, column: value})  # type: ignore[arg-type]


def test_examples_that_cannot_be_collated_are_named() -> None:
    with pytest.raises(ValueError, match=r"'run/7': train_context is empty"):
        collate([example(trajectory(2, train_context=ids()))], pad_id=0)
    with pytest.raises(ValueError, match=r"Example\.old_logps of 'run/7': 1 entries, expected 2"):
        collate([example(trajectory(2), old_logps=np.zeros(1, np.float32))], pad_id=0)
    one, two = (example(trajectory(2), teacher_topk_ids=np.zeros((2, k), np.int32)) for k in (2, 3))
    with pytest.raises(ValueError, match=r"width differs within a batch: \[2, 3\]"):
        collate([one, two], pad_id=0)
    with pytest.raises(ValueError, match="response_N is None"):
        replace(collate([one], pad_id=0), response_N=None).responses()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 60), st.booleans())
def test_micro_batches_hold_everything_once_and_fit(lengths: list[int], room: int, paired: bool) -> None:
    together = [f"s{i // 2}" for i in range(len(lengths))] if paired else None
    plan = plan_micro_batches(lengths, room, together)
    assert sorted(index for part in plan for index in part) == list(range(len(lengths)))
    for part in plan:
        units = {together[i] if together else i for i in part}
        assert sum(lengths[i] for i in part) <= room or len(units) == 1
    if paired:
        home = {index: at for at, part in enumerate(plan) for index in part}
        assert all(home[i] == home[i - 1] for i in range(1, len(lengths), 2))


def test_first_fit_wastes_little() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 300).tolist()
    assert len(plan_micro_batches(lengths, 1024)) <= sum(lengths) / 1024 * 1.1 + 1


def test_normalisers_count_the_whole_step() -> None:
    kinds = ("token", "sequence", "batch_length", "length")
    terms = tuple(
        Term(name=kind, kernel=Point(), reduce=Reduce(kind=kind, length=9 if "length" in kind else None))
        for kind in kinds
    )
    sets = (Term(name="pairs", kernel=Set()), Term(name="sets", kernel=Set(), reduce=Reduce(kind="sequence")))
    source = Source(producer="rollout")
    strands = [
        Strand(name="a", source=source, terms=terms),
        Strand(name="b", source=source, terms=terms),
        Strand(name="c", source=source, terms=sets),
    ]
    chosen, rejected = (trajectory(2, preference=Preference("s", label)) for label in (1.0, 0.0))
    examples = [*three(), example(trajectory(4)), example(chosen, 2), example(rejected, 2)]
    # strand 0: 2 + 4 trained tokens of 2 sequences; the response without tokens is none
    assert normalisers(strands, examples) == ((6.0, 2.0, 18.0, 9.0), (1.0, 1.0, 9.0, 9.0), (1.0, 1.0))
    assert normalisers(strands, []) == ((1.0, 1.0, 1.0, 9.0), (1.0, 1.0, 1.0, 9.0), (1.0, 1.0))
    broken = Strand(name="d", source=source, terms=(Term(name="x", kernel=Point(), reduce=Reduce(kind="length")),))
    with pytest.raises(ValueError, match="term 'x': reduce length needs a length"):
        normalisers([broken], [])
