"""`TrajectoryBatch`: what the learner trains on at once, and `collate`, the only way from host records to it.

Axes: B rows, T slots, K the teacher's top-k. A slot is a position of the model's input; its columns speak of the token
that the model predicts there (the target). Two layouts share the columns: right-padded (row b is trajectory b) and
packed (one row, trajectories back to back, `sequence_BT` says whose slot it is). `_B` columns always have one entry
for each trajectory.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from policies.example import Example
from policies.trajectory import Trajectory

Array = npt.NDArray[Any]

FLOATS: Final = frozenset(
    {
        "behavior_logps_BT",
        "old_logps_BT",
        "reference_logps_BT",
        "teacher_logps_BT",
        "teacher_topk_logps_BTK",
        "reference_topk_logps_BTK",
        "teacher_hidden_BTH",
        "reference_hidden_BTH",
        "advantages_BT",
        "old_entropy_BT",
        "old_values_BT",
        "targets_BT",
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class TrajectoryBatch:
    """Trajectories as tensors, checked by name at construction. A column that nobody needs is None.

    Raises ValueError naming the column whose shape, type or device is not the others'.
    """

    tokens_BT: Tensor
    """Target tokens: logits_BTV[b, t] predicts tokens_BT[b, t]."""
    mask_BT: Tensor
    """bool: the slots that are trained."""
    origin_BT: Tensor | None = None
    """`Origin` of the target; -1 on slots that are not of a response."""
    version_BT: Tensor | None = None
    behavior_logps_BT: Tensor | None = None
    """NaN where unknown, as in every log-probability column."""
    old_logps_BT: Tensor | None = None
    reference_logps_BT: Tensor | None = None
    teacher_logps_BT: Tensor | None = None
    advantages_BT: Tensor | None = None
    teacher_topk_ids_BTK: Tensor | None = None
    teacher_topk_logps_BTK: Tensor | None = None
    reference_topk_ids_BTK: Tensor | None = None
    reference_topk_logps_BTK: Tensor | None = None
    teacher_hidden_BTH: Tensor | None = None
    """A frozen model's last hidden states at the slots, for divergences over the whole vocabulary."""
    reference_hidden_BTH: Tensor | None = None
    old_entropy_BT: Tensor | None = None
    old_values_BT: Tensor | None = None
    targets_BT: Tensor | None = None
    """What a scalar head should say; NaN where nothing is asked."""
    part_BT: Tensor | None = None
    """Part (turn, step) of the response; -1 for none."""
    group_B: Tensor | None = None
    """Which group, numbered within the batch."""
    set_B: Tensor | None = None
    """Which preference set, numbered within the batch; -1 for none."""
    label_B: Tensor | None = None
    """1 chosen, 0 rejected; NaN for none."""
    margin_B: Tensor | None = None
    """The margin that the data state for a preference; NaN for none."""
    strand_B: Tensor | None = None
    """Index into the step's strands; None where there is but one strand."""
    sequence_BT: Tensor | None = None
    """Packed layout: index of the trajectory each slot belongs to, -1 for none. None: row b is trajectory b."""
    inputs_BT: Tensor | None = None
    """What the model reads: context and response without its last token."""
    positions_BT: Tensor | None = None
    """Position of each slot in its own trajectory."""
    response_N: Tensor | None = None
    """Slots (of the flattened B x T) whose targets are response tokens, in order."""
    lengths: tuple[int, ...] | None = None
    """Slots of each trajectory, on the host."""

    def __post_init__(self) -> None:
        if self.tokens_BT.ndim != 2:
            raise ValueError(f"TrajectoryBatch.tokens_BT: shape {tuple(self.tokens_BT.shape)}, expected (B, T)")
        size = self.size
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                self._check(field.name, value, size)

    @property
    def size(self) -> int:
        """How many trajectories there are."""
        if self.sequence_BT is None:
            return int(self.tokens_BT.shape[0])
        for column in (self.strand_B, self.group_B, self.set_B, self.label_B):
            if column is not None:
                return int(column.shape[0])
        if self.lengths is not None:
            return len(self.lengths)
        return int(self.sequence_BT.max()) + 1 if self.sequence_BT.numel() else 0

    @property
    def trajectory_BT(self) -> Tensor:
        """The trajectory of each slot, in either layout."""
        if self.sequence_BT is not None:
            return self.sequence_BT
        rows, slots = self.tokens_BT.shape
        return torch.arange(rows, device=self.tokens_BT.device)[:, None].expand(rows, slots)

    def at(self, slots_N: Tensor) -> "TrajectoryBatch":
        """The batch with these slots alone (indices into the flattened B x T), as one row."""
        taken: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_BT") and value is not None:
                taken[field.name] = value.reshape(1, -1)[:, slots_N]
            elif field.name.endswith(("_BTK", "_BTH")) and value is not None:
                taken[field.name] = value.reshape(1, -1, value.shape[-1])[:, slots_N]
        taken["sequence_BT"] = self.trajectory_BT.reshape(1, -1)[:, slots_N]
        return replace(self, **taken, response_N=None)

    def responses(self) -> tuple[Tensor, "TrajectoryBatch"]:
        """The slots of response tokens, and the batch of these alone: where log-probabilities are wanted."""
        if self.response_N is None:
            raise ValueError(
                "TrajectoryBatch.response_N is None: build the batch with collate to ask for its responses"
            )
        return self.response_N, self.at(self.response_N)

    def trained(self) -> tuple[Tensor, "TrajectoryBatch"]:
        """The slots that are trained, and the batch of these alone: where the head has to be computed."""
        slots_N = self.mask_BT.flatten().nonzero()[:, 0]
        return slots_N, self.at(slots_N)

    def _check(self, name: str, value: Tensor, size: int) -> None:
        if name.endswith(("_BTK", "_BTH")):
            want: tuple[int, ...] = (*self.tokens_BT.shape, value.shape[-1])
        elif name.endswith("_BT"):
            want = tuple(self.tokens_BT.shape)
        else:
            want = (size,) if name.endswith("_B") else (value.numel(),)
        if tuple(value.shape) != want:
            raise ValueError(f"TrajectoryBatch.{name}: shape {tuple(value.shape)}, expected {want}")
        if not _type_fits(name, value):
            raise ValueError(f"TrajectoryBatch.{name}: type {value.dtype}, expected {_type_wanted(name)}")
        if value.device != self.tokens_BT.device:
            raise ValueError(f"TrajectoryBatch.{name}: on {value.device}, expected {self.tokens_BT.device}")


def _type_wanted(name: str) -> str:
    if name == "mask_BT":
        return "bool"
    return "a floating type" if name in FLOATS else "an integer type"


def _type_fits(name: str, value: Tensor) -> bool:
    if name == "mask_BT":
        return value.dtype == torch.bool
    if name in FLOATS:
        return value.dtype.is_floating_point
    if name in ("label_B", "margin_B"):
        return True
    return not value.dtype.is_floating_point and value.dtype != torch.bool


# ---------------------------------------------------------------- host records -> batch


def collate(
    examples: Sequence[Example], *, pad_id: int, packed: bool = True, device: torch.device | str = "cpu"
) -> TrajectoryBatch:
    """Examples as one batch: packed in one row without a padding slot, or right-padded to the longest.

    Inputs are the training context and the response without its last token; positions restart with each trajectory.
    Raises ValueError when a context is empty (nothing would predict the first token) or a view's length is not T.
    """
    for example in examples:
        _check_example(example)
    lengths = np.array([slots(example.trajectory) for example in examples], np.int64)
    sequence = np.repeat(np.arange(len(examples)), lengths)
    starts = np.cumsum(lengths) - lengths
    positions = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    columns = {name: _target_column(name, examples) for name in _VIEWS}
    columns["inputs_BT"] = _concatenate([_inputs(example.trajectory) for example in examples], np.int64)
    columns["positions_BT"] = positions
    if packed:
        shape, place = (1, len(sequence)), np.arange(len(sequence))
        columns["sequence_BT"] = sequence
    else:
        width = int(lengths.max(initial=0))
        shape, place = (len(examples), width), sequence * width + positions
    response = np.concatenate([np.zeros(0, bool), *[_responses(example.trajectory) for example in examples]])
    fills = {name: fill for name, (_, _, fill) in _VIEWS.items()} | {"tokens_BT": pad_id, "inputs_BT": pad_id}
    tensors = {
        name: _place(column, place, shape, fills.get(name, 0)) for name, column in columns.items() if column is not None
    }
    tensors |= {"response_N": torch.from_numpy(place[response]), **_by_trajectory(examples)}
    sent: dict[str, Any] = {name: tensor.to(device) for name, tensor in tensors.items()}
    return TrajectoryBatch(**sent, lengths=tuple(int(length) for length in lengths))


def slots(trajectory: Trajectory) -> int:
    """How many positions the model computes for a trajectory: C + T - 1, and none when there is no response."""
    return len(trajectory.train_context) + len(trajectory.tokens) - 1 if len(trajectory.tokens) else 0


def plan_micro_batches(
    lengths: Sequence[int], max_tokens: int, together: Sequence[str | None] | None = None
) -> list[list[int]]:
    """Indices of the trajectories of each micro-batch, at most `max_tokens` slots each: first fit, longest first.

    Trajectories with the same name in `together` (the members of a preference set) are never parted. One trajectory or
    one set that is longer than `max_tokens` goes alone.
    """
    units: dict[object, list[int]] = {}
    for index in range(len(lengths)):
        name = together[index] if together is not None else None
        units.setdefault(index if name is None else name, []).append(index)
    sized = sorted(((sum(lengths[i] for i in unit), unit) for unit in units.values()), key=lambda one: -one[0])
    plan: list[list[int]] = []
    room: list[int] = []
    for size, unit in sized:
        fit = next((at for at, free in enumerate(room) if free >= size), None)
        if fit is None:
            plan.append(list(unit))
            room.append(max_tokens - size)
        else:
            plan[fit].extend(unit)
            room[fit] -= size
    return plan


_VIEWS: Final[dict[str, tuple[str, type[np.generic], float]]] = {
    "tokens_BT": ("trajectory.tokens", np.int64, 0),
    "mask_BT": ("trajectory.train_mask", np.bool_, 0),
    "origin_BT": ("trajectory.origin", np.int8, -1),
    "version_BT": ("trajectory.token_version", np.int32, -1),
    "behavior_logps_BT": ("trajectory.behavior_logps", np.float32, np.nan),
    "advantages_BT": ("advantages", np.float32, 0),
    "old_logps_BT": ("old_logps", np.float32, np.nan),
    "reference_logps_BT": ("reference_logps", np.float32, np.nan),
    "teacher_logps_BT": ("teacher_logps", np.float32, np.nan),
    "teacher_topk_ids_BTK": ("teacher_topk_ids", np.int64, 0),
    "teacher_topk_logps_BTK": ("teacher_topk_logps", np.float32, np.nan),
    "reference_topk_ids_BTK": ("reference_topk_ids", np.int64, 0),
    "reference_topk_logps_BTK": ("reference_topk_logps", np.float32, np.nan),
    "teacher_hidden_BTH": ("teacher_hidden", np.float32, np.nan),
    "reference_hidden_BTH": ("reference_hidden", np.float32, np.nan),
    "old_entropy_BT": ("old_entropy", np.float32, np.nan),
    "old_values_BT": ("old_values", np.float32, np.nan),
    "targets_BT": ("targets", np.float32, np.nan),
    "part_BT": ("part", np.int32, -1),
}
"""Column -> (where an example holds it, its type, its value where there is none)."""


def _view(example: Example, path: str) -> Array | None:
    owner, _, name = path.rpartition(".")
    value: Array | None = getattr(example.trajectory if owner else example, name)
    return value


def _check_example(example: Example) -> None:
    trajectory = example.trajectory
    if len(trajectory.tokens) and not len(trajectory.train_context):
        raise ValueError(f"Trajectory {trajectory.id!r}: train_context is empty, so nothing predicts its first token")
    for path, _, _ in _VIEWS.values():
        view = _view(example, path)
        if view is not None and len(view) != len(trajectory.tokens):
            raise ValueError(
                f"Example.{path} of {trajectory.id!r}: {len(view)} entries, expected {len(trajectory.tokens)}"
            )


def _target_column(name: str, examples: Sequence[Example]) -> Array | None:
    """One value for each slot: the response's where the target is a response token, the fill elsewhere."""
    path, dtype, fill = _VIEWS[name]
    views = [_view(example, path) for example in examples]
    known = [view for view in views if view is not None]
    if not known:
        return np.empty(0, dtype) if name in ("tokens_BT", "mask_BT") else None
    widths = {view.shape[1:] for view in known}
    if len(widths) > 1:
        raise ValueError(f"Example.{path}: width differs within a batch: {sorted(one[0] for one in widths)}")
    width = next(iter(widths))
    parts: list[Array] = []
    for example, view in zip(examples, views, strict=True):
        column = np.full((slots(example.trajectory), *width), fill, dtype)
        if name == "tokens_BT" and len(column):
            column[:] = np.concatenate([example.trajectory.train_context[1:], example.trajectory.tokens])
        elif view is not None and len(column):
            column[len(example.trajectory.train_context) - 1 :] = view
        parts.append(column)
    return np.concatenate(parts)


def _inputs(trajectory: Trajectory) -> Array:
    inputs: Array = np.concatenate([trajectory.train_context, trajectory.tokens])[: slots(trajectory)]
    return inputs


def _responses(trajectory: Trajectory) -> Array:
    found = np.ones(slots(trajectory), np.bool_)
    found[: len(trajectory.train_context) - 1] = False
    return found


def _concatenate(parts: Sequence[Array], dtype: type[np.generic]) -> Array:
    joined: Array = np.concatenate([np.empty(0, dtype), *parts]).astype(dtype)
    return joined


def _place(column: Array, place: Array, shape: tuple[int, int], fill: float) -> Tensor:
    """The flat column laid out as (B, T)."""
    out = np.full((shape[0] * shape[1], *column.shape[1:]), fill, column.dtype)
    out[place] = column
    return torch.from_numpy(out.reshape(*shape, *column.shape[1:]))


def _by_trajectory(examples: Sequence[Example]) -> dict[str, Tensor]:
    preferences = [example.trajectory.preference for example in examples]
    return {
        "group_B": _numbered([example.trajectory.group_id for example in examples]),
        "set_B": _numbered([None if one is None or not one.set_id else one.set_id for one in preferences]),
        "label_B": torch.tensor([float("nan") if one is None else one.label for one in preferences]),
        "margin_B": torch.tensor([float("nan") if one is None else one.margin for one in preferences]),
        "strand_B": torch.tensor([example.strand for example in examples], dtype=torch.int64),
    }


def _numbered(names: Sequence[str | None]) -> Tensor:
    """Names as numbers in order of appearance; None as -1."""
    seen: dict[str, int] = {}
    return torch.tensor([-1 if n is None else seen.setdefault(n, len(seen)) for n in names], dtype=torch.int64)
