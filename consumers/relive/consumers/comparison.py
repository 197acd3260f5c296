"""Whether a kept state is what the log says."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

from relive.consumers.store import StateStore
from relive.core.state import PartitionState, partition_keys
from relive.core.tail import Table, Tail

# What the digest covers as it was kept up to date is compared as it lies there, too. The others:
# positions, settings and counters are in the digest; old chunks of recent ids are cut at commits.
_COMPARED = sorted(set(Table) - {Table.META, Table.RECENT})


@dataclass(frozen=True, slots=True)
class PartitionCheck:
    """A partition of a kept state beside the same partition of a replay.

    Attributes:
        partition, position: which, up to where.
        kept, replayed: the digests.
        differing: tables whose content differs, whatever the digest says.
    """

    partition: int
    position: int
    kept: str
    replayed: str
    differing: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether the kept state is what the log says."""
        return self.kept == self.replayed and not self.differing


def compare_states(kept: StateStore, replayed: StateStore, partitions: int) -> list[PartitionCheck]:
    """Compare two committed states of the same log at the same positions, to the byte."""
    checks = []
    for partition in range(partitions):
        mine, theirs = (PartitionState(Tail(s), partition, partitions) for s in (kept, replayed))
        differing = tuple(
            table.value for table in _COMPARED if _differ(kept, replayed, table, partition)
        )
        checks.append(
            PartitionCheck(partition, mine.position, mine.digest(), theirs.digest(), differing)
        )
    return checks


def _differ(kept: StateStore, replayed: StateStore, table: Table, partition: int) -> bool:
    start, stop = partition_keys(partition)
    entries = (store.scan(table, start, stop) for store in (kept, replayed))
    return any(mine != theirs for mine, theirs in zip_longest(*entries))
