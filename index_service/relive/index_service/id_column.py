"""Experience ids by row, close together.

As Python strings, ids of 32 hexadecimal digits (what a producer makes) take 89 bytes each; here 17.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from relive.core.blocks import with_room
from relive.index_service.scan import BoolArray, IndexArray

# Ids made by us are kept as the 16 bytes they stand for, after a byte that no UTF-8 text has.
_DIGITS = b"\xff"
_OURS = re.compile(r"[0-9a-f]{32}")
_PACKED = 17
_LARGE = 2**32


class IdColumn:
    """A list of ids that grows at its end."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._count = 0
        # Where each starts and the last ends; None while all have been ours.
        self._bounds: npt.NDArray[np.unsignedinteger] | None = None

    def extend(self, ids: Sequence[str]) -> None:
        """Add ids."""
        packed = [_packed(experience_id) for experience_id in ids]
        count = self._count + len(packed)
        bounds = self._bounds
        if bounds is None and any(one[:1] != _DIGITS for one in packed):
            bounds = np.arange(0, len(self._bytes) + 1, _PACKED, dtype=np.uint32)
        if bounds is not None:
            ends = len(self._bytes) + np.cumsum([len(one) for one in packed], dtype=np.int64)
            if len(ends) and ends[-1] >= _LARGE:
                bounds = bounds.astype(np.uint64)
            bounds = with_room(bounds, count + 1)
            bounds[self._count + 1 : count + 1] = ends
        self._bounds = bounds
        self._bytes += b"".join(packed)
        self._count = count

    def take(self, rows: IndexArray) -> list[str]:
        """The ids of rows."""
        kept = self._bytes
        if self._bounds is None:
            if not len(rows):
                return []
            packed = np.frombuffer(kept, dtype=f"V{_PACKED}")[rows].view(np.uint8)
            digits = packed.reshape(-1, _PACKED)[:, 1:].tobytes().hex(" ", _PACKED - 1)
            return digits.split(" ")
        starts, ends = self._bounds[rows].tolist(), self._bounds[rows + 1].tolist()
        return [_unpacked(kept[start:end]) for start, end in zip(starts, ends, strict=True)]

    def keep(self, rows: BoolArray) -> None:
        """Forget all other rows. Of shape (rows,)."""
        count = int(np.count_nonzero(rows))
        if self._bounds is None:
            self._bytes = bytearray(np.frombuffer(self._bytes, dtype=f"V{_PACKED}")[rows].tobytes())
        else:
            bounds = self._bounds[: self._count + 1].astype(np.int64)
            lengths = bounds[1:] - bounds[:-1]
            stay = np.repeat(rows, lengths)
            self._bytes = bytearray(np.frombuffer(self._bytes, dtype=np.uint8)[stay].tobytes())
            self._bounds[1 : count + 1] = np.cumsum(lengths[rows])
        self._count = count

    @property
    def nbytes(self) -> int:
        """What it takes."""
        return len(self._bytes) + (0 if self._bounds is None else self._bounds.nbytes)


def _packed(experience_id: str) -> bytes:
    if _OURS.fullmatch(experience_id):
        return _DIGITS + bytes.fromhex(experience_id)
    return experience_id.encode("utf-8")


def _unpacked(packed: bytearray) -> str:
    return packed[1:].hex() if packed[:1] == _DIGITS else packed.decode("utf-8")
