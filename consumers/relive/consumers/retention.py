"""How much of the log may go: nothing that a kept snapshot, or the store, still needs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from relive.consumers.ladder import Ladder
from relive.consumers.progress import Progress
from relive.consumers.snapshots import Snapshots
from relive.core.results import Positions
from relive.errors import SnapshotUnsound, TrimRefused
from relive.log import Bounds, EventLog
from relive.log.findings import Finding, Verdict

# Removed in pieces, so that one can tell how far it is.
_LEAST_AT_ONCE, _MOST_PIECES = 2_000, 100

_log = logging.getLogger(__name__)


def all_but_the_last(bounds: Mapping[int, Bounds], events: int) -> dict[int, int]:
    """The positions that leave so many events of every partition."""
    return {partition: bound.end - events for partition, bound in bounds.items()}


def allowed(
    bounds: Mapping[int, Bounds], wanted: Positions, needed: Sequence[Positions]
) -> dict[int, int]:
    """The first positions that may stay, of the partitions that may lose something.

    Args:
        bounds: of the log.
        wanted: remove everything before these.
        needed: but nothing at or after any of these.
    """
    first = {
        partition: min([position, bounds[partition].end, *(each[partition] for each in needed)])
        for partition, position in wanted.items()
    }
    return {p: position for p, position in first.items() if position > bounds[p].first}


def bounds_of(log: EventLog) -> dict[int, Bounds]:
    """The bounds of every partition."""
    return {partition: log.bounds(partition) for partition in range(log.partitions)}


def trim(
    log: EventLog,
    wanted: Positions,
    kept: Sequence[Positions],
    committed: Positions | None,
    progress: Progress | None = None,
) -> dict[int, int]:
    """Remove the log's beginning, as far as what is kept allows.

    Args:
        log: to trim.
        wanted: remove everything before these.
        kept: positions of all snapshots; one of them is known to be sound.
        committed: of the store, where its positions are known.
        progress: told how many positions are gone.

    Returns:
        the first positions now, of the partitions that lost something.

    Raises:
        LogUnavailable, LogReplaced: as for the log.
    """
    needed = [*kept, *([] if committed is None else [committed])]
    progress = progress or Progress()
    bounds = bounds_of(log)
    first = allowed(bounds, wanted, needed)
    total = sum(position - bounds[partition].first for partition, position in first.items())
    progress.begin("trimming the log", total)
    # Kafka removes any number at once, so that many pieces of each partition would take longer.
    piece = max(_LEAST_AT_ONCE, -(-total // _MOST_PIECES))
    for partition, position in first.items():
        done = bounds[partition].first
        while done < position:
            before, done = done, min(position, done + piece)
            log.truncate_before(partition, done)
            if done < position:  # another process may have removed more
                done = max(done, log.bounds(partition).first)
            progress.add(min(done, position) - before)
        _log.info("partition %d of the log begins at %d now", partition, position)
    return first


def kept_by_snapshots(log: EventLog, snapshots: Snapshots) -> Finding:
    """Whether a snapshot holds what the log's beginning gave, where that was removed.

    Whoever removed it: `relive log trim`, which sees to it, or retention at the broker, which
    knows of no snapshots. Manifests are read, files are not.

    Raises:
        LogUnavailable, LogReplaced: as for the log.
    """
    bounds = bounds_of(log)
    first = {partition: bound.first for partition, bound in bounds.items()}
    about, value = "log's beginning", ", ".join(f"{p}:{at}" for p, at in first.items())
    if not any(first.values()):
        return Finding(about, value, Verdict.OK, "the log is whole")
    enough = [
        snapshot
        for snapshot in snapshots.readable(log.identity())
        if all(snapshot.positions[partition] >= at for partition, at in first.items())
    ]
    if enough:
        says = f"removed; {len(enough)} snapshots hold what it gave"
        return Finding(about, value, Verdict.OK, says)
    return Finding(
        about,
        value,
        Verdict.LOSES,
        f"it was removed, and no snapshot in {snapshots.directory} holds what it gave: a state "
        "that is lost cannot be made again",
        "take one where the state is still kept, before that is lost too: relive snapshot create",
    )


def check_recoverable(log: EventLog, snapshots: Snapshots) -> None:
    """Refuse to remove anything that could not be recovered from a snapshot.

    Raises:
        TrimRefused: no snapshot is sound; says what is wrong with each.
    """
    ladder = Ladder(log)
    for snapshot in ladder.usable(snapshots, ()):
        try:
            snapshots.verify(snapshot)
        except SnapshotUnsound as reason:
            ladder.pass_over(f"snapshot {snapshot.path.name}", reason)
        else:
            return
    found = "; ".join(ladder.passed_over) or "there is none"
    raise TrimRefused(
        f"no snapshot in {snapshots.directory} holds what would be removed ({found}); "
        "take one first: relive snapshot create"
    )
