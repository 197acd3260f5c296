"""Moving a log to another backend: the same records, in the same order, in the same partitions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from relive.errors import InvalidConfig, LogGap, LogsDiffer
from relive.log.port import EventLog, NewRecord, Record
from relive.log.prefix import LogPrefix, batches, log_now


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy did.

    Attributes:
        found: records that the target had already.
        appended: records that were added to it.
    """

    found: int
    appended: int


def copy_log(source: LogPrefix, target: EventLog) -> Copied:
    """Append to the target what it lacks of the source.

    What the target has must be the beginning of the source: so a copy that was interrupted goes
    on where it ended, and another log is never written into. Nobody else may write to the target
    meanwhile. Keys and values stay the same, and with them the state; positions and times are the
    target's own.

    Args:
        source: up to where to copy.
        target: empty, or what an interrupted copy left.

    Raises:
        InvalidConfig: the two are the same log, or have different numbers of partitions.
        LogGap: the beginning of one of them was removed.
        LogsDiffer: the target has other records. Nothing was appended.
        LogUnavailable, LogReplaced, LogDamaged: see `EventLog`; copying again goes on.
    """
    if source.identity() == target.identity():
        raise InvalidConfig("to", target.identity(), "is the log that is to be copied")
    if source.partitions != target.partitions:
        raise InvalidConfig(
            "partitions",
            target.partitions,
            f"the log to copy has {source.partitions}, and each experience has its partition",
        )
    there = log_now(target)
    starts: dict[int, int] = {}
    for partition in range(source.partitions):
        for log in (source, there):
            bounds = log.bounds(partition)
            if bounds.first > 0:
                raise LogGap(partition, 0, bounds.first, bounds.end)
        starts[partition] = _first_missing(source, there, partition)
    found, appended = there.handed_out, 0
    for records in batches(source, starts):
        target.append([NewRecord(r.partition, r.key, r.value) for r in records])
        appended += len(records)
    return Copied(found, appended)


def _first_missing(source: LogPrefix, target: LogPrefix, partition: int) -> int:
    """The source's position of the first record that the target lacks."""
    mine = _records(source, partition)
    after = 0
    for theirs in _records(target, partition):
        record = next(mine, None)
        if record is None or (record.key, record.value) != (theirs.key, theirs.value):
            raise LogsDiffer(
                f"partition {partition}: the target has another record at {theirs.position} than "
                f"the source at {after if record is None else record.position}; "
                "copy into a new log"
            )
        after = record.position + 1
    return after


def _records(log: LogPrefix, partition: int) -> Iterator[Record]:
    for records in batches(log, {partition: 0}):
        yield from records
