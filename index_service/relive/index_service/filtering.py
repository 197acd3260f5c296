"""Filters over a state that goes on: their columns, and what it takes to have one for a key."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TypeAlias

import numpy as np

from relive.consumers import Materializer
from relive.core.document import Document, from_json
from relive.core.filter import Filter, ScalarKey
from relive.core.state import PartitionState
from relive.index_service.filter_columns import FilterColumns, KeyColumn, Selected, coded
from relive.index_service.scan import IndexArray
from relive.schemas import ExperienceRecorded, decode
from relive.schemas.metadata_text import metadata_text

# What came in while the metadata was read is read in a further pass, the rest under the lock.
_PASSES = 4
_FEW_ROWS = 256

_Locked: TypeAlias = Callable[[], AbstractContextManager[Sequence[PartitionState]]]
_PayloadOf: TypeAlias = Callable[[int, int], bytes | None]


class Filtering:
    """Says which rows match a filter.

    Attributes:
        columns: of the live rows; replaced as a whole when they are loaded anew.
    """

    def __init__(self, materializer: Materializer) -> None:
        self._materializer = materializer
        self._learning = threading.Lock()
        self.columns = FilterColumns(materializer.positions())

    def prepare(self, wanted: Filter) -> None:
        """Have a column for every metadata key of a filter; not to be called under the fold's lock.

        The first filter by a key waits for a pass over the metadata of all live rows.
        """
        if self.columns.missing(wanted):
            with self._learning:
                self._learn(wanted)

    def selected(self, wanted: Filter, positions: Mapping[int, int]) -> Selected | None:
        """Which rows of a view match; see `FilterColumns.selected`."""
        return self.columns.selected(wanted, positions)

    def prepare_now(self, wanted: Filter) -> None:
        """The same under the fold's lock, which others then wait for."""
        # Not under `_learning`, whose holder may wait for the lock.
        self._learn(wanted)

    def matching_now(self, wanted: Filter) -> list[IndexArray]:
        """The positions of the live rows that match, by partition, rising; under the fold's lock.

        What `prepare` has not prepared is read while the lock is held.
        """
        self._learn(wanted)
        return self.columns.live_matching(wanted, self._materializer.positions())

    def _learn(self, wanted: Filter) -> None:
        missing = self.columns.missing(wanted)
        if missing:
            learn_keys(self.columns, missing, self._materializer.locked, self._payload)

    def _payload(self, partition: int, position: int) -> bytes | None:
        return self._materializer.states[partition].payload(position)


def learn_keys(
    columns: FilterColumns, keys: Sequence[str], locked: _Locked, payload_of: _PayloadOf
) -> None:
    """Make columns of metadata keys by reading the metadata of all live rows.

    Args:
        columns: of the live rows; what they lack is added.
        keys: which.
        locked: keeps the fold from going on. It is held for the last few rows only.
        payload_of: what recorded the row of a partition and a position, None if it is gone.
    """
    with locked() as states:
        reads = [_Read(keys, payload_of, state.partition) for state in states]
    for more_passes in reversed(range(_PASSES)):
        with locked() as states:
            todo = [columns.live_after(read.partition, read.until) for read in reads]
            if not more_passes or sum(map(len, todo)) <= _FEW_ROWS:
                for state, read, positions in zip(states, reads, todo, strict=True):
                    read.take(positions)
                    columns.put_keys(state.partition, *read.columns(state.position))
                return
        for read, positions in zip(reads, todo, strict=True):
            read.take(positions)


class _Read:
    """What was read of one partition so far."""

    def __init__(self, keys: Sequence[str], payload_of: _PayloadOf, partition: int) -> None:
        self.partition = partition
        self.until = -1
        self._payload_of = payload_of
        self._positions = array("q")
        self._codes: dict[str, tuple[dict[ScalarKey, int], array[int]]] = {
            key: ({}, array("i")) for key in keys
        }

    def take(self, positions: Sequence[int]) -> None:
        for position in positions:
            document = _metadata(self._payload_of(self.partition, position))
            for key, (codes, of_rows) in self._codes.items():
                of_rows.extend(coded((document,), key, codes))
            self._positions.append(position)
            self.until = position

    def columns(self, since: int) -> tuple[IndexArray, dict[str, KeyColumn]]:
        return np.array(self._positions, dtype=np.int64), {
            key: KeyColumn(codes, np.array(of_rows, dtype=np.int32), since)
            for key, (codes, of_rows) in self._codes.items()
        }


def _metadata(payload: bytes | None) -> Document:
    """The metadata in an encoded experience; of one that is gone, none."""
    if payload is None:
        return None
    text = metadata_text(payload)
    if text is None:
        event = decode(payload)
        assert isinstance(event, ExperienceRecorded)
        text = event.metadata
    return from_json(text)
