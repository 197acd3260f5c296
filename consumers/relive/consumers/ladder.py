"""What a state has to fit, to be gone on from: this log, and this program."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import get_args

from relive.consumers.committed import Committed, last_committed
from relive.consumers.manifest import Manifest
from relive.consumers.opening import Backend
from relive.consumers.snapshots import Snapshot, Snapshots
from relive.core.state import FOLD_VERSION, PartitionState, combined_digest
from relive.core.tail import KeyValues, Tail
from relive.errors import (
    LogReplaced,
    ReliveError,
    SnapshotError,
    SnapshotUnsound,
    StateDamaged,
    StateUnrecoverable,
    StoreIncompatible,
)
from relive.log import EventLog
from relive.schemas.released import lock_entries


class Ladder:
    """Tells the states that are of use from those that are passed over, and remembers why.

    Args:
        log: that the state has to be of.

    Attributes:
        passed_over: what was of no use, and why.
    """

    def __init__(self, log: EventLog) -> None:
        self._event_log = log
        self._identity = log.identity()
        self.passed_over: list[str] = []

    def pass_over(self, what: str, reason: ReliveError) -> None:
        """Note that something was of no use."""
        self.passed_over.append(f"{what}: {reason}")

    def checked(self, store: KeyValues) -> Committed | None:
        """What a store holds, if it fits; None if it is empty.

        That it holds what was written is for the store to see to.

        Raises:
            StoreIncompatible: says why it does not fit.
            LogReplaced: it is of another log.
        """
        committed = last_committed(store)
        if committed is None:
            return None
        if committed.log != self._identity:
            raise LogReplaced(committed.log, self._identity)
        if problem := self._misfit(committed):
            raise StoreIncompatible(problem)
        return committed

    def usable(self, snapshots: Snapshots, distrusted: Sequence[str]) -> Iterator[Snapshot]:
        """Snapshots that this program could go on from, newest first; their files may be damaged.

        A snapshot is asked for only when the ones before it were no good.
        """
        try:
            all_found = snapshots.found()
        except SnapshotError as error:
            self.pass_over("all snapshots", error)
            return
        for found in all_found:
            if isinstance(found, Snapshot):
                problem = self._unusable(found.manifest)
                if found.path.name in distrusted:
                    problem = "the state restored from it turned out damaged"
                if problem is None:
                    yield found
                else:
                    self.pass_over(f"snapshot {found.path.name}", SnapshotUnsound(problem))
            else:
                path, unsound = found
                self.pass_over(f"snapshot {path.name}", unsound)

    def check_log_is_whole(self) -> None:
        """Refuse to start from a log whose beginning was removed.

        Raises:
            StateUnrecoverable: it was.
        """
        for partition in range(self._event_log.partitions):
            bounds = self._event_log.bounds(partition)
            if bounds.first > 0:
                raise StateUnrecoverable(partition, bounds.first, bounds.end, self.passed_over)

    def _unusable(self, manifest: Manifest) -> str | None:
        if manifest.state.log != self._identity:
            return f"it is of another log, {manifest.state.log}"
        if manifest.store not in get_args(Backend):
            return f"it is of a {manifest.store} store, which this version has not"
        if other := manifest.schemas.items() - lock_entries().items():
            names = ", ".join(sorted(name for name, _ in other))
            return f"relive {manifest.relive} wrote it, whose events differ in {names}"
        return self._misfit(manifest.state)

    def _misfit(self, state: Committed) -> str | None:
        if state.fold_version != FOLD_VERSION:
            return f"it has fold version {state.fold_version}, this program {FOLD_VERSION}"
        partitions = range(self._event_log.partitions)
        if list(state.positions) != list(partitions):
            return f"it has {len(state.positions)} partitions, the log {len(partitions)}"
        for partition, position in state.positions.items():
            bounds = self._event_log.bounds(partition)
            if not bounds.first <= position <= bounds.end:
                return (
                    f"it is at position {position} of partition {partition}, and the log has "
                    f"{bounds.first} to {bounds.end}"
                )
        return None


def check_state(store: KeyValues, committed: Committed) -> None:
    """Compare the state in a store with what its last commit said.

    Raises:
        StateDamaged: they differ.
    """
    partitions = len(committed.positions)
    try:
        states = [PartitionState(Tail(store), p, partitions) for p in range(partitions)]
        for state in states:
            state.check()
    except (ValueError, LookupError, struct.error) as error:
        raise StateDamaged(f"it cannot be read: {error!r}") from error
    found = {state.partition: state.position for state in states}
    if found != dict(committed.positions) or combined_digest(states) != committed.digest:
        raise StateDamaged("its digest is not that of the last commit")
