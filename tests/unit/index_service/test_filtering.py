"""Searches with a filter, against a model that looks at one experience after the other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relive.consumers import MemoryStore
from relive.core.embedding import EmbeddingSpace
from relive.core.experience import Experience
from relive.core.filter import Filter
from relive.core.settings import Settings
from relive.index_service import Engine, IndexOptions
from relive.index_service import filter_columns as columns_module
from relive.index_service import filtering as filtering_module
from relive.log import NewRecord
from relive.log.memory import MemoryLog
from relive.producers import Composer
from relive.producers.compose import everywhere, keyed_record

COMPOSER = Composer("test")
QUIET = IndexOptions(record_retrievals=False)
QUERY = [1.0, 0.5]


class KeptStore(MemoryStore):
    """A memory store that outlives its engine."""

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows move to new arrays, and keys give way to others, all the time."""
    monkeypatch.setattr(columns_module, "_LEAST_ROOM", 2)
    monkeypatch.setattr(columns_module, "MAX_KEYS", 2)
    monkeypatch.setattr(filtering_module, "_FEW_ROWS", 2)


def matches(wanted: dict[str, Any], experience: Any, outcomes: int) -> bool:
    """The definition of a filter, for one experience."""
    for key, any_of in wanted.get("where", {}).items():
        values = any_of if isinstance(any_of, list) else [any_of]
        have = experience.metadata.get(key, [])
        if isinstance(have, list | dict):
            return False
        if not any(have == v and isinstance(have, bool) == isinstance(v, bool) for v in values):
            return False
    for name, value in (
        ("reward", experience.total_reward),
        ("confidence", experience.model_confidence),
        ("success_rate", experience.success_rate),
    ):
        least, most = wanted.get(f"min_{name}"), wanted.get(f"max_{name}")
        if name == "success_rate" and outcomes == 0 and (least, most) != (None, None):
            return False
        if (least is not None and value < least) or (most is not None and value > most):
            return False
    time = experience.timestamp
    return bool(wanted.get("since", 0) <= time < wanted.get("until", 2**63))


def assert_searches_are_those_of_the_model(engine: Engine, wanted: dict[str, Any]) -> None:
    everything = engine.search(visual=QUERY, k=1_000)
    assert len(everything) == len(engine)
    expected = []
    for hit in everything:
        row = engine.row(hit.id)
        assert row is not None
        if matches(wanted, hit.experience, row.outcome_count):
            expected.append((hit.id, hit.score))
    for k in (1, 3, 1_000):
        found = engine.search(visual=QUERY, k=k, filter=Filter(**wanted))
        assert [(hit.id, hit.score) for hit in found] == expected[:k]


# Few values, so that they meet.
SCALARS = st.sampled_from([1, 1.0, True, False, -0.0, "1", None])
VALUES = SCALARS | st.sampled_from([[1], {"a": 1}])
METADATA = st.dictionaries(st.sampled_from("abcd"), VALUES, min_size=2)
SHARES = st.sampled_from([0.0, 0.5, 1.0])
REWARDS = st.sampled_from([-2.0, 0.1 + 0.2, 0.3])
TIMES = st.integers(0, 3)


def ranges(low: str, high: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """One bound, both in order, or none."""
    both = st.tuples(values, values).map(lambda pair: {low: min(pair), high: max(pair)})
    one = st.dictionaries(st.sampled_from([low, high]), values, max_size=1)
    return st.just({}) | one | both


FILTERS = st.tuples(
    st.just({})
    | st.dictionaries(
        st.sampled_from("abcd"), SCALARS | st.lists(SCALARS, max_size=3), max_size=2
    ).map(lambda where: {"where": where}),
    ranges("since", "until", TIMES),
    ranges("min_reward", "max_reward", REWARDS),
    ranges("min_confidence", "max_confidence", SHARES),
    ranges("min_success_rate", "max_success_rate", SHARES),
    # All at once would hardly ever match anything.
    st.sets(st.integers(0, 4), min_size=1, max_size=2),
).map(lambda drawn: {n: v for at in sorted(drawn[5]) for n, v in drawn[at].items()})

ADDS = st.tuples(st.just("add"), st.tuples(METADATA, REWARDS, SHARES, TIMES))
OTHERS = st.tuples(
    st.sampled_from(["outcome", "outcome", "retrieval", "retire", "settings", "clear", "reopen"]),
    st.integers(1, 8),
)
STEPS = st.lists(ADDS | ADDS | OTHERS, min_size=5, max_size=40)


@pytest.mark.parametrize("partitions", [1, 3])
def test_searches_are_those_of_the_model_whatever_happened(partitions: int) -> None:
    @settings(max_examples=100)
    @given(STEPS, st.lists(FILTERS, min_size=3, max_size=6))
    def holds(steps: list[tuple[str, Any]], filters: list[dict[str, Any]]) -> None:
        log, store = MemoryLog(partitions), KeptStore()
        put_in_force(log, capacity=12)
        engine = Engine(log, store, QUIET)
        for number, (kind, detail) in enumerate(steps):
            if kind == "add":
                log.append([added(f"x{number}", partitions, *detail)])
            elif kind == "reopen":
                engine.close()
                engine = Engine(log, store, QUIET)
            elif kind == "settings":
                put_in_force(log, capacity=5 + detail)
            elif kind == "clear":
                log.append(everywhere([COMPOSER.cleared("") for _ in range(partitions)]))
            else:
                append(log, kind, f"x{number - detail}", number)
            if number % 2 == 0:
                engine.catch_up()
                wanted = filters[number // 2 % len(filters)]
                assert_searches_are_those_of_the_model(engine, wanted)
        engine.catch_up()
        for wanted in filters:
            assert_searches_are_those_of_the_model(engine, wanted)
        engine.close()

    holds()


def put_in_force(log: MemoryLog, **values: Any) -> None:
    log.append(COMPOSER.settings_records(Settings(visual_dim=2, **values), log.partitions, ""))


def added(
    name: str, partitions: int, metadata: Any, reward: float, confidence: float, time: int
) -> NewRecord:
    random = np.random.default_rng(sum(name.encode()))
    event = COMPOSER.experience(
        Experience(
            id=name,
            visual=random.standard_normal(2),
            metadata=metadata,
            total_reward=reward,
            model_confidence=confidence,
            timestamp=time,
        )
    )
    return keyed_record(event, partitions)


def append(log: MemoryLog, kind: str, name: str, number: int) -> None:
    if kind == "retire":
        log.append([keyed_record(COMPOSER.retired(name, ""), log.partitions)])
    elif kind == "retrieval":
        scored, at = [(name, 1.0)], dict.fromkeys(range(log.partitions), 0)
        log.append(COMPOSER.retrievals(f"r{number}", "search", scored, at, log.partitions, None))
    else:
        outcome = COMPOSER.outcome(f"r{number}", name, success=number % 2 == 0)
        log.append([keyed_record(outcome, log.partitions)])


def test_a_search_is_that_of_its_positions_while_rows_come_and_go() -> None:
    """Every answer, of several threads at once, is that of brute force at the answer's positions.

    More keys are asked for than there may be columns, so that columns are made, dropped and made
    again while rows are added, evicted and removed.
    """
    log, capacity = MemoryLog(), 60
    put_in_force(log, capacity=capacity)
    engine = Engine(log, MemoryStore(), QUIET)
    engine.start()
    done = threading.Event()
    random = np.random.default_rng(3)
    # What every position did: an experience, or the id of one that was removed.
    told: dict[int, Experience | str] = {}
    searches: list[tuple[str, int, Any]] = []

    def write() -> None:
        n = 0
        while not done.is_set():
            some: list[Experience | str] = []
            for _ in range(10):
                metadata = {key: int(random.integers(3)) for key in "abcde"}
                vector = random.standard_normal(2)
                some.append(Experience(id=f"x{n}", visual=vector, metadata=metadata))
                n += 1
                if random.random() < 0.3:
                    some.append(f"x{max(0, n - int(random.integers(1, 40)))}")
            events: list[Any] = [
                COMPOSER.retired(one, "") if isinstance(one, str) else COMPOSER.experience(one)
                for one in some
            ]
            for position, one in zip(
                log.append([keyed_record(event, 1) for event in events]), some, strict=True
            ):
                told[position] = one
            engine.catch_up()

    def read(seed: int) -> None:
        mine = np.random.default_rng(seed)
        for _ in range(80):
            key, k = str(mine.choice(list("abcde"))), int(mine.choice([3, 100]))
            searches.append(
                (key, k, engine.search(visual=QUERY, k=k, filter=Filter(where={key: 1})))
            )

    writer = threading.Thread(target=write)
    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for thread in (writer, *readers):
        thread.start()
    for thread in readers:
        thread.join()
    done.set()
    writer.join()
    space, rest = EmbeddingSpace(2, 0), sorted(told)
    engine.close()
    query = space.query(QUERY, None)

    live: dict[str, Experience] = {}
    assert len(searches) == 240
    for key, k, result in sorted(searches, key=lambda search: search[2].positions[0]):
        while rest and rest[0] < result.positions[0]:
            one = told[rest.pop(0)]
            if isinstance(one, str):
                live.pop(one, None)
            else:
                live[str(one.id)] = one
                if len(live) > capacity:
                    del live[next(iter(live))]
        scored = [
            (
                -float(query.exact(space.row(np.asarray(e.visual, np.float32), None)[None, :])[0]),
                name,
            )
            for name, e in live.items()
            if e.metadata[key] == 1
        ]
        assert [hit.id for hit in result] == [name for _, name in sorted(scored)][:k]
    assert len({result.positions[0] for _, _, result in searches}) > 20


@pytest.mark.parametrize("key", ["old", "new"])
def test_what_goes_between_the_view_and_the_filter_makes_it_search_again(
    log: MemoryLog, engine: Engine, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    log.append([added(f"x{n}", 2, {"old": 1, "new": 1}, 0.0, 0.5, n) for n in range(100)])
    engine.catch_up()
    engine.search(visual=QUERY, filter=Filter(where={"old": 1}))
    selected = filtering_module.Filtering.selected
    views: list[Any] = []

    def overtaken(self: Any, wanted: Filter, positions: Any) -> Any:
        for start in range(0, 400 if not views else 0, 100):  # the rows of the view go
            some = range(start, start + 100)
            log.append([added(f"y{n}", 2, {"old": 1, "new": 1}, 0.0, 0.5, n) for n in some])
            engine.catch_up()
        views.append(positions)
        return selected(self, wanted, positions)

    monkeypatch.setattr(filtering_module.Filtering, "selected", overtaken)
    result = engine.search(visual=QUERY, k=200, filter=Filter(where={key: 1}))
    assert len(views) == 2
    assert result.positions == engine.positions()
    assert sorted(hit.id for hit in result) == sorted(engine.ids())


@pytest.fixture
def log() -> MemoryLog:
    log = MemoryLog(2)
    put_in_force(log, capacity=100)
    return log


@pytest.fixture
def engine(log: MemoryLog) -> Iterator[Engine]:
    engine = Engine(log, MemoryStore(), QUIET)
    yield engine
    engine.close()


def test_a_key_is_read_once_and_then_kept_up_to_date(
    log: MemoryLog, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, int]] = []
    payload = filtering_module.Filtering._payload

    def counted(self: Any, partition: int, position: int) -> bytes | None:
        read.append((partition, position))
        return payload(self, partition, position)

    monkeypatch.setattr(filtering_module.Filtering, "_payload", counted)
    log.append([added(f"x{n}", 2, {"room": n % 4}, 0.0, 0.5, n) for n in range(40)])
    engine.catch_up()
    in_room_1 = Filter(where={"room": 1})
    assert len(engine.search(visual=QUERY, k=100, filter=in_room_1)) == 10
    assert len(read) == len(set(read)) == 40
    log.append([added(f"y{n}", 2, {"room": 1}, 0.0, 0.5, n) for n in range(5)])
    append(log, "retire", "x1", 0)
    engine.catch_up()
    assert len(engine.search(visual=QUERY, k=100, filter=in_room_1)) == 14
    assert len(engine.search(visual=QUERY, k=100, filter=Filter(since=3, min_reward=0.0))) == 39
    assert len(read) == 40


def test_what_is_asked_for_under_the_lock_is_read_there(log: MemoryLog, engine: Engine) -> None:
    log.append([added(f"x{n}", 2, {"room": n % 4}, 0.0, 0.5, n) for n in range(140)])
    append(log, "retire", "x137", 0)
    engine.catch_up()
    with engine._materializer.locked() as states:
        matching = engine._projections.filtering.matching_now(Filter(where={"room": 1}))
        rows = [state.row_at(at) for state in states for at in matching[state.partition].tolist()]
    assert {row.experience_id for row in rows if row} == {
        name for name in engine.ids() if int(name[1:]) % 4 == 1
    }
    assert None not in rows
    assert all(np.all(np.diff(mine) > 0) for mine in matching)


def test_threads_that_ask_for_a_new_key_at_once_all_get_it(log: MemoryLog, engine: Engine) -> None:
    log.append([added(f"x{n}", 2, {"room": n % 4}, 0.0, 0.5, n) for n in range(40)])
    engine.catch_up()
    found: list[int] = []
    start = threading.Barrier(6)

    def ask() -> None:
        start.wait()
        found.append(len(engine.search(visual=QUERY, k=100, filter=Filter(where={"room": 2}))))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [10] * 6
