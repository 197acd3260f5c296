"""Events that were set aside, and appending them again.

State is a function of the log, and so is the quarantine: a record that is retried stays listed,
and what came of it is another record, at the log's end. The event id of that other record is made
from the bytes of the first, so that a second retry is noticed (and would be dropped by the fold)
as long as the partition remembers its ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from relive.consumers.store import StateStore
from relive.core.fold import Quarantined, fold
from relive.core.partition import partition_of
from relive.core.state import PartitionState
from relive.core.tail import Tail
from relive.errors import LogGap, UndecodableEvent
from relive.log import EventLog, NewRecord
from relive.schemas import Event, decode, encode
from relive.schemas.events import EVENT_ID_BYTES


@dataclass(frozen=True, slots=True)
class SetAside:
    """A record in quarantine.

    Attributes:
        partition, position: of the record.
        reason: why it could not be folded.
        raw: its bytes.
        event: what they say; None if they are no event.
        experience_id: of the experience it is about, by the event or else the record's key; None
            where neither says.
        live_at: partition and position of the record that recorded the experience of that id
            which is live now; None if none is.
        retried: whether it was appended again, among the last events of the log.
    """

    partition: int
    position: int
    reason: str
    raw: bytes
    event: Event | None
    experience_id: str | None
    live_at: tuple[int, int] | None
    retried: bool


def quarantine(log: EventLog, states: Sequence[PartitionState]) -> Iterator[SetAside]:
    """The records in quarantine, by partition, in order.

    Args:
        log: asked for the keys of records that are no events.
        states: of all partitions.
    """
    for state in states:
        for position, reason, raw in state.quarantined():
            try:
                event = decode(raw)
            except UndecodableEvent:
                event = None
            named = getattr(event, "experience_id", None) or _key(log, state.partition, position)
            yield SetAside(
                state.partition,
                position,
                reason,
                raw,
                event,
                named,
                _live_at(states, named),
                any(_retry_id(raw) in other.recent for other in states),
            )


def retry_record(record: SetAside, event: Event, partitions: int) -> NewRecord:
    """The record that appends an event again.

    Args:
        record: what was set aside.
        event: its event, or a repaired one.
        partitions: of the log.
    """
    again = event._replace(event_id=_retry_id(record.raw))
    experience_id = getattr(event, "experience_id", None)
    if experience_id is None:  # it is about its whole partition
        return NewRecord(record.partition, b"", encode(again))
    home = partition_of(experience_id, partitions)
    return NewRecord(home, experience_id.encode("utf-8"), encode(again))


def refusal(store: StateStore, record: NewRecord, partitions: int) -> str | None:
    """Why a record would be set aside if it came now; None if it would be folded.

    Args:
        store: holds the state, which stays as it is.
        record: to try.
        partitions: of the log.
    """
    state = PartitionState(Tail(store), record.partition, partitions)
    for change in fold(state, record.value, state.position):
        if isinstance(change, Quarantined):
            return change.reason
    return None


def _retry_id(raw: bytes) -> bytes:
    return hashlib.blake2b(raw, digest_size=EVENT_ID_BYTES, person=b"relive retry").digest()


def _key(log: EventLog, partition: int, position: int) -> str | None:
    try:
        records = log.read({partition: position}, max_records=1)
    except LogGap:  # removed
        return None
    if not records or records[0].position != position:
        return None
    try:
        return records[0].key.decode("utf-8") or None
    except UnicodeDecodeError:
        return None


def _live_at(states: Sequence[PartitionState], experience_id: str | None) -> tuple[int, int] | None:
    if experience_id is None:
        return None
    row = states[partition_of(experience_id, len(states))].row(experience_id)
    return None if row is None else (row.partition, row.position)
