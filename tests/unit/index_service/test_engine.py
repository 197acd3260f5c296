"""The engine over a log that anything may have written to, against brute force over its state."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relive.consumers import MemoryStore
from relive.core.embedding import EmbeddingSpace, Metric
from relive.core.experience import Experience
from relive.core.priority import priority_at
from relive.core.results import Token
from relive.core.settings import EvictionPolicy, Settings
from relive.errors import InvalidConfig, InvalidQuery, LogReplaced, NotCaughtUp
from relive.index_service import Engine, IndexOptions
from relive.index_service.scan import NumpyScanner, Scanner
from relive.log import NewRecord
from relive.log.memory import MemoryLog
from relive.producers import Composer
from relive.producers.compose import everywhere, keyed_record
from relive.schemas import ExperienceRecorded, PriorityUpdated, encode

COMPOSER = Composer("test")
NOW_US = 10**15
QUIET = IndexOptions(record_retrievals=False)


class KeptStore(MemoryStore):
    """A memory store that outlives its engine, and notices being closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1


def add(log: MemoryLog, experience: Experience) -> Token:
    record = keyed_record(COMPOSER.experience(experience), log.partitions)
    (position,) = log.append([record])
    return Token(experience.id or "", record.partition, position)


def put_in_force(log: MemoryLog, **values: Any) -> None:
    events = [
        COMPOSER.settings(Settings(**values), log.partitions, "") for _ in range(log.partitions)
    ]
    log.append(everywhere(events))


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(partitions=2)


@pytest.fixture
def engine(log: MemoryLog) -> Iterator[Engine]:
    engine = Engine(log, MemoryStore(), QUIET, clock_us=lambda: NOW_US)
    engine.start()
    yield engine
    engine.close()


def assert_reads_are_those_of_the_state(engine: Engine, query: list[float]) -> None:
    """Search, sample, ids and counts, all from the rows and payloads of the state alone."""
    with engine._materializer.locked() as states:
        live = [
            (row, state.payload(row.position), state.settings)
            for state in states
            for row in state.rows()
        ]
    ids = [row.experience_id for row, _, _ in live]
    assert len(engine) == len(ids) == engine.stats().size == engine.stats().index_size
    assert sorted(engine.ids()) == sorted(ids)

    experiences = {i: engine.get(i) for i in ids}
    space = EmbeddingSpace(len(query), 0, engine._options.metric)
    prepared = space.query(query, None)
    scored = []
    for row, _, _ in live:
        got = experiences[row.experience_id]
        assert got is not None
        visual = None if got.visual is None else np.asarray(got.visual)
        score = float(prepared.exact(space.row(visual, None)[None, :])[0])
        scored.append((-score, row.position, row.partition, row.experience_id))
        weights = states[row.partition].settings.weights
        assert got.priority == priority_at(
            weights, row.ageless_priority(weights), row.event_time_us, row.factor, NOW_US
        )
    expected = [i for *_, i in sorted(scored)]
    for k in (1, 3, len(ids), len(ids) + 5):
        assert [hit.id for hit in engine.search(visual=query, k=k)] == expected[:k]

    batch = engine.sample(len(ids) + 5, seed=1)
    assert sorted(item.id for item in batch) == sorted(ids)
    total = sum(e.priority or 0.0 for e in experiences.values() if e is not None)
    for item in batch:
        assert item.probability == pytest.approx((item.experience.priority or 0.0) / total)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["add"] * 8 + ["outcome", "outcome", "retire", "priority", "settings", "clear", "junk"]
        ),
        st.integers(0, 14),
        st.integers(0, 3),
    ),
    max_size=40,
)


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("partitions", [1, 3])
def test_reads_are_those_of_the_state_whatever_happened(
    scanner: Scanner, metric: Metric, partitions: int
) -> None:
    @settings(max_examples=12)
    @given(STEPS, st.integers(1, 9))
    def holds(steps: list[tuple[str, int, int]], batch: int) -> None:
        log, store = MemoryLog(partitions), KeptStore()
        options = IndexOptions(metric=metric, record_retrievals=False)

        def opened() -> Engine:
            return Engine(log, store, options, clock_us=lambda: NOW_US, scanner=scanner)

        engine = opened()
        put_in_force(log, capacity=8)
        for number, (kind, which, detail) in enumerate(steps):
            name = f"x{which}"
            if kind == "add":
                # Ids are added again when they are gone, and conflict while they are not.
                visual = [float(detail), 1.0, float(number % 3)]
                add(log, Experience(id=name, visual=visual, total_reward=float(detail)))
            elif kind == "outcome":
                outcome = COMPOSER.outcome("r", name, success=bool(detail % 2), revision=number)
                log.append([keyed_record(outcome, partitions)])
            elif kind == "retire":
                log.append([keyed_record(COMPOSER.retired(name, ""), partitions)])
            elif kind == "priority":
                row = engine.row(name)
                event = PriorityUpdated(
                    number.to_bytes(16, "big"),
                    "t",
                    0,
                    name,
                    float(detail),
                    row.version if row else 0,
                )
                partition = keyed_record(COMPOSER.retired(name, ""), partitions).partition
                log.append([NewRecord(partition, b"", encode(event))])
            elif kind == "settings":
                policy = EvictionPolicy.LOWEST_PRIORITY if which % 2 else EvictionPolicy.OLDEST
                put_in_force(log, capacity=3 + 2 * detail, eviction_policy=policy)
            elif kind == "clear":
                log.append(everywhere([COMPOSER.cleared("") for _ in range(partitions)]))
            else:
                log.append([NewRecord(which % partitions, b"", b"junk")])
            if number % batch == 0:
                engine.catch_up()
                assert_reads_are_those_of_the_state(engine, [1.0, 0.5, float(detail)])
            if number % 11 == 10:
                engine.catch_up()
                digest = engine.stats().digest
                engine.close()
                engine = opened()
                assert engine.stats().digest == digest
                assert_reads_are_those_of_the_state(engine, [1.0, 0.5, float(detail)])
        engine.catch_up()
        assert_reads_are_those_of_the_state(engine, [1.0, 0.5, 0.25])
        engine.close()

    holds()


def test_two_replicas_of_one_log_answer_alike(log: MemoryLog) -> None:
    put_in_force(log, capacity=40)
    random = np.random.default_rng(2)
    for n in range(100):
        vector = random.standard_normal(4)
        add(log, Experience(id=f"x{n}", visual=vector, total_reward=float(n % 5)))
    replicas = [
        Engine(log, MemoryStore(), QUIET, clock_us=lambda: NOW_US, scanner=scanner)
        for scanner in (NumpyScanner(), None)
    ]
    answers = []
    for at, replica in enumerate(replicas):
        if at:  # this one follows in another rhythm
            replica.start()
        replica.catch_up()
        hits = replica.search(visual=[1.0, 2.0, 3.0, 4.0], k=20)
        batch = replica.sample(10, seed=7, now=2e9, alpha=0.7, beta=0.4)
        answers.append(
            (
                replica.stats().digest,
                [(hit.id, hit.score) for hit in hits],
                [(item.id, item.probability, item.weight) for item in batch],
                hits.positions,
            )
        )
        replica.close()
    assert answers[0] == answers[1]


def test_a_wanted_token_is_included_and_one_from_elsewhere_is_refused(
    log: MemoryLog, engine: Engine
) -> None:
    token = add(log, Experience(id="x", visual=[1.0]))
    engine.catch_up(token)
    assert engine.row("x") is not None
    engine.catch_up([token, token])
    engine.catch_up({token.partition: token.position + 1})
    with pytest.raises(NotCaughtUp):
        engine.catch_up(Token("x", token.partition, token.position + 1), timeout_s=0.05)
    with pytest.raises(InvalidQuery, match="min_positions"):
        engine.catch_up(Token("x", 2, 0))


def test_ids_of_several_partitions_come_oldest_first(log: MemoryLog, engine: Engine) -> None:
    names = [f"x{n}" for n in range(40)]
    tokens = [add(log, Experience(id=name, visual=[1.0])) for name in names]
    engine.catch_up()
    order = sorted(tokens, key=lambda token: (token.position, token.partition))
    assert engine.ids() == [token.id for token in order]


def test_every_partition_keeps_its_share(log: MemoryLog, engine: Engine) -> None:
    put_in_force(log, capacity=11)
    tokens = [add(log, Experience(id=f"x{n}", visual=[1.0])) for n in range(100)]
    engine.catch_up()
    for partition, share in ((0, 6), (1, 5)):
        mine = [token.id for token in tokens if token.partition == partition]
        kept = [i for i in engine.ids() if i in mine]
        assert kept == mine[-share:]


def test_partitions_that_disagree_on_a_dimension_stop_it_with_the_reason(log: MemoryLog) -> None:
    # Only a log whose dimensions were left open can come to this.
    homes: dict[int, str] = {}
    for n in range(20):
        event = COMPOSER.experience(Experience(id=f"x{n}", visual=[1.0]))
        homes.setdefault(keyed_record(event, 2).partition, f"x{n}")
    add(log, Experience(id=homes[0], visual=[1.0, 2.0]))
    add(log, Experience(id=homes[1], visual=[1.0, 2.0, 3.0]))
    engine = Engine(log, MemoryStore(), QUIET)
    with pytest.raises(Exception, match=r"different dimensions \[2, 3\]"):
        engine.start()
    engine.close()


@pytest.mark.parametrize("committed", [False, True])
def test_options_that_do_not_fit_what_is_there_are_refused_at_the_start(committed: bool) -> None:
    log, store = MemoryLog(), KeptStore()
    add(log, Experience(id="x", visual=[1.0] * 2, text=[1.0] * 3))
    if committed:
        engine = Engine(log, store, QUIET)
        engine.catch_up()
        engine.close()
    before = store.closed
    average = IndexOptions(mode=type(QUIET.mode)("average"))

    def open_and_start() -> None:
        engine = Engine(log, store, average)
        try:
            engine.start()
        finally:
            engine.close()

    with pytest.raises(InvalidConfig, match="shared space"):
        open_and_start()
    assert store.closed > before


def test_a_store_of_another_log_is_refused_and_let_go() -> None:
    store = KeptStore()
    log = MemoryLog()
    add(log, Experience(id="x", visual=[1.0]))
    engine = Engine(log, store, QUIET)
    engine.catch_up()
    engine.close()
    before = store.closed
    with pytest.raises(LogReplaced):
        Engine(MemoryLog(), store, QUIET)
    assert store.closed == before + 1
    assert not [t for t in threading.enumerate() if t.name.startswith("relive")]


def test_retrievals_are_recorded_for_those_returned_in_their_partitions(log: MemoryLog) -> None:
    engine = Engine(log, MemoryStore(), clock_us=lambda: NOW_US)
    engine.start()
    for n in range(20):
        add(log, Experience(id=f"x{n}", visual=[1.0, float(n)]))
    engine.catch_up()
    returned = [hit.id for hit in engine.search(visual=[1.0, 3.0], k=5)]
    sampled = [item.id for item in engine.sample(30, replace=True)]
    engine.flush()
    for n in range(20):
        row = engine.row(f"x{n}")
        assert row is not None
        assert row.retrieval_count == (row.experience_id in returned) + (
            row.experience_id in sampled
        )
    stats = engine.stats()
    assert stats.retrievals == 5 + len(set(sampled))
    assert (stats.orphans, stats.retrievals_lost) == (0, 0)
    engine.close()


def test_a_search_is_consistent_while_what_it_found_is_evicted(log: MemoryLog) -> None:
    put_in_force(log, capacity=20)
    engine = Engine(log, MemoryStore(), QUIET, clock_us=lambda: NOW_US)
    engine.start()
    done = threading.Event()
    problems: list[object] = []

    def write() -> None:
        n = 0
        while not done.is_set():
            records = [
                keyed_record(COMPOSER.experience(Experience(id=f"x{n + i}", visual=[1.0, n])), 2)
                for i in range(10)
            ]
            log.append(records)
            engine.catch_up()
            n += 10

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(300):
        hits = engine.search(visual=[1.0, 1.0], k=30)
        if len({hit.id for hit in hits}) != len(hits) or len(hits) > 20:
            problems.append([hit.id for hit in hits])
        if any(hit.experience.id != hit.id for hit in hits):
            problems.append("another experience than was found")
    done.set()
    writer.join()
    engine.close()
    assert problems == []


def test_content_that_is_no_experience_is_never_returned(log: MemoryLog, engine: Engine) -> None:
    event = COMPOSER.experience(Experience(id="x", visual=[1.0]))
    assert isinstance(event, ExperienceRecorded)
    broken = event._replace(metadata="{", event_id=b"b" * 16)
    record = keyed_record(event, 2)
    log.append([NewRecord(record.partition, record.key, encode(broken)), record])
    engine.catch_up()
    (hit,) = engine.search(visual=[1.0])
    assert hit.experience.metadata == {}
    assert engine.stats().quarantined == 1
