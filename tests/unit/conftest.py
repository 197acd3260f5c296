"""Logs with positions that hold no record, as Kafka has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from relive.log import Bounds, EventLog, NewRecord, Record
from relive.log.memory import MemoryLog


class GappyLog(MemoryLog):
    """Record n is at position 3·n + 1; before, between and after the records there is nothing."""

    def append(self, records: Sequence[NewRecord]) -> list[int]:
        return [3 * position + 1 for position in super().append(records)]

    def read(
        self, positions: Mapping[int, int], max_records: int = 1_000, wait_s: float = 0.0
    ) -> list[Record]:
        dense = {partition: (position + 1) // 3 for partition, position in positions.items()}
        found = super().read(dense, max_records, wait_s)
        return [record._replace(position=3 * record.position + 1) for record in found]

    def bounds(self, partition: int) -> Bounds:
        return Bounds(0, 3 * super().bounds(partition).end)


@pytest.fixture(scope="session", params=[MemoryLog, GappyLog], ids=["dense", "with-gaps"])
def make_log(request: pytest.FixtureRequest) -> Callable[..., EventLog]:
    """Makes logs in memory: `make_log(3)` has three partitions."""
    make: Callable[..., EventLog] = request.param
    return make
