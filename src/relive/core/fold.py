"""The fold: what one event does to the state of its partition.

A function of the state, the event and its position alone: no clock, no randomness, so that every
machine that reads the same log holds the same state, whatever the batches and restarts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from itertools import groupby
from typing import Any, NamedTuple, TypeAlias

from relive.core.experience import check_recorded, checked_id, content_digest, finite, not_negative
from relive.core.partition import partition_of, share_of
from relive.core.row import Row, pack_new_row, unpack_row
from relive.core.settings import Settings, checked_settings, settings_from
from relive.core.state import PartitionState, Use, hash16
from relive.errors import FieldError, InvalidConfig, InvalidExperience, UndecodableEvent
from relive.schemas import (
    BufferCleared,
    Event,
    ExperienceRecorded,
    ExperienceRetired,
    ExperiencesRetrieved,
    OutcomeReported,
    PrioritiesUpdated,
    PriorityUpdated,
    SettingsChanged,
    decode,
)

# An outcome waits for its experience for this many events of its partition.
PARKED_FOR = 100_000

_Dimensions: TypeAlias = tuple[int | None, int | None]  # visual and text

_NO_OUTCOME = Use(revision=-(2**63), outcome=-1, reward=-math.inf)


class Cause(StrEnum):
    """Why a row went."""

    EVICTED = "evicted"
    RETIRED = "retired"


class Added(NamedTuple):
    """A row came."""

    row: Row
    event: ExperienceRecorded


class Updated(NamedTuple):
    """A row changed."""

    row: Row


class Removed(NamedTuple):
    """A row went."""

    row: Row
    cause: Cause


class Cleared(NamedTuple):
    """Every row of a partition went."""

    partition: int


class SettingsAdopted(NamedTuple):
    """Other settings are in force for a partition."""

    partition: int
    settings: Settings


class Judged(NamedTuple):
    """Of a trainer's priorities in one event, how many were taken, and why others were not."""

    event_id: bytes
    updated: int
    stale: int
    unknown: int


class Quarantined(NamedTuple):
    """An event could not be folded and was set aside."""

    partition: int
    position: int
    reason: str


Change: TypeAlias = Added | Updated | Removed | Cleared | SettingsAdopted | Judged | Quarantined


class _Conflict(Exception):
    """The event contradicts the state; it goes to quarantine."""


class Prepared(NamedTuple):
    """A record, as far as it can be worked on before its turn comes.

    Attributes:
        event: None for what is no event.
        content: `content_digest` of an experience that is acceptable.
        refused: why it is to be set aside.
    """

    event: Event | None
    content: bytes = b""
    refused: UndecodableEvent | FieldError | None = None


def prepare(
    batch: Sequence[bytes], known: Sequence[ExperienceRecorded | None] | None = None
) -> list[Prepared]:
    """What of folding records takes most of the time, and needs no state.

    One step for all records and then the next: to do all steps for one record and then for the
    next takes a fifth longer, because no code stays where the processor looks first.

    Args:
        batch: the records' values.
        known: what they encode, checked, from whoever encoded them; saves doing both again.
    """
    given = known or [None] * len(batch)
    events = [e or _decoded(raw) for e, raw in zip(given, batch, strict=True)]
    refused = [
        _refusal(event) if e is None else None for e, event in zip(given, events, strict=True)
    ]
    return [
        Prepared(event, content_digest(event))
        if type(event) is ExperienceRecorded and refusal is None
        else Prepared(None if isinstance(event, UndecodableEvent) else event, b"", refusal)
        for event, refusal in zip(events, refused, strict=True)
    ]


def _decoded(raw: bytes) -> Event | UndecodableEvent:
    try:
        return decode(raw)
    except UndecodableEvent as refused:
        return refused


def _refusal(event: Event | UndecodableEvent) -> UndecodableEvent | FieldError | None:
    if type(event) is ExperienceRecorded:
        try:
            check_recorded(event)
        except FieldError as refused:
            return refused
        return None
    return event if isinstance(event, UndecodableEvent) else None


def _read_ahead(state: PartitionState, batch: Iterable[Prepared]) -> None:
    """Look up at once what folding the records will ask for one by one."""
    ids: list[str] = []
    for event, _, _ in batch:
        if type(event) is ExperienceRecorded:
            ids.append(event.experience_id)
        elif isinstance(event, ExperiencesRetrieved | PrioritiesUpdated):
            ids += event.experience_ids
        elif event is not None and not isinstance(event, BufferCleared | SettingsChanged):
            ids.append(event.experience_id)
    state.read_ahead(ids)


def fold_batch(
    state: PartitionState, batch: Sequence[tuple[bytes, int, Prepared]]
) -> list[Collection[Change]]:
    """Fold records of a partition, as `fold` would one by one; says what changed, step by step.

    A step is a record, or new experiences in a row of which there is nothing else to say: these
    are folded together, in a third of the time. What gives way to them is a step of its own.

    Args:
        state: see `fold`.
        batch: the value of each record, its position, and what `prepare` made of it.
    """
    steps: list[Collection[Change]] = []
    _read_ahead(state, [prepared for _, _, prepared in batch])
    for acceptable, records in groupby(batch, key=_is_acceptable):
        group = list(records)
        if acceptable and len(group) > 1:
            run = _Run.of(group)
            if _are_plain(state, run):
                state.recent.add(run.event_ids)
                steps.append(_add(state, run))
                if evicted := _evict(state):
                    steps.append(evicted)
                state.position = run.positions[-1] + 1
                continue
        steps += [fold(state, raw, position, each) for raw, position, each in group]
    return steps


def _is_acceptable(record: tuple[bytes, int, Prepared]) -> bool:
    """Whether it records an experience, and could be folded by itself."""
    return bool(record[2].content)


class _Run(NamedTuple):
    """Acceptable experiences in a row, by column: values of the records, positions, …"""

    raws: Sequence[bytes]
    positions: Sequence[int]
    events: Sequence[ExperienceRecorded]
    contents: Sequence[bytes]
    event_ids: Sequence[bytes]
    ids: Sequence[str]

    @classmethod
    def of(cls, records: Sequence[tuple[bytes, int, Prepared]]) -> _Run:
        raws, positions, prepared = zip(*records, strict=True)
        events: Sequence[ExperienceRecorded]
        events, contents, _ = zip(*prepared, strict=True)
        event_ids = [event.event_id for event in events]
        return cls(
            raws, positions, events, contents, event_ids, [event.experience_id for event in events]
        )


class _AddedRun(Collection[Added]):
    """What is told of rows added together. Made when somebody asks: a replay into a store has
    nobody who does.
    """

    def __init__(self, partition: int, run: _Run, packed: Sequence[bytes]) -> None:
        self._partition, self._run, self._packed = partition, run, packed

    def __len__(self) -> int:
        return len(self._packed)

    def __contains__(self, change: object) -> bool:
        return change in list(self)

    def __iter__(self) -> Iterator[Added]:
        partition = self._partition
        for position, packed, event in zip(
            self._run.positions, self._packed, self._run.events, strict=True
        ):
            yield Added(unpack_row(partition, position, packed), event)


def _are_plain(state: PartitionState, run: _Run) -> bool:
    """Whether all that folding these in a row does is to add their rows.

    Evicting after all of them is the same as after each: what has to go is what comes first, by
    age or by priority, of all there are.
    """
    count, partitions = len(run.ids), state.partitions
    visual, text = state.settings.visual_dim, state.settings.text_dim
    fitting = {(visual, text), (visual, None), (None, text)}
    return (
        not state.counters.parked
        and len(set(run.ids)) == len(set(run.event_ids)) == count
        and fitting.issuperset(map(_dimensions, run.events))
        and state.recent.has_none_of(run.event_ids)
        and state.has_none_of(run.ids)
        and (
            partitions == 1
            or all(partition_of(each, partitions) == state.partition for each in run.ids)
        )
    )


def fold(
    state: PartitionState, raw: bytes, position: int, prepared: Prepared | None = None
) -> list[Change]:
    """Fold the record at a position into the state; says what changed, in order.

    An event that is not readable or not acceptable changes nothing but the quarantine.

    Args:
        state: of the record's partition, at or before the position.
        raw: the record's value.
        position: the record's position.
        prepared: what `prepare` made of it, if it was called before.
    """
    assert position >= state.position, (position, state.position)
    event, content, refused = prepare([raw])[0] if prepared is None else prepared
    if event is None:
        assert refused is not None
        changes = _set_aside(state, position, raw, refused)
    else:
        changes = _fold_new(state, event, content, refused, position, raw)
    state.position = position + 1
    return changes


def _fold_new(
    state: PartitionState,
    event: Event,
    content: bytes,
    refused: Exception | None,
    position: int,
    raw: bytes,
) -> list[Change]:
    recent = state.recent
    if event.event_id in recent:
        state.counters.repeats += 1
        return []
    try:
        if refused is not None:
            raise refused
        if isinstance(event, ExperienceRecorded):
            changes = _experience_recorded(state, event, content, position, raw)
        else:
            changes = _FOLDS[type(event)](state, event, raw)
    except (FieldError, _Conflict) as refusal:
        changes = _set_aside(state, position, raw, refusal)
    recent.add((event.event_id,))
    if state.counters.parked:
        state.counters.orphans += state.expire_parked(recent.end - PARKED_FOR)
    return changes


def _set_aside(
    state: PartitionState, position: int, raw: bytes, refused: Exception
) -> list[Change]:
    state.quarantine(position, str(refused), raw)
    return [Quarantined(state.partition, position, str(refused))]


# Each of these refuses (raises) before it changes the state.


def _experience_recorded(
    state: PartitionState, event: ExperienceRecorded, content: bytes, position: int, raw: bytes
) -> list[Change]:
    at_home = partition_of(event.experience_id, state.partitions)
    if at_home != state.partition:
        raise _Conflict(f"experience {event.experience_id!r} belongs to partition {at_home}")
    fixed = state.settings.visual_dim, state.settings.text_dim
    dims = _dimensions(event)
    if dims != fixed:
        dims = _dimensions_with(fixed, dims)
    known = state.row(event.experience_id)
    if known is not None:
        if known.content == content:
            state.counters.repeats += 1
            return []
        state.counters.conflicts += 1
        raise _Conflict(f"experience {event.experience_id!r} is recorded with other content")
    if dims != fixed:
        state.fix_dimensions(*dims)
    (added,) = _add(state, _Run.of([(raw, position, Prepared(event, content))]))
    row = added.row
    for waiting in state.unpark(event.experience_id):
        outcome = decode(waiting)
        assert isinstance(outcome, OutcomeReported)
        row = _with_outcome(state, row, outcome)
    return [added._replace(row=row), *_evict(state)]


def _add(state: PartitionState, run: _Run) -> _AddedRun:
    """Add rows for experiences of which the state has none."""
    packed = [
        pack_new_row(event, ordinal, content)
        for ordinal, (event, content) in enumerate(
            zip(run.events, run.contents, strict=True), state.counters.additions
        )
    ]
    state.add_rows(run.positions, run.ids, packed, run.raws)
    state.counters.additions += len(packed)
    return _AddedRun(state.partition, run, packed)


def _dimensions(event: ExperienceRecorded) -> _Dimensions:
    return (
        None if event.visual is None else len(event.visual) // 4,
        None if event.text is None else len(event.text) // 4,
    )


def _dimensions_with(fixed: _Dimensions, given: _Dimensions) -> _Dimensions:
    """The fixed dimensions, and those given where none are."""
    for name, ours, theirs in zip(("visual", "text"), fixed, given, strict=True):
        if ours is not None and theirs is not None and ours != theirs:
            raise InvalidExperience(name, f"{theirs} dimensions", f"this buffer has {ours}")
    return (
        given[0] if fixed[0] is None else fixed[0],
        given[1] if fixed[1] is None else fixed[1],
    )


def _outcome_reported(state: PartitionState, event: OutcomeReported, raw: bytes) -> list[Change]:
    checked_id("experience_id", event.experience_id)
    if event.retrieval_id is not None:
        checked_id("retrieval_id", event.retrieval_id)
    if event.reward is not None:
        finite("reward", event.reward)
    row = state.row(event.experience_id)
    if row is None:
        state.park(event.experience_id, raw)
        return []
    changed = _with_outcome(state, row, event)
    return [] if changed is row else [Updated(changed)]


def _with_outcome(state: PartitionState, row: Row, event: OutcomeReported) -> Row:
    cited = event.retrieval_id is not None
    register = _register(event.retrieval_id if cited else event.source, cited=cited)
    old = state.use(row, register)
    reward = -math.inf if event.reward is None else event.reward
    new = Use(event.revision, int(event.success), reward)
    known = _NO_OUTCOME if old is None else old
    # Ordered by all of it, so that the winner does not depend on the order of arrival.
    if new <= known:
        return row
    state.put_use(row, register, old, new)
    first_outcome = known.outcome < 0
    state.counters.retrievals += old is None
    state.counters.outcomes += first_outcome
    changed = row._replace(
        retrieval_count=row.retrieval_count + (old is None),
        outcome_count=row.outcome_count + first_outcome,
        success_count=row.success_count + new.outcome - max(known.outcome, 0),
    )
    state.change_row(row, changed)
    return changed


def _experiences_retrieved(
    state: PartitionState, event: ExperiencesRetrieved, raw: bytes
) -> list[Change]:
    checked_id("retrieval_id", event.retrieval_id)
    register = _register(event.retrieval_id, cited=True)
    changes: list[Change] = []
    rows = state.rows_of(event.experience_ids)
    for experience_id in dict.fromkeys(event.experience_ids):
        row = rows.get(experience_id)
        if row is None:
            state.counters.orphans += 1
        elif state.use(row, register) is None:
            state.put_use(row, register, None, _NO_OUTCOME)
            state.counters.retrievals += 1
            changed = row._replace(retrieval_count=row.retrieval_count + 1)
            state.change_row(row, changed)
            changes.append(Updated(changed))
    return changes


def _priority_updated(state: PartitionState, event: PriorityUpdated, raw: bytes) -> list[Change]:
    priority = not_negative("priority", event.priority)
    update = event.experience_id, priority, event.expected_version
    return _judged(state, event.event_id, [update])


def _priorities_updated(
    state: PartitionState, event: PrioritiesUpdated, raw: bytes
) -> list[Change]:
    columns = event.experience_ids, event.priorities, event.expected_versions
    if len(set(map(len, columns))) > 1:
        raise _Conflict(f"the columns are of different lengths: {list(map(len, columns))}")
    for priority in event.priorities:
        not_negative("priorities", priority)
    return _judged(state, event.event_id, list(zip(*columns, strict=True)))


def _judged(
    state: PartitionState, event_id: bytes, updates: Sequence[tuple[str, float, int]]
) -> list[Change]:
    """Take those of the version that the row has.

    Args:
        updates: id, priority and expected version of each.
    """
    changes: list[Change] = []
    stale = unknown = 0
    rows = state.rows_of([experience_id for experience_id, _, _ in updates])
    for experience_id, priority, expected_version in updates:
        row = rows.get(experience_id)
        if row is None:
            unknown += 1
        elif row.version != expected_version:
            stale += 1
        else:
            changed = row._replace(given_priority=priority, version=row.version + 1)
            state.change_row(row, changed)
            rows[experience_id] = changed
            changes.append(Updated(changed))
    updated = len(changes)
    state.counters.priority_updates += updated
    state.counters.stale_updates += stale
    state.counters.unknown_updates += unknown
    return [*changes, Judged(event_id, updated, stale, unknown)]


def _experience_retired(
    state: PartitionState, event: ExperienceRetired, raw: bytes
) -> list[Change]:
    row = state.row(event.experience_id)
    if row is None:
        return []
    state.remove_row(row)
    state.counters.removals += 1
    return [Removed(row, Cause.RETIRED)]


def _buffer_cleared(state: PartitionState, event: BufferCleared, raw: bytes) -> list[Change]:
    for row in list(state.rows()):
        state.remove_row(row)
    state.counters.clears += 1
    return [Cleared(state.partition)]


def _settings_changed(state: PartitionState, event: SettingsChanged, raw: bytes) -> list[Change]:
    settings = checked_settings(settings_from(event), state.partitions)
    dims = {}
    for name in ("visual_dim", "text_dim"):
        fixed, given = getattr(state.settings, name), getattr(settings, name)
        if fixed is not None and given is not None and fixed != given:
            raise InvalidConfig(name, given, f"this buffer has {fixed}, fixed at creation")
        dims[name] = given if fixed is None else fixed
    settings = replace(settings, **dims)
    state.adopt(settings)
    return [SettingsAdopted(state.partition, settings), *_evict(state)]


def _evict(state: PartitionState) -> list[Change]:
    share = share_of(state.settings.capacity, state.partition, state.partitions)
    changes: list[Change] = []
    while state.counters.size > share:
        row = state.eviction_candidate()
        state.remove_row(row)
        state.counters.evictions += 1
        changes.append(Removed(row, Cause.EVICTED))
    return changes


def _register(name: str | None, *, cited: bool) -> bytes:
    """The key of a last-writer-wins register: a retrieval's, or else a source's."""
    return hash16(f"{'retrieval' if cited else 'source'}:{name}")


_FOLDS: dict[type[Event], Callable[[PartitionState, Any, bytes], list[Change]]] = {
    OutcomeReported: _outcome_reported,
    ExperiencesRetrieved: _experiences_retrieved,
    PriorityUpdated: _priority_updated,
    PrioritiesUpdated: _priorities_updated,
    ExperienceRetired: _experience_retired,
    BufferCleared: _buffer_cleared,
    SettingsChanged: _settings_changed,
}
