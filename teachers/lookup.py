"""Numbers by what they stand for, found by a hash: what millions of names or texts leave in memory."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]


def digest(value: object) -> int:
    """63 bits of a value, by how Python writes it; 0 for None."""
    if value is None:
        return 0
    return int.from_bytes(hashlib.blake2b(repr(value).encode("utf-8", "replace"), digest_size=8).digest(), "big") >> 1


class Lookup:
    """Sorted columns of hashes, and the number of each row: 8 bytes a column and 4 for the number.

    Two values share one hash of 63 bits with a chance of n^2 / 2^64 among n (2e-9 for 200 thousand), two hashes with
    n^2 / 2^127; who cannot live with that compares what was found with what was meant.
    """

    def __init__(self, columns: Sequence[Int64]) -> None:
        """Row `n` of the columns is number n."""
        order = np.lexsort(tuple(reversed(columns)))
        self._columns = [column[order] for column in columns]
        self._numbers = order.astype(np.int32)

    def __len__(self) -> int:
        return len(self._numbers)

    def find(self, *keys: int) -> list[int]:
        """The numbers whose first hashes are `keys`, the highest first."""
        low, high = self._span(keys)
        return sorted(self._numbers[low:high].tolist(), reverse=True)

    def last(self, *keys: int) -> int | None:
        """The highest number whose hashes are `keys`, one for each column."""
        low, high = self._span(keys)
        return int(self._numbers[high - 1]) if low < high else None  # equal rows stay in the order of their numbers

    def _span(self, keys: Sequence[int]) -> tuple[int, int]:
        low, high = 0, len(self)
        for column, key in zip(self._columns, keys, strict=False):
            part = column[low:high]
            low, high = low + int(part.searchsorted(key)), low + int(part.searchsorted(key, "right"))
        return low, high

    def shared(self, other: "Lookup") -> list[int]:
        """The numbers whose first hash `other` has too, in order."""
        mine, theirs = self._columns[0], other._columns[0]
        if not len(theirs):
            return []
        places = np.minimum(theirs.searchsorted(mine), len(theirs) - 1)
        return [int(number) for number in np.sort(self._numbers[theirs[places] == mine])]
