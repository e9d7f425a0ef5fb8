"""A past trajectory as it is remembered, and the store that keeps the newest of what one source asks for.

A remembered one owns its arrays: those that a run hands over are views of a whole step's buffers, and one row would
keep them all. An array of one value (who wrote, which version, what trains) is that value; equal contexts are one.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from policies.config import Past
from policies.trajectory import CONTEXTS, PER_TOKEN, Producer, ScoreEntry, Trajectory, changed, reward

Array = npt.NDArray[Any]

LEARNERS = (Producer.ROLLOUT, Producer.REVISION, Producer.CORRECTION)
"""Kinds of trajectory that the learner writes; one without a token of its own is not the policy's past."""


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A trajectory that trained, with what is asked of it."""

    number: int
    """Order in which the run remembered it."""
    step: int
    """Of the run, when it trained."""
    value: float
    """Its reward; NaN is unknown."""
    passed: bool | None
    record: Trajectory
    """Packed: `trajectory` is what trains."""

    @classmethod
    def of(cls, one: Trajectory, number: int, step: int, alike: Trajectory | None = None) -> "Held":
        """Remember `one`; contexts that equal those of `alike` are shared with it."""
        entry = verdict(one)
        return cls(number, step, reward(one), entry.passed if entry else None, packed(one, alike))

    @property
    def trajectory(self) -> Trajectory:
        """As it trained: the same tokens, writers, versions, probabilities and verdicts."""
        return unpacked(self.record)


def verdict(one: Trajectory) -> ScoreEntry | None:
    """What the verifier said; None where it was not asked."""
    return next((entry for entry in one.scores if entry.name == "reward"), None)


# ---------------------------------------------------------------- what is asked


def admits(past: Past, one: Trajectory) -> bool:
    """Whether it is what the source asks for, by what never changes of it: who wrote it, and its score."""
    if one.producer.value not in past.producers or not len(one.tokens):
        return False
    if one.producer in LEARNERS and one.version < 0:
        return False
    rejected = one.version < 0 and one.preference is not None and not one.preference.label > 0
    return not rejected and _scored(past, one)


def _scored(past: Past, one: Trajectory) -> bool:
    """An unknown verdict is neither passed nor failed, and an unknown reward in no range."""
    if past.passed is not None:
        entry = verdict(one)
        if entry is None or entry.passed is not past.passed:
            return False
    if past.at_least is None and past.at_most is None:
        return True
    low = -math.inf if past.at_least is None else past.at_least
    high = math.inf if past.at_most is None else past.at_most
    return low <= reward(one) <= high


def fresh(past: Past, held: Held, step: int, version: int) -> bool:
    """Whether it is recent enough in step `step` of the run, for a learner of this version."""
    if past.age is not None and step - held.step > past.age:
        return False
    written = held.record.version
    return past.versions is None or written < 0 or version - written <= past.versions


def timeless(past: Past) -> bool:
    """Whether nothing that it asks for depends on the moment."""
    return past.age is None and past.versions is None


# ---------------------------------------------------------------- the store


@dataclass(slots=True, eq=False)
class Store:
    """The newest of what a source asks for: `window` of each prompt, `limit` in all, the oldest leaving first.

    Adding is O(1). What the learner wrote is told by its id. The same words of a writer that does not learn are held
    once, as of the last time that they came from it.
    """

    past: Past
    window: int
    limit: int
    by_prompt: dict[str, OrderedDict[str, Held]] = field(default_factory=dict)
    """Prompt -> what is held of it, oldest first."""
    order: OrderedDict[str, str] = field(default_factory=OrderedDict)
    """Of all that is held, oldest first: its key -> its prompt."""

    def new(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """Those that the source asks for and that do not come from this store themselves."""
        return [one for one in trajectories if admits(self.past, one) and not self._came_from_here(one)]

    def add(self, held: Held) -> None:
        """Hold one more, and let go what is beyond the bounds."""
        name, key = held.record.prompt_id, _key(held.record)
        own = self.by_prompt.setdefault(name, OrderedDict())
        if own.pop(key, None) is not None:
            del self.order[key]
        own[key], self.order[key] = held, name
        if len(own) > self.window:
            oldest, _ = own.popitem(last=False)
            del self.order[oldest]
        if len(self.order) > self.limit:
            oldest, name = self.order.popitem(last=False)
            own = self.by_prompt[name]
            del own[oldest]
            if not own:
                del self.by_prompt[name]

    def of_prompt(self, name: str) -> list[Held]:
        """What is held of a prompt, oldest first."""
        return list(self.by_prompt.get(name, {}).values())

    def __iter__(self) -> Iterator[Held]:
        """All, oldest first."""
        return (self.by_prompt[name][key] for key, name in self.order.items())

    def __len__(self) -> int:
        return len(self.order)

    def _came_from_here(self, one: Trajectory) -> bool:
        """Whether it is one that is held, replayed: not every producer says so."""
        own = self.by_prompt.get(one.prompt_id)
        if not own or not one.parent_id:
            return False
        held = own.get(one.parent_id if one.version >= 0 else _key(one))
        return held is not None and held.record.id == one.parent_id and np.array_equal(held.record.tokens, one.tokens)


def _key(one: Trajectory) -> str:
    if one.version >= 0:
        return one.id
    words = blake2b(one.tokens.tobytes(), digest_size=16).hexdigest()
    return f"{one.prompt_id}\n{one.producer.value}\n{one.model}\n{words}"


# ---------------------------------------------------------------- packing


def packed(one: Trajectory, alike: Trajectory | None = None) -> Trajectory:
    """The same trajectory with arrays of its own; an array of one value has stride 0. Equal, bit for bit."""
    arrays: dict[str, Array] = {}
    known: dict[int, Array] = {}
    for name in CONTEXTS:
        array = getattr(one, name)
        if id(array) not in known:
            known[id(array)] = _shared(array, [*_contexts(alike), *known.values()])
        arrays[name] = known[id(array)]
    for name in PER_TOKEN:
        arrays[name] = _constant(getattr(one, name))
    return changed(one, **arrays)


def unpacked(one: Trajectory) -> Trajectory:
    """The trajectory of `packed`, with plain arrays."""
    flat = {name: np.ascontiguousarray(array) for name in PER_TOKEN if not (array := getattr(one, name)).strides[0]}
    return changed(one, **flat) if flat else one


def _contexts(one: Trajectory | None) -> list[Array]:
    return [] if one is None else [one.train_context, one.behavior_context, one.teacher_context]


def _shared(array: Array, known: Sequence[Array]) -> Array:
    for one in known:
        if len(one) == len(array) and (one == array).all():
            return one
    return array.copy()


def _constant(array: Array) -> Array:
    """One value where all are that value, NaN by its bits; else a copy."""
    bits = array.view(np.int32) if array.dtype == np.float32 else array
    if len(array) > 1 and bits[0] == bits[-1] and (bits == bits[0]).all():
        return np.ndarray(array.shape, array.dtype, array[:1].tobytes(), strides=(0,))
    return array.copy()
