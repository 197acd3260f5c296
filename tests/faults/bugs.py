"""Bugs of the kind that the fault tests exist for, to be planted in a child.

Each is what could really be wrong with a log, a store, a fold or an index; `test_checker.py` shows
that the checker finds every one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from relive.buffer import Experience, ExperienceBuffer
from relive.consumers.durable_store import DurableStore
from relive.core import fold as folding
from relive.core.fold import Added, fold
from relive.core.tail import Changes, Table
from relive.errors import DuplicateExperience, InvalidExperience
from relive.index_service import Engine
from relive.index_service.projections import Projections
from relive.log import Bounds, NewRecord, Record
from relive.log.sqlite import SqliteLog
from relive.producers.compose import Composer, keyed_record
from relive.schemas import ExperienceRetired, OutcomeReported, decode, encode

# Often enough to happen in any run, seldom enough to be missed by a careless look.
EVERY = 7


def an_append_is_acknowledged_and_never_written() -> None:
    """After some time the log only keeps in memory what it is given, and reads it from there."""
    append, read, bounds = SqliteLog.append, SqliteLog.read, SqliteLog.bounds
    appended = _counter()
    kept: list[Record] = []

    def pretended_bounds(self: SqliteLog, partition: int) -> Bounds:
        found = bounds(self, partition)
        return Bounds(found.first, found.end + len(kept))

    def pretended_append(self: SqliteLog, records: Sequence[NewRecord]) -> list[int]:
        if appended() <= 2 * EVERY:
            return append(self, records)
        end = self.bounds(0).end
        kept.extend(Record(0, at, 0, r.key, r.value) for at, r in enumerate(records, end))
        return list(range(end, end + len(records)))

    def pretended_read(
        self: SqliteLog, positions: Mapping[int, int], max_records: int = 1_000, wait_s: float = 0.0
    ) -> list[Record]:
        from_memory = [record for record in kept if record.position >= positions[0]]
        if from_memory and from_memory[0].position == positions[0]:
            return from_memory
        return read(self, positions, max_records, 0.0 if from_memory else min(wait_s, 0.01))

    _put(SqliteLog, "append", pretended_append)
    _put(SqliteLog, "read", pretended_read)
    _put(SqliteLog, "bounds", pretended_bounds)


def half_a_group_is_written() -> None:
    inner = SqliteLog.append

    def append(self: SqliteLog, records: Sequence[NewRecord]) -> list[int]:
        if len(records) > 1:
            inner(self, records[: len(records) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return inner(self, records)

    _put(SqliteLog, "append", append)


def what_is_refused_is_recorded_all_the_same() -> None:
    inner = ExperienceBuffer.add_many

    def add_many(self: ExperienceBuffer, experiences: Sequence[Experience]) -> list[Any]:
        try:
            return inner(self, experiences)
        except DuplicateExperience:
            event = Composer().experience(experiences[0])
            self._event_log.append([keyed_record(event, 1)])
            raise

    _put(ExperienceBuffer, "add_many", add_many)


def something_else_is_recorded_in_place_of_what_is_refused() -> None:
    inner = ExperienceBuffer.add_many

    def add_many(self: ExperienceBuffer, experiences: Sequence[Experience]) -> list[Any]:
        try:
            return inner(self, experiences)
        except InvalidExperience:
            inner(self, [Experience(id=experiences[0].id, visual=[1.0] * 16)])
            raise

    _put(ExperienceBuffer, "add_many", add_many)


def what_must_be_refused_is_accepted() -> None:
    inner = ExperienceBuffer.add_many

    def add_many(self: ExperienceBuffer, experiences: Sequence[Experience]) -> list[Any]:
        try:
            return inner(self, experiences)
        except InvalidExperience:
            return []

    _put(ExperienceBuffer, "add", lambda self, experience: add_many(self, [experience]))


def a_row_is_not_committed() -> None:
    _at_commit(Table.ROWS, lambda key, value, at: {} if at % EVERY == 0 else {key: value})


def a_payload_is_not_committed() -> None:
    _at_commit(Table.PAYLOADS, lambda key, value, at: {} if at % EVERY == 0 else {key: value})


def only_the_positions_are_committed() -> None:
    for table in (Table.ROWS, Table.PAYLOADS, Table.IDS):
        _at_commit(table, lambda key, value, at: {})


def a_removal_is_not_committed() -> None:
    for table in (Table.ROWS, Table.PAYLOADS, Table.IDS):
        _at_commit(table, lambda key, value, at: {} if value is None else {key: value})


def an_id_is_not_committed() -> None:
    _at_commit(Table.IDS, lambda key, value, at: {} if at % EVERY == 0 else {key: value})


def an_embedding_is_another_ones() -> None:
    """Two experiences swap what was recorded of them, checksums of the file included."""
    inner = DurableStore.commit

    def commit(self: DurableStore, changes: Changes) -> None:
        payloads = dict(changes[Table.PAYLOADS])
        there = [key for key, value in payloads.items() if value is not None]
        if len(there) > 1:
            payloads[there[0]], payloads[there[1]] = payloads[there[1]], payloads[there[0]]
        inner(self, {**changes, Table.PAYLOADS: payloads})

    _put(DurableStore, "commit", commit)


def an_outcome_is_not_folded() -> None:
    _skipped(OutcomeReported)


def a_removal_is_not_folded() -> None:
    _skipped(ExperienceRetired)


def an_event_is_folded_twice() -> None:
    folded = _counter()

    def folded_twice(state: Any, raw: bytes, position: int, prepared: Any = None) -> Any:
        changes = fold(state, raw, position, prepared)
        event = decode(raw)
        if folded() % EVERY == 0 and isinstance(event, OutcomeReported):
            again = event._replace(event_id=os.urandom(16), retrieval_id="again")
            changes += fold(state, encode(again), position + 1)
            state.position = position + 1
        return changes

    _put(folding, "fold", folded_twice)


def recovery_restores_rows_but_not_vectors() -> None:
    inner = Projections.load

    def load(self: Projections) -> None:
        inner(self)
        index, positions = self.indexing.index, self._materializer.positions()
        for row in list(self._materializer.states[0].rows())[::EVERY]:
            from relive.index_service.segments import RowKey

            key = RowKey(row.partition, row.position)
            index.apply([], index.view.space.rows([], []), [key], positions)

    _put(Projections, "load", load)


def a_removed_vector_is_still_found() -> None:
    inner = Engine._follow

    def follow(self: Engine, changes: Sequence[Any], positions: Mapping[int, int]) -> None:
        inner(self, [change for change in changes if isinstance(change, Added)], positions)

    _put(Engine, "_follow", follow)


def an_embedding_is_read_wrong() -> None:
    inner = ExperienceBuffer.get

    def get(self: ExperienceBuffer, experience_id: str) -> Experience | None:
        found = inner(self, experience_id)
        if found is None or found.visual is None:
            return found
        import numpy as np

        visual = np.array(found.visual)
        visual[3] = np.nextafter(visual[3], np.float32(9))
        return replace(found, visual=visual)

    _put(ExperienceBuffer, "get", get)


WRITING: tuple[Callable[[], None], ...] = (
    an_append_is_acknowledged_and_never_written,
    half_a_group_is_written,
    what_is_refused_is_recorded_all_the_same,
    something_else_is_recorded_in_place_of_what_is_refused,
    what_must_be_refused_is_accepted,
    a_row_is_not_committed,
    a_payload_is_not_committed,
    only_the_positions_are_committed,
    a_removal_is_not_committed,
    an_id_is_not_committed,
    an_embedding_is_another_ones,
    an_outcome_is_not_folded,
    a_removal_is_not_folded,
    an_event_is_folded_twice,
)
READING: tuple[Callable[[], None], ...] = (
    recovery_restores_rows_but_not_vectors,
    a_removed_vector_is_still_found,
    an_embedding_is_read_wrong,
)


def plant(name: str) -> None:
    """Plant a bug in this process."""
    (bug,) = (bug for bug in WRITING + READING if bug.__name__ == name)
    bug()


def _put(owner: object, name: str, replacement: Callable[..., Any]) -> None:
    assert hasattr(owner, name)
    setattr(owner, name, replacement)


def _counter() -> Callable[[], int]:
    count = 0

    def counted() -> int:
        nonlocal count
        count += 1
        return count

    return counted


def _at_commit(
    table: Table, change: Callable[[bytes, bytes | None, int], Mapping[bytes, bytes | None]]
) -> None:
    inner = DurableStore.commit

    def commit(self: DurableStore, changes: Changes) -> None:
        entries: dict[bytes, bytes | None] = {}
        for at, (key, value) in enumerate(changes[table].items()):
            entries.update(change(key, value, at))
        inner(self, {**changes, table: entries})

    _put(DurableStore, "commit", commit)


def _skipped(kind: type) -> None:
    seen = _counter()

    def folded_or_not(state: Any, raw: bytes, position: int, prepared: Any = None) -> Any:
        if isinstance(decode(raw), kind) and seen() % 2 == 0:
            state.position = position + 1
            return []
        return fold(state, raw, position, prepared)

    _put(folding, "fold", folded_or_not)
