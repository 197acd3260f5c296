"""The fold, against a slow model of it that was written from the design."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relive.consumers import LmdbStore, MemoryStore, StateStore
from relive.core.fold import (
    PARKED_FOR,
    Added,
    Cause,
    Change,
    Cleared,
    Judged,
    Quarantined,
    Removed,
    SettingsAdopted,
    Updated,
    fold,
    fold_batch,
    prepare,
)
from relive.core.partition import partition_of, share_of
from relive.core.recent_ids import WINDOW
from relive.core.settings import EvictionPolicy, PriorityWeights, Settings
from relive.core.state import PartitionState
from relive.core.tail import NoState, Table, Tail
from relive.errors import StoreError
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
    encode,
)

# Events


def event_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def vector(dim: int, value: float = 1.0) -> bytes:
    return np.full(dim, value, dtype="<f4").tobytes()


def recorded(number: int, experience_id: str, **fields: Any) -> ExperienceRecorded:
    event = ExperienceRecorded(
        event_id=event_id(number),
        source="test",
        event_time_us=number,
        experience_id=experience_id,
        visual=vector(2),
        text=None,
        question="",
        input_uri=None,
        input_sha256=None,
        trajectory="[]",
        total_reward=0.0,
        final_answer="null",
        model_confidence=0.5,
        initial_priority=None,
        episode_id=None,
        step=None,
        metadata="{}",
    )
    return event._replace(**fields)


def reported(number: int, experience_id: str, **fields: Any) -> OutcomeReported:
    event = OutcomeReported(
        event_id=event_id(number),
        source="test",
        event_time_us=number,
        experience_id=experience_id,
        retrieval_id=None,
        success=True,
        reward=None,
        revision=0,
    )
    return event._replace(**fields)


def retrieved(number: int, retrieval_id: str, ids: Sequence[str]) -> ExperiencesRetrieved:
    scores = (0.5,) * len(ids)
    return ExperiencesRetrieved(
        event_id(number), "test", number, retrieval_id, "search", tuple(ids), scores, None, (0,)
    )


def prioritised(number: int, experience_id: str, priority: float, version: int) -> PriorityUpdated:
    return PriorityUpdated(event_id(number), "test", number, experience_id, priority, version)


def all_prioritised(number: int, *updates: tuple[str, float, int]) -> PrioritiesUpdated:
    columns = zip(*updates, strict=True) if updates else ((), (), ())
    return PrioritiesUpdated(event_id(number), "test", number, *columns)


def retired(number: int, experience_id: str) -> ExperienceRetired:
    return ExperienceRetired(event_id(number), "test", number, experience_id, "")


def cleared(number: int) -> BufferCleared:
    return BufferCleared(event_id(number), "test", number, "")


def changed_settings(number: int, **fields: Any) -> SettingsChanged:
    event = SettingsChanged(
        event_id=event_id(number),
        source="test",
        event_time_us=number,
        reason="",
        capacity=100,
        eviction_policy="oldest",
        visual_dim=None,
        text_dim=None,
        confidence_weight=0.4,
        reward_weight=0.4,
        age_weight=0.2,
        priority_floor=0.01,
        half_life_s=604_800.0,
    )
    return event._replace(**fields)


# The model: what the design says, with everything looked up anew each time


@dataclass
class ModelRow:
    event: ExperienceRecorded
    raw: bytes
    position: int
    given: float | None
    version: int = 0
    retrievals: set[str] = field(default_factory=set)
    reports: list[tuple[str, int, bool, float]] = field(default_factory=list)

    @property
    def verdicts(self) -> list[bool]:
        """The outcome that holds, of every register that has one."""
        return [
            max(report[1:] for report in self.reports if report[0] == register)[1]
            for register in {report[0] for report in self.reports}
        ]

    @property
    def counts(self) -> tuple[int, int, int]:
        verdicts = self.verdicts
        return len(self.retrievals), len(verdicts), sum(verdicts)

    def weight(self, weights: PriorityWeights) -> float:
        ageless = self.given
        if ageless is None:
            ageless = weights.confidence * (1 - self.event.model_confidence)
            ageless += weights.reward * abs(self.event.total_reward)
        retrievals, outcomes, successes = self.counts
        factor = 0.7 + 0.3 * (successes / retrievals) if outcomes else 1.0
        return max(ageless, weights.floor) * factor


@dataclass
class Model:
    partition: int = 0
    partitions: int = 1
    settings: Settings = field(default_factory=Settings)
    rows: dict[str, ModelRow] = field(default_factory=dict)
    parked: list[OutcomeReported] = field(default_factory=list)
    seen: set[bytes] = field(default_factory=set)
    quarantined: list[int] = field(default_factory=list)
    count: dict[str, int] = field(default_factory=dict)

    def tally(self, name: str, by: int = 1) -> None:
        self.count[name] = self.count.get(name, 0) + by

    def feed(self, position: int, raw: bytes, event: Event | None) -> None:
        if event is None:
            self.quarantined.append(position)
        elif event.event_id in self.seen:
            self.tally("repeats")
        else:
            self.seen.add(event.event_id)
            if not self.accept(position, raw, event):
                self.quarantined.append(position)
            self.evict()

    def accept(self, position: int, raw: bytes, event: Event) -> bool:
        match event:
            case ExperienceRecorded():
                return self.record(position, raw, event)
            case OutcomeReported():
                if event.reward is not None and not math.isfinite(event.reward):
                    return False
                if event.experience_id in self.rows:
                    self.outcome(self.rows[event.experience_id], event)
                else:
                    self.parked.append(event)
            case ExperiencesRetrieved():
                for experience_id in set(event.experience_ids):
                    row = self.rows.get(experience_id)
                    if row is None:
                        self.tally("orphans")
                    elif f"r:{event.retrieval_id}" not in row.retrievals:
                        row.retrievals.add(f"r:{event.retrieval_id}")
                        self.tally("retrievals")
            case PriorityUpdated():
                return self.prioritise(
                    [event.experience_id], [event.priority], [event.expected_version]
                )
            case PrioritiesUpdated():
                return self.prioritise(
                    event.experience_ids, event.priorities, event.expected_versions
                )
            case ExperienceRetired():
                if self.rows.pop(event.experience_id, None) is not None:
                    self.tally("removals")
            case BufferCleared():
                self.rows.clear()
                self.tally("clears")
            case SettingsChanged():
                return self.adopt(event)
        return True

    def prioritise(
        self, ids: Sequence[str], priorities: Sequence[float], versions: Sequence[int]
    ) -> bool:
        if not len(ids) == len(priorities) == len(versions):
            return False
        if not all(math.isfinite(priority) and priority >= 0 for priority in priorities):
            return False
        for experience_id, priority, version in zip(ids, priorities, versions, strict=True):
            row = self.rows.get(experience_id)
            if row is None:
                self.tally("unknown_updates")
            elif row.version != version:
                self.tally("stale_updates")
            else:
                row.given, row.version = priority, row.version + 1
                self.tally("priority_updates")
        return True

    def record(self, position: int, raw: bytes, event: ExperienceRecorded) -> bool:
        numbers = [event.total_reward, event.model_confidence, event.initial_priority or 0.0]
        if not all(map(math.isfinite, numbers)) or not 0 <= event.model_confidence <= 1:
            return False
        if (event.initial_priority or 0) < 0 or (event.visual is None and event.text is None):
            return False
        if partition_of(event.experience_id, self.partitions) != self.partition:
            return False
        dims = {"visual_dim": event.visual, "text_dim": event.text}
        for name, raw_vector in dims.items():
            if raw_vector is not None:
                fixed = getattr(self.settings, name)
                if (
                    not raw_vector
                    or len(raw_vector) % 4
                    or fixed not in (None, len(raw_vector) // 4)
                ):
                    return False
                if not np.isfinite(np.frombuffer(raw_vector, dtype="<f4")).all():
                    return False
        known = self.rows.get(event.experience_id)
        if known is not None:
            if known.event[3:] == event[3:]:
                self.tally("repeats")
                return True
            self.tally("conflicts")
            return False
        for name, raw_vector in dims.items():
            if raw_vector is not None:
                dim: dict[str, Any] = {name: len(raw_vector) // 4}
                self.settings = replace(self.settings, **dim)
        row = ModelRow(event, raw, position, event.initial_priority)
        self.rows[event.experience_id] = row
        self.tally("additions")
        waiting = [o for o in self.parked if o.experience_id == event.experience_id]
        self.parked = [o for o in self.parked if o.experience_id != event.experience_id]
        for outcome in waiting:
            self.outcome(row, outcome)
        return True

    def outcome(self, row: ModelRow, event: OutcomeReported) -> None:
        before = row.counts
        cited = event.retrieval_id is not None
        register = f"r:{event.retrieval_id}" if cited else f"s:{event.source}"
        row.retrievals.add(register)
        reward = -math.inf if event.reward is None else event.reward
        row.reports.append((register, event.revision, event.success, reward))
        self.tally("retrievals", row.counts[0] - before[0])
        self.tally("outcomes", row.counts[1] - before[1])

    def adopt(self, event: SettingsChanged) -> bool:
        if event.eviction_policy not in ("oldest", "lowest_priority"):
            return False
        if event.capacity < self.partitions or event.priority_floor <= 0:
            return False
        dims = {}
        for name in ("visual_dim", "text_dim"):
            fixed, given = getattr(self.settings, name), getattr(event, name)
            if fixed is not None and given is not None and fixed != given:
                return False
            dims[name] = given if fixed is None else fixed
        self.settings = Settings(
            capacity=event.capacity,
            eviction_policy=EvictionPolicy(event.eviction_policy),
            weights=PriorityWeights(
                confidence=event.confidence_weight,
                reward=event.reward_weight,
                age=event.age_weight,
                floor=event.priority_floor,
                half_life_s=event.half_life_s,
            ),
            **dims,
        )
        return True

    def evict(self) -> None:
        while len(self.rows) > share_of(self.settings.capacity, self.partition, self.partitions):
            rows = list(self.rows.values())
            worst = min(rows, key=lambda row: row.position)
            if self.settings.eviction_policy is EvictionPolicy.LOWEST_PRIORITY:
                weights = self.settings.weights
                worst = min(rows, key=lambda row: (row.weight(weights), row.position))
            del self.rows[worst.event.experience_id]
            self.tally("evictions")


# Comparing


def everything(tables: Tail, table: Table) -> dict[bytes, bytes]:
    return dict(tables.scan(table, b"", b"\xff" * 64))


def assert_same(state: PartitionState, tables: Tail, model: Model) -> None:
    rows = list(state.rows())
    assert [row.experience_id for row in rows] == list(model.rows)
    for row, expected in zip(rows, model.rows.values(), strict=True):
        assert repr(row) == repr(state.row(row.experience_id))  # NaN is not equal to itself
        assert row.position == expected.position
        assert state.payload(row.position) == expected.raw
        assert (row.retrieval_count, row.outcome_count, row.success_count) == expected.counts
        assert row.success_count <= row.outcome_count <= row.retrieval_count
        assert row.version == expected.version
        given = None if math.isnan(row.given_priority) else row.given_priority
        assert given == expected.given
    assert state.settings == model.settings
    assert [position for position, _, _ in state.quarantined()] == model.quarantined
    expected_counters = {
        **model.count,
        "size": len(model.rows),
        "parked": len(model.parked),
        "quarantined": len(model.quarantined),
    }
    counters = {name: getattr(state.counters, name) for name in state.counters.__slots__}
    assert {name: n for name, n in counters.items() if n} == {
        name: n for name, n in expected_counters.items() if n
    }
    assert_nothing_left_over(tables, model)
    assert state._digest == digest_anew(state, tables)


def digest_anew(state: PartitionState, tables: Tail) -> int:
    """The part of the digest that is kept up to date, summed up from what is there."""
    ids = {row.position: row.experience_id.encode() for row in state.rows()}
    hashed = [
        *everything(tables, Table.ROWS).values(),
        *everything(tables, Table.PARKED).values(),
        *(raw for _, _, raw in state.quarantined()),
        *(
            ids[int.from_bytes(key[2:10], "big")] + key[10:] + use
            for key, use in everything(tables, Table.USES).items()
        ),
    ]
    digests = [hashlib.blake2b(value, digest_size=16).digest() for value in hashed]
    return sum(int.from_bytes(digest, "little") for digest in digests) % 2**128


def assert_nothing_left_over(tables: Tail, model: Model) -> None:
    """What hung on rows that are gone is gone too, from every table."""
    positions = {row.position for row in model.rows.values()}
    for table in (Table.ROWS, Table.PAYLOADS):
        assert {int.from_bytes(key[2:], "big") for key in everything(tables, table)} == positions
    ids = everything(tables, Table.IDS).values()
    assert sorted(int.from_bytes(value, "big") for value in ids) == sorted(positions)
    uses = [int.from_bytes(key[2:10], "big") for key in everything(tables, Table.USES)]
    assert sorted(uses) == sorted(
        row.position for row in model.rows.values() for _ in row.retrievals
    )
    weakest = [int.from_bytes(key[-8:], "big") for key in everything(tables, Table.WEAKEST)]
    ranked = model.settings.eviction_policy is EvictionPolicy.LOWEST_PRIORITY
    assert sorted(weakest) == (sorted(positions) if ranked else [])
    assert len(everything(tables, Table.PARKED)) == len(model.parked)
    assert len(everything(tables, Table.PARKED_ORDER)) == len(model.parked)


# Logs

Log = list[tuple[bytes, Event | None]]

IDS = st.sampled_from(["a", "b", "c", "d", "e", "ü"])
RETRIEVALS = st.sampled_from(["r1", "r2", "r3"])
CONTENTS = st.fixed_dictionaries(
    {
        "total_reward": st.sampled_from([0.0, -1.0, 2.5]),
        "model_confidence": st.sampled_from([0.0, 0.5, 1.0]),
        "initial_priority": st.sampled_from([None, 0.0, 0.3]),
        "text": st.sampled_from([None, None, vector(3)]),
    }
)
FLAWS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"model_confidence": 1.5},
        {"total_reward": math.nan},
        {"initial_priority": -1.0},
        {"visual": None, "text": None},
        {"visual": vector(5)},
        {"visual": b"\x00\x00\x80"},
        {"visual": vector(2, math.inf)},
    ]
)
PRIORITIES = st.sampled_from([0.0, 0.2, 3.0, 3.0, 0.7, math.nan, -1.0])
VERSIONS = st.integers(0, 2)
COLUMNS_OF_ONE_LENGTH = st.lists(
    st.tuples(IDS, st.sampled_from([0.0, 0.2, 3.0]), VERSIONS), min_size=1, max_size=5
).map(lambda updates: tuple(zip(*updates, strict=True)))
COLUMNS = st.tuples(
    st.lists(IDS, max_size=2).map(tuple),
    st.lists(PRIORITIES, max_size=2).map(tuple),
    st.lists(VERSIONS, max_size=2).map(tuple),
)
SETTINGS = st.fixed_dictionaries(
    {
        "capacity": st.sampled_from([0, 1, 2, 3, 5, 100]),
        "eviction_policy": st.sampled_from(["oldest", "lowest_priority", "unknown"]),
        "confidence_weight": st.sampled_from([0.4, 0.0]),
        "priority_floor": st.sampled_from([0.01, 0.5, 0.0]),
        "visual_dim": st.sampled_from([None, None, 2, 7]),
    }
)


@st.composite
def logs(draw: st.DrawFn, max_size: int = 40) -> Log:
    """Records of one partition: few ids, so that much happens to each; some sent twice."""
    made: Log = []
    kinds = ["record"] * 6 + ["outcome"] * 4 + ["retrieval"] * 3
    kinds += ["priority", "priorities", "priorities", "retire", "repeat", "repeat", "settings"]
    kinds += ["clear", "flawed", "garbage"]
    for number in range(draw(st.integers(0, max_size))):
        kind = draw(st.sampled_from(kinds))
        event: Event | None
        if kind == "repeat" and made:
            made.append(draw(st.sampled_from(made)))
            continue
        if kind == "garbage":
            made.append((draw(st.binary(max_size=12)), None))
            continue
        if kind == "record":
            event = recorded(number, draw(IDS), **draw(CONTENTS))
        elif kind == "flawed":
            event = recorded(number, draw(IDS), **draw(FLAWS))
        elif kind == "outcome":
            event = reported(
                number,
                draw(IDS),
                retrieval_id=draw(st.none() | RETRIEVALS),
                source=draw(st.sampled_from(["s1", "s2"])),
                success=draw(st.booleans()),
                reward=draw(st.sampled_from([None, 0.5, -1.0, math.inf])),
                revision=draw(st.integers(-1, 2)),
            )
        elif kind == "retrieval":
            event = retrieved(number, draw(RETRIEVALS), draw(st.lists(IDS, max_size=4)))
        elif kind == "priority":
            priority = draw(st.sampled_from([0.0, 0.2, 3.0, -1.0]))
            event = prioritised(number, draw(IDS), priority, draw(st.integers(0, 2)))
        elif kind == "priorities":
            event = PrioritiesUpdated(
                event_id(number),
                "test",
                number,
                *draw(st.one_of([COLUMNS_OF_ONE_LENGTH] * 6 + [COLUMNS])),
            )
        elif kind == "settings":
            event = changed_settings(number, **draw(SETTINGS))
        elif kind == "clear":
            event = cleared(number)
        else:
            event = retired(number, draw(IDS))
        made.append((encode(event), event))
    return made


@st.composite
def lively_logs(draw: st.DrawFn) -> Log:
    """Mostly new experiences, in runs that are folded together, under settings that evict them."""
    made: Log = []
    number = 10
    for _ in range(draw(st.integers(1, 4))):
        chosen = changed_settings(
            number,
            capacity=draw(st.sampled_from([1, 3, 100])),
            eviction_policy=draw(st.sampled_from(["oldest", "lowest_priority"])),
            visual_dim=2,
            text_dim=draw(st.sampled_from([None, 3, 3])),
        )
        made.append((encode(chosen), chosen))
        for _ in range(draw(st.integers(2, 12))):
            number += 1
            # Now and then an id or an event comes again, and ends the run or is in it.
            like = number - draw(st.sampled_from([0, 0, 0, 0, 0, 0, 1, 2, 5]))
            of_event = draw(st.sampled_from([number, like]))
            of_experience = draw(st.sampled_from([number, like]))
            event = recorded(of_event, f"x{of_experience}", **draw(CONTENTS))
            made.append((encode(event), event))
        number += 1
    return made


def fresh(partition: int = 0, partitions: int = 1) -> tuple[PartitionState, Tail]:
    tables = Tail(NoState())
    return PartitionState(tables, partition, partitions), tables


def folded(records: Iterable[bytes], positions: Iterator[int] | None = None) -> PartitionState:
    state, _ = fresh()
    for number, raw in enumerate(records):
        fold(state, raw, number if positions is None else next(positions))
    return state


def folded_events(*events: Event) -> PartitionState:
    return folded([encode(event) for event in events])


# What holds for every log


@settings(max_examples=150)
@given(logs())
def test_the_state_is_the_models_after_every_event(log: Log) -> None:
    state, tables = fresh()
    model = Model()
    for position, (raw, event) in enumerate(log):
        fold(state, raw, position)
        model.feed(position, raw, event)
        assert_same(state, tables, model)


@given(logs())
def test_every_partition_follows_the_model_of_its_own_records(log: Log) -> None:
    partitions = 3
    states = [fresh(partition, partitions) for partition in range(partitions)]
    models = [Model(partition, partitions) for partition in range(partitions)]
    for position, (raw, event) in enumerate(log):
        # Some records come to a partition that is not theirs.
        at = position % partitions
        if isinstance(event, ExperienceRecorded) and position % 5:
            at = partition_of(event.experience_id, partitions)
        fold(states[at][0], raw, position)
        models[at].feed(position, raw, event)
    for (state, tables), model in zip(states, models, strict=True):
        assert_same(state, tables, model)


@given(logs())
def test_changes_say_all_that_happened_to_rows(log: Log) -> None:
    state, _ = fresh()
    known: dict[int, Any] = {}
    payloads: dict[int, bytes] = {}
    for position, (raw, event) in enumerate(log):
        changes: list[Change] = fold(state, raw, position)
        for change in changes:
            match change:
                case Added(row, recorded_event):
                    assert recorded_event == event
                    assert row.position == position not in known
                    known[row.position] = row
                    payloads[row.position] = raw
                case Updated(row):
                    assert row.position in known
                    known[row.position] = row
                case Removed(row, _):
                    assert repr(known.pop(row.position)) == repr(row)
                case Cleared(partition):
                    assert partition == 0
                    known.clear()
                case SettingsAdopted(_, adopted):
                    assert adopted == state.settings
                case Quarantined(_, at, reason):
                    assert (at, reason, raw) in list(state.quarantined())
        assert repr(list(known.values())) == repr(list(state.rows()))


@given(logs() | lively_logs(), st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_batches_of_any_size_give_what_records_one_by_one_do(log: Log, sizes: list[int]) -> None:
    state, tables = fresh()
    alone, _ = fresh()
    model = Model()
    at, batches = 0, 0
    while at < len(log):
        batch = log[at : at + sizes[batches % len(sizes)]]
        prepared = prepare([raw for raw, _ in batch])
        records = [
            (raw, at + number, each)
            for number, ((raw, _), each) in enumerate(zip(batch, prepared, strict=True))
        ]
        changes = [change for step in fold_batch(state, records) for change in step]
        for raw, position, _ in records:
            fold(alone, raw, position)
        assert state.digest() == alone.digest()
        assert visible(state) == visible(alone)
        assert state.counters.repeats == alone.counters.repeats
        there = {row.position for row in state.rows()}
        for change in changes:
            # What came and went in one batch is told of in this order.
            if isinstance(change, Removed):
                assert change.row.position not in there
        at, batches = at + len(batch), batches + 1
    for position, (raw, event) in enumerate(log):
        model.feed(position, raw, event)
    assert_same(state, tables, model)


@pytest.mark.parametrize(
    ("among", "fields"),
    [
        (reported(1, "x12"), {}),
        (recorded(1, "x12"), {}),
        (recorded(1, "x12", total_reward=2.0), {}),
        (recorded(12, "other"), {}),
        (recorded(1, "other"), {"visual": vector(5)}),
        (recorded(1, "other"), {"text": vector(3)}),
    ],
    ids=["parked", "known", "in conflict", "an event again", "misfit", "fixes a dimension"],
)
def test_a_run_with_something_special_in_it_is_folded_as_its_records_are(
    among: Event, fields: dict[str, Any]
) -> None:
    run = [recorded(number, f"x{number}") for number in range(10, 16)]
    run[3] = run[3]._replace(**fields)
    raws = [encode(event) for event in (changed_settings(0, visual_dim=2), among, *run)]
    state, _ = fresh()
    steps = fold_batch(
        state,
        [(raw, at, each) for at, (raw, each) in enumerate(zip(raws, prepare(raws), strict=True))],
    )
    assert len(steps) == len(raws)
    assert state.digest() == folded(raws).digest()
    assert visible(state) == visible(folded(raws))


@given(logs(), st.lists(st.integers(1, 7), min_size=1, max_size=5))
def test_commits_and_restarts_at_any_point_change_nothing(log: Log, batches: list[int]) -> None:
    assert_restarts_change_nothing(log, batches, MemoryStore())


@settings(max_examples=15)
@given(logs(), st.lists(st.integers(1, 7), min_size=1, max_size=5))
def test_commits_and_restarts_on_lmdb_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, log: Log, batches: list[int]
) -> None:
    store = LmdbStore(tmp_path_factory.mktemp("state"))
    try:
        assert_restarts_change_nothing(log, batches, store)
    finally:
        store.close()


def assert_restarts_change_nothing(log: Log, batches: list[int], store: StateStore) -> None:
    model = Model()
    tables = Tail(store)
    state = PartitionState(tables, 0, 1)
    left = batches[0]
    for position, (raw, event) in enumerate(log):
        fold(state, raw, position)
        model.feed(position, raw, event)
        left -= 1
        if left == 0:
            digest = state.digest()
            state.save()
            store.commit(tables.freeze())
            tables = Tail(store)
            state = PartitionState(tables, 0, 1)
            assert state.digest() == digest
            assert state.position == position + 1
            left = batches[position % len(batches)]
    assert_same(state, tables, model)
    assert state.digest() == folded(raw for raw, _ in log).digest()


@given(logs(), st.integers(0, 10**12), st.lists(st.integers(1, 1_000), min_size=1, max_size=7))
def test_the_digest_does_not_depend_on_positions(log: Log, first: int, steps: list[int]) -> None:
    def positions() -> Iterator[int]:
        position = first
        for number in range(len(log)):
            yield position
            position += steps[number % len(steps)]

    raws = [raw for raw, _ in log]
    elsewhere = folded(raws, positions())
    assert elsewhere.digest() == folded(raws).digest()
    assert [row.experience_id for row in elsewhere.rows()] == [
        row.experience_id for row in folded(raws).rows()
    ]


@given(logs(), st.data())
def test_records_sent_again_later_change_nothing(log: Log, data: st.DataObject) -> None:
    readable = [(raw, event) for raw, event in log if event is not None]
    sent: list[bytes] = []
    for raw, _ in readable:
        sent.append(raw)
        sent += data.draw(st.lists(st.sampled_from(sent), max_size=2))
    once = folded(raw for raw, _ in readable)
    assert folded(sent).digest() == once.digest()


@given(logs(), st.randoms(use_true_random=False))
def test_outcomes_may_come_before_or_after_their_experience(log: Log, random: Any) -> None:
    # Given nothing that takes experiences away, for then it matters who was there in time.
    kept = [event for _, event in log if isinstance(event, ExperienceRecorded | OutcomeReported)]
    recordings = [event for event in kept if isinstance(event, ExperienceRecorded)]
    outcomes = [event for event in kept if isinstance(event, OutcomeReported)]
    shuffled: list[Event] = list(recordings)
    for outcome in outcomes:
        shuffled.insert(random.randint(0, len(shuffled)), outcome)
    assert folded_events(*shuffled).digest() == folded_events(*kept).digest()


def visible(state: PartitionState) -> object:
    """What a reader can see of a state, without positions."""
    counters = {name: getattr(state.counters, name) for name in state.counters.__slots__}
    del counters["repeats"]
    rows = [repr(row._replace(position=0)) for row in state.rows()]
    return rows, counters, state.settings, [raw for _, _, raw in state.quarantined()]


@settings(max_examples=25)
@given(st.lists(logs(max_size=6), min_size=2, max_size=6))
def test_states_that_look_different_have_different_digests(many: list[Log]) -> None:
    seen: dict[str, object] = {}
    for log in many:
        for end in range(len(log) + 1):
            state = folded(raw for raw, _ in log[:end])
            assert seen.setdefault(state.digest(), visible(state)) == visible(state)


# Single rules


def test_experiences_of_another_order_have_another_digest() -> None:
    a, b = recorded(1, "a"), recorded(2, "b")
    assert folded_events(a, b).digest() != folded_events(b, a).digest()


def test_the_oldest_gives_way_by_default() -> None:
    state = folded_events(
        changed_settings(0, capacity=2), *(recorded(n, f"x{n}") for n in range(1, 6))
    )
    assert [row.experience_id for row in state.rows()] == ["x4", "x5"]
    assert state.counters.evictions == 3
    assert state.counters.additions == 5


def test_the_lowest_priority_gives_way_on_request_even_the_newest() -> None:
    state = folded_events(
        changed_settings(0, capacity=2, eviction_policy="lowest_priority"),
        recorded(1, "high", initial_priority=3.0),
        recorded(2, "middle", initial_priority=2.0),
        recorded(3, "low", initial_priority=1.0),
    )
    assert [row.experience_id for row in state.rows()] == ["high", "middle"]


def test_a_failure_makes_an_experience_give_way_sooner() -> None:
    state = folded_events(
        changed_settings(0, capacity=2, eviction_policy="lowest_priority"),
        recorded(1, "failed", initial_priority=1.1),
        recorded(2, "unused", initial_priority=1.0),
        reported(3, "failed", success=False),
        recorded(4, "new", initial_priority=2.0),
    )
    assert [row.experience_id for row in state.rows()] == ["unused", "new"]


def test_a_smaller_capacity_evicts_at_once_and_a_larger_one_brings_nothing_back() -> None:
    recordings = [recorded(n, f"x{n}") for n in range(1, 6)]
    smaller = changed_settings(10, capacity=2)
    larger = changed_settings(11, capacity=50)
    state = folded_events(*recordings, smaller, larger)
    assert [row.experience_id for row in state.rows()] == ["x4", "x5"]


def test_rows_in_place_are_ranked_when_the_policy_changes() -> None:
    state = folded_events(
        recorded(1, "low", initial_priority=0.1),
        recorded(2, "high", initial_priority=5.0),
        changed_settings(3, capacity=1, eviction_policy="lowest_priority"),
    )
    assert [row.experience_id for row in state.rows()] == ["high"]


def test_rows_in_place_are_ranked_anew_when_the_weights_change() -> None:
    by_confidence = {"confidence_weight": 1.0, "reward_weight": 0.0}
    by_reward = {"confidence_weight": 0.0, "reward_weight": 1.0}
    common: dict[str, Any] = {"eviction_policy": "lowest_priority"}
    state = folded_events(
        changed_settings(0, **common, **by_confidence),
        recorded(1, "unsure", model_confidence=0.0, total_reward=1.0),
        recorded(2, "rewarded", model_confidence=1.0, total_reward=9.0),
        changed_settings(3, capacity=1, **common, **by_reward),
    )
    assert [row.experience_id for row in state.rows()] == ["rewarded"]


def test_the_first_embedding_of_a_kind_fixes_its_dimension() -> None:
    state = folded_events(
        recorded(1, "a", visual=vector(4)),
        recorded(2, "b", visual=None, text=vector(3)),
        recorded(3, "c", visual=vector(5)),
        recorded(4, "d", visual=None, text=vector(4)),
    )
    assert [row.experience_id for row in state.rows()] == ["a", "b"]
    assert (state.settings.visual_dim, state.settings.text_dim) == (4, 3)
    assert state.counters.quarantined == 2


def test_an_experience_that_is_refused_fixes_no_dimension() -> None:
    state = folded_events(recorded(1, "a", visual=vector(4), model_confidence=2.0))
    assert state.settings.visual_dim is None


def test_settings_cannot_change_a_dimension() -> None:
    state = folded_events(
        recorded(1, "a", visual=vector(4)), changed_settings(2, visual_dim=5, capacity=7)
    )
    assert state.settings.visual_dim == 4
    assert state.settings.capacity == Settings().capacity
    assert state.counters.quarantined == 1


def test_other_content_under_a_known_id_goes_to_quarantine_with_the_reason() -> None:
    other = recorded(2, "a", question="other")
    state = folded_events(recorded(1, "a"), other)
    ((position, reason, raw),) = state.quarantined()
    assert position == 1
    assert "'a' is recorded with other content" in reason
    assert raw == encode(other)
    assert state.counters.conflicts == 1


def test_the_same_content_from_elsewhere_at_another_time_is_no_conflict() -> None:
    again = recorded(2, "a", source="another node", event_time_us=99)
    state = folded_events(recorded(1, "a"), again)
    assert state.counters.quarantined == 0
    assert state.counters.additions == 1
    assert next(state.rows()).event_time_us == 1


@pytest.mark.parametrize(
    "change",
    [
        {"visual": vector(2, 2.0)},
        {"visual": None, "text": vector(2)},
        {"question": "?"},
        {"input_uri": ""},
        {"input_sha256": bytes(32)},
        {"trajectory": "[{}]"},
        {"total_reward": 0.1},
        {"final_answer": '""'},
        {"model_confidence": 0.4},
        {"initial_priority": 0.0},
        {"episode_id": ""},
        {"step": 0},
        {"metadata": '{"":0}'},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_field_of_content_counts(change: dict[str, Any]) -> None:
    state = folded_events(recorded(1, "a"), recorded(2, "a", **change))
    assert state.counters.conflicts == 1
    assert folded_events(recorded(1, "a")).digest() != (
        folded_events(recorded(1, "a", **change)).digest()
    )


def test_a_late_duplicate_does_not_bring_an_evicted_experience_back() -> None:
    first = recorded(1, "a")
    state = folded_events(changed_settings(0, capacity=1), first, recorded(2, "b"), first)
    assert [row.experience_id for row in state.rows()] == ["b"]


def test_an_experience_that_is_gone_may_be_recorded_again() -> None:
    state = folded_events(
        recorded(1, "a"), retired(2, "a"), recorded(3, "a", question="other content")
    )
    (row,) = state.rows()
    assert row.position == 2
    assert state.counters.additions == 2


def test_success_never_exceeds_retrievals_when_retrieval_events_are_off() -> None:
    outcomes = [reported(n, "a", retrieval_id=f"r{n}") for n in range(2, 6)]
    (row,) = folded_events(recorded(1, "a"), *outcomes).rows()
    assert (row.retrieval_count, row.success_count, row.success_rate) == (4, 4, 1.0)


def test_a_retrieval_counts_once_whichever_event_tells_of_it_first() -> None:
    told = retrieved(2, "r", ["a", "a"])
    used = reported(3, "a", retrieval_id="r", success=False)
    orders: list[list[Event]] = [[told, used], [used, told]]
    for events in orders:
        (row,) = folded_events(recorded(1, "a"), *events).rows()
        assert (row.retrieval_count, row.outcome_count, row.success_count) == (1, 1, 0)


def test_a_source_and_a_retrieval_of_the_same_name_are_two_uses() -> None:
    (row,) = folded_events(
        recorded(1, "a"),
        reported(2, "a", source="x"),
        reported(3, "a", source="y", retrieval_id="x"),
    ).rows()
    assert row.retrieval_count == 2


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_outcome_of_the_highest_revision_holds_in_any_order(order: tuple[int, ...]) -> None:
    reports: list[Event] = [
        reported(2, "a", retrieval_id="r", success=True, revision=1),
        reported(3, "a", retrieval_id="r", success=False, revision=2),
        reported(4, "a", retrieval_id="r", success=True, revision=0),
    ]
    state = folded_events(recorded(1, "a"), *(reports[at] for at in order))
    (row,) = state.rows()
    assert (row.retrieval_count, row.outcome_count, row.success_count) == (1, 1, 0)
    assert state.digest() == folded_events(recorded(1, "a"), *reports).digest()


def test_an_outcome_waits_for_its_experience_only_so_long() -> None:
    store = MemoryStore()
    tables = Tail(store)
    state = PartitionState(tables, 0, 1)
    fold(state, encode(reported(1, "late")), 0)
    fold(state, encode(reported(2, "later")), 1)
    for number in range(PARKED_FOR - 2):
        if number % 30_001 == 30_000:  # restarts change nothing about it
            state.save()
            store.commit(tables.freeze())
            tables = Tail(store)
            state = PartitionState(tables, 0, 1)
        fold(state, encode(retired(10 + number, "nobody")), state.position)
    assert state.counters.parked == 2
    fold(state, encode(recorded(3, "later")), state.position)
    assert (state.counters.parked, state.counters.orphans) == (0, 1)
    fold(state, encode(recorded(4, "late")), state.position)
    assert [row.success_count for row in state.rows()] == [1, 0]

    # Then the very first event ids have left the window, and are taken for new.
    fold(state, encode(reported(1, "late")), state.position)
    assert [row.success_count for row in state.rows()] == [1, 1]
    assert state.recent.end - state.recent.start == WINDOW

    # A window that has moved on is kept as it is, and nothing of what it left.
    for number in range(2_500):
        fold(state, encode(retired(10**6 + number, "nobody")), state.position)
    state.save()
    store.commit(tables.freeze())
    again = PartitionState(Tail(store), 0, 1)
    assert (again.recent.start, again.recent.end) == (state.recent.start, state.recent.end)
    assert again.digest() == state.digest()
    kept = sum(len(ids) for ids in everything(Tail(store), Table.RECENT).values()) // 16
    assert WINDOW <= kept <= WINDOW + 1_000


def test_priority_updates_are_taken_one_version_at_a_time() -> None:
    state = folded_events(
        recorded(1, "a"),
        prioritised(2, "a", 0.5, 0),
        prioritised(3, "a", 0.7, 0),
        prioritised(4, "a", 0.9, 1),
        prioritised(5, "nobody", 0.9, 0),
    )
    (row,) = state.rows()
    assert (row.given_priority, row.version) == (0.9, 2)
    counters = state.counters
    assert (counters.priority_updates, counters.stale_updates, counters.unknown_updates) == (
        2,
        1,
        1,
    )


@given(st.lists(st.tuples(IDS, st.sampled_from([0.0, 0.2, 3.0]), VERSIONS), max_size=12))
def test_priorities_in_one_event_do_what_they_do_in_events_of_their_own(
    updates: list[tuple[str, float, int]],
) -> None:
    before: list[Event] = [
        recorded(1, "a"),
        recorded(2, "b"),
        prioritised(3, "b", 0.5, 0),
        recorded(4, "c"),
    ]
    apart = folded_events(
        *before, *(prioritised(10 + at, *update) for at, update in enumerate(updates))
    )
    together = folded_events(*before, all_prioritised(10, *updates))
    assert [*map(repr, together.rows())] == [*map(repr, apart.rows())]  # NaN is not itself
    assert together.counters == apart.counters
    assert together._digest == apart._digest


def test_priorities_with_a_flaw_are_set_aside_whole() -> None:
    flawed = [
        all_prioritised(2, ("a", 0.5, 0), ("a", math.nan, 1)),
        all_prioritised(3, ("a", 0.5, 0))._replace(priorities=()),
        all_prioritised(4, ("a", 0.5, 0))._replace(expected_versions=(0, 1)),
    ]
    state = folded_events(recorded(1, "a"), *flawed)
    (row,) = state.rows()
    assert row.version == 0
    assert state.counters.quarantined == len(flawed)
    assert state.counters.priority_updates == 0


def test_the_same_priorities_sent_twice_are_taken_once_and_judged_once() -> None:
    state = folded_events(recorded(1, "a"))
    event = all_prioritised(2, ("a", 0.5, 0), ("a", 0.7, 0), ("b", 0.7, 0))
    first = fold(state, encode(event), state.position)
    again = fold(state, encode(event), state.position)
    assert first[-1] == Judged(event.event_id, updated=1, stale=1, unknown=1)
    assert again == []


def test_clearing_keeps_what_was_counted() -> None:
    state = folded_events(recorded(1, "a"), reported(2, "a"), cleared(3), recorded(4, "b"))
    assert [row.experience_id for row in state.rows()] == ["b"]
    counters = state.counters
    assert (counters.additions, counters.outcomes, counters.removals) == (2, 1, 0)


def test_removals_say_why() -> None:
    state, _ = fresh()
    fold(state, encode(changed_settings(0, capacity=1)), 0)
    fold(state, encode(recorded(1, "a")), 1)
    assert [
        c.cause for c in fold(state, encode(recorded(2, "b")), 2) if isinstance(c, Removed)
    ] == [Cause.EVICTED]
    assert [c.cause for c in fold(state, encode(retired(3, "b")), 3) if isinstance(c, Removed)] == [
        Cause.RETIRED
    ]


@pytest.mark.parametrize(
    "document",
    ["", "[", "NaN", "[" * 100_000, "9" * 5_000, '"text"', "3"],
    ids=["empty", "cut", "nan", "deep", "long", "text", "number"],
)
@pytest.mark.parametrize("name", ["trajectory", "metadata"])
def test_documents_that_no_reader_could_read_go_to_quarantine(name: str, document: str) -> None:
    state = folded_events(recorded(1, "a", **{name: document}))
    assert state.counters.quarantined == 1
    assert state.counters.size == 0


@pytest.mark.parametrize("document", ["", "{", "-Infinity", "[" * 100_000, "9" * 5_000])
def test_answers_that_no_reader_could_read_go_to_quarantine(document: str) -> None:
    assert folded_events(recorded(1, "a", final_answer=document)).counters.quarantined == 1


@pytest.mark.parametrize("change", [{"event_time_us": -1}, {"step": -1}, {"experience_id": ""}])
def test_what_no_careful_producer_sends_goes_to_quarantine(change: dict[str, Any]) -> None:
    assert folded_events(recorded(1, "a")._replace(**change)).counters.quarantined == 1


def test_a_state_of_another_partition_count_is_refused() -> None:
    store = MemoryStore()
    tables = Tail(store)
    state = PartitionState(tables, 0, 2)
    state.save()
    store.commit(tables.freeze())
    with pytest.raises(StoreError, match="over 2 partitions"):
        PartitionState(Tail(store), 0, 3)
