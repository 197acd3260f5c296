"""One client of several services in this process: replicas, and shares of the partitions."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relive.client import Client, Filter
from relive.consumers import MemoryStore, Snapshots, StateDirectory
from relive.core.experience import Experience
from relive.core.results import Token
from relive.core.settings import Settings
from relive.errors import (
    BufferClosed,
    ConsumerStopped,
    InvalidConfig,
    InvalidExperience,
    InvalidQuery,
    LogReplaced,
    NotCaughtUp,
    PartitionsMissing,
    ServiceUnavailable,
)
from relive.index_service import Engine, IndexOptions
from relive.index_service.retrievals import Retrievals
from relive.index_service.rpc_service import IndexService
from relive.index_service.server import IndexServer
from relive.log import EventLog, log_now, log_share
from relive.log.memory import MemoryLog
from relive.producers.compose import Composer, keyed_record
from relive.schemas import OutcomeReported, decode
from relive.schemas import index_pb2 as pb

PATIENCE_S = 30.0
NOW_S = 1_800_000_000.0
DIM = 4
GOOD = pb.Retrieval(retrieval_id="r", ids=["x"], scores=[1.0])


class Cluster:
    """Services over one log in memory."""

    def __init__(self, stack: ExitStack, partitions: int, capacity: int = 10_000) -> None:
        self._stack = stack
        self.log = MemoryLog(partitions)
        self.servers: list[IndexServer] = []
        settings = Settings(capacity=capacity, visual_dim=DIM, text_dim=DIM)
        self.log.append(Composer().settings_records(settings, partitions, "made"))

    def serve(
        self,
        *share: int,
        listen: str = "127.0.0.1:0",
        record_retrievals: bool = True,
        recovered: bool = True,
        log: EventLog | None = None,
    ) -> IndexServer:
        """Another service, of all partitions or of a share."""
        mine = log_share(log or self.log, share or None)
        options = IndexOptions(record_retrievals=record_retrievals)
        server = IndexServer(lambda: Engine(mine, MemoryStore(), options), mine, listen=listen)
        self._stack.callback(server.close, 1.0)
        server.start()
        if recovered:
            server.recover()
        self.servers.append(server)
        return server

    def client(self, *servers: IndexServer, **options: Any) -> Client:
        addresses = [server.address for server in servers or self.servers]
        return self._stack.enter_context(Client(addresses, **options))

    def add(self, *experiences: Experience) -> dict[int, int]:
        """Records them; returns the positions that include everything by then."""
        composer = Composer()
        events = [composer.experience(each) for each in experiences]
        self.log.append([keyed_record(event, self.log.partitions) for event in events])
        return self.ends()

    def ends(self) -> dict[int, int]:
        return {p: self.log.bounds(p).end for p in range(self.log.partitions)}


@pytest.fixture
def make_cluster() -> Iterator[Callable[..., Cluster]]:
    with ExitStack() as stack:
        yield lambda *arguments, **options: Cluster(stack, *arguments, **options)


def experiences(count: int, seed: int = 0) -> list[Experience]:
    """Some with one embedding only, and some of them equal."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count // 2 + 1, DIM))
    return [
        Experience(
            id=f"x{at}",
            visual=vectors[at // 2] if at % 5 != 1 else None,
            text=vectors[at // 2] if at % 5 != 2 else None,
            total_reward=float(rng.normal()),
            model_confidence=float(rng.random()),
            timestamp=int(NOW_S * 1e6) - at * 3_600_000_000,
        )
        for at in range(count)
    ]


def engine_of(server: IndexServer) -> Engine:
    assert server.engine is not None
    return server.engine


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def served(server: IndexServer) -> Callable[[], int]:
    """How many searches a service has answered."""
    counted = Counter[str]()
    engine = engine_of(server)
    search = engine.search

    def counting(**arguments: Any) -> Any:
        counted["search"] += 1
        return search(**arguments)

    engine.search = counting
    return lambda: counted["search"]


def in_a_thread(call: Callable[[], Any]) -> Any:
    """What a call returns in a thread of its own, which has a replica of its own."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call).result(PATIENCE_S)


# Replicas


def test_a_replica_that_stops_is_stepped_over_and_comes_back(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(1)
    one, other = cluster.serve(), cluster.serve()
    wanted = cluster.add(*experiences(5))
    client = cluster.client()
    assert len(client.search(visual=[1.0] * DIM, k=5, min_positions=wanted)) == 5

    for server in (one, other):
        server.close(1.0)
        for _ in range(3):
            assert len(client.search(visual=[1.0] * DIM, k=5)) == 5
        again = cluster.serve(listen=server.address)
        count = served(again)
        deadline = time.monotonic() + PATIENCE_S
        while not count():
            assert time.monotonic() < deadline
            in_a_thread(lambda: client.search(visual=[1.0] * DIM))


def test_threads_are_spread_over_replicas_and_stick_to_theirs(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(1)
    counts = [served(cluster.serve()) for _ in range(3)]
    client = cluster.client()

    def ask() -> None:
        for _ in range(4):
            client.search(visual=[1.0] * DIM)

    for _ in range(6):
        in_a_thread(ask)

    assert [count() for count in counts] == [8, 8, 8]


def test_a_replica_that_recovers_or_follows_no_longer_is_stepped_over(
    make_cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = make_cluster(1)
    well = cluster.serve()
    cluster.serve(recovered=False)
    stopped = cluster.serve()
    client = cluster.client()
    client.stats()
    broken = engine_of(stopped)
    monkeypatch.setattr(Engine, "stopped", property(lambda e: OSError() if e is broken else None))

    for _ in range(6):
        assert in_a_thread(client.stats).positions == engine_of(well).positions()


def test_sequences_and_updates_are_stepped_over_too(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(1)
    one, other = cluster.serve(), cluster.serve()
    wanted = cluster.add(*experiences(5))
    client = cluster.client()
    assert client.stats(min_positions=wanted).size == 5
    assert cluster.client(other).stats(min_positions=wanted).size == 5
    one.close(1.0)

    for _ in range(2):
        assert len(in_a_thread(lambda: client.sample_sequences(2, 2))) == 2
        batch = in_a_thread(lambda: client.sample(2, strategy="fifo"))
        update = in_a_thread(
            lambda: client.update_priorities(batch.ids, [0.5, 0.7], batch.versions)  # noqa: B023
        )
        assert update.updated == 2


def test_with_no_replica_left_the_call_says_so_at_once(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(1)
    servers = [cluster.serve(), cluster.serve()]
    client = cluster.client()
    client.stats()
    for server in servers:
        server.close(1.0)

    with pytest.raises(ServiceUnavailable):
        client.stats(timeout_s=PATIENCE_S)
    with pytest.raises(ServiceUnavailable):
        client.report_outcome(None, "x", success=True)

    cluster.serve(listen=servers[1].address)
    eventually(lambda: answers(client))


def answers(client: Client) -> bool:
    try:
        client.stats()
    except ServiceUnavailable:
        return False
    return True


def test_addresses_where_nobody_answers_are_passed_over_from_the_start(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(1)
    server = cluster.serve()
    with socket.socket() as nobody, socket.create_server(("127.0.0.1", 0)) as silent:
        nobody.bind(("127.0.0.1", 0))
        places = [f"127.0.0.1:{each.getsockname()[1]}" for each in (nobody, silent)]
        with Client(f"{places[0]}, {places[1]},{server.address}") as client:
            assert client.stats().positions == cluster.ends()
        with Client(places, timeout_s=0.5) as client, pytest.raises(ServiceUnavailable):
            client.stats()


def test_a_replica_that_says_nothing_costs_a_part_of_the_deadline(
    make_cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = make_cluster(1)
    hanging, well = cluster.serve(), cluster.serve()
    client = cluster.client(timeout_s=2.0)
    client.stats()
    release = threading.Event()
    monkeypatch.setattr(engine_of(hanging), "get", lambda _: release.wait(PATIENCE_S))
    monkeypatch.setattr(engine_of(well), "get", lambda _: Experience(id="x", trajectory=[]))

    try:
        for _ in range(2):  # one of these threads has it for its own
            assert in_a_thread(lambda: client.get("x")).id == "x"
    finally:
        release.set()


def test_a_replica_that_is_behind_is_stepped_over_for_one_that_is_not(
    make_cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = make_cluster(1)
    behind, _ = cluster.serve(), cluster.serve()
    client = cluster.client()
    client.stats()
    monkeypatch.setattr(engine_of(behind), "catch_up", refusing(engine_of(behind)))
    wanted = cluster.add(*experiences(3))

    for _ in range(4):
        assert in_a_thread(lambda: client.stats(min_positions=wanted)).size == 3


def refusing(engine: Engine) -> Callable[..., None]:
    def catch_up(wanted: Any = None, timeout_s: float = 0.0) -> None:
        time.sleep(min(timeout_s, 0.05))
        raise NotCaughtUp(wanted, engine.positions())

    return catch_up


def test_where_all_are_behind_the_time_left_is_waited(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(1)
    cluster.serve()
    cluster.serve()
    client = cluster.client()
    wanted = {0: cluster.ends()[0] + 1}
    threading.Timer(0.5, lambda: cluster.add(*experiences(1))).start()

    assert client.stats(min_positions=wanted, timeout_s=PATIENCE_S).size == 1
    with pytest.raises(NotCaughtUp):
        client.stats(min_positions={0: 1_000}, timeout_s=0.5)


def test_monotonic_reads_never_go_back(
    make_cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = make_cluster(1)
    early = log_now(cluster.log)
    cluster.serve(record_retrievals=False)
    behind = cluster.serve(record_retrievals=False, log=early)  # and stays so
    monkeypatch.setattr(early, "append", cluster.log.append)
    client, loose = cluster.client(monotonic_reads=True), cluster.client()
    wanted = cluster.add(*experiences(4))
    assert client.search(visual=[1.0] * DIM, min_positions=wanted).positions == wanted

    for _ in range(4):
        found = in_a_thread(lambda: client.search(visual=[1.0] * DIM))
        assert found.positions == wanted
    seen = [in_a_thread(lambda: loose.search(visual=[1.0] * DIM)).positions for _ in range(4)]
    assert engine_of(behind).positions() in seen
    token = client.report_outcome(None, "x0", success=True)
    assert in_a_thread(client.stats).positions[0] > token.position


def test_an_outcome_that_two_services_recorded_counts_once(
    make_cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = make_cluster(1)
    servers = [cluster.serve(record_retrievals=False), cluster.serve(record_retrievals=False)]
    cluster.add(*experiences(1))
    client = cluster.client()
    before = cluster.ends()[0]
    append = cluster.log.append
    failures = iter([True, False])

    def append_and_fail(records: Any) -> list[int]:
        positions = append(records)
        if next(failures):
            raise ConsumerStopped("after it was recorded")
        return positions

    monkeypatch.setattr(cluster.log, "append", append_and_fail)
    token = client.report_outcome(None, "x0", success=True)

    assert cluster.ends()[0] == before + 2
    first, second = (decode(record.value) for record in cluster.log.read({0: before}))
    assert isinstance(first, OutcomeReported)
    assert first._replace(event_time_us=0) == second._replace(event_time_us=0)
    for server in servers:
        stats = cluster.client(server).stats(min_positions=token)
        assert (stats.outcomes, stats.retrievals) == (1, 1)


def test_a_write_that_is_not_known_to_be_harmless_twice_is_made_once(
    make_cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = make_cluster(2)
    tries = Counter[str]()

    def fails(*_: Any) -> None:
        tries["made"] += 1
        raise ConsumerStopped("half-way")

    monkeypatch.setattr(Retrievals, "record", fails)
    whole = [cluster.serve(), cluster.serve()]
    write = pb.RecordRetrievalsRequest(kind="search", retrievals=[GOOD])

    def made_by(client: Client) -> None:
        client._channel.unary_unary("/s/RecordRetrievals")(write, timeout=PATIENCE_S)

    with pytest.raises(ConsumerStopped):
        made_by(cluster.client(*whole))
    assert tries["made"] == 1
    shares = cluster.client(cluster.serve(0), cluster.serve(1))
    with pytest.raises(InvalidQuery, match="record_retrievals cannot be asked of services"):
        made_by(shares)


def test_what_every_replica_would_refuse_is_refused_once(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(2)
    cluster.serve()
    cluster.serve()
    client = cluster.client()

    with pytest.raises(InvalidQuery, match="k"):
        client.search(visual=[1.0] * DIM, k=-1)
    with pytest.raises(InvalidExperience, match="experience_id"):
        client.report_outcome(None, "", success=True)
    with pytest.raises(InvalidQuery, match="min_positions"):
        client.stats(min_positions={2: 0})


def test_a_closed_client_of_several_says_so(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(1)
    cluster.serve()
    cluster.serve()
    used, unused = cluster.client(), cluster.client()
    used.stats()
    for client in (used, unused):
        client.close()
        client.close()
        with pytest.raises(BufferClosed):
            client.stats()
        with pytest.raises(BufferClosed):
            client.report_outcome(None, "x", success=True)


@pytest.mark.parametrize("target", [[], ["a:1", ""], "a:1,", ["a:1", "a:1"], ["a:1", 2]])
def test_addresses_that_make_no_sense_are_refused(target: Any) -> None:
    with pytest.raises(InvalidConfig) as refused:
        Client(target)
    assert refused.value.field == "target"


def test_services_of_different_logs_are_refused(make_cluster: Callable[..., Cluster]) -> None:
    one, other = make_cluster(1), make_cluster(1)
    client = one.client(one.serve(), other.serve())
    eventually(lambda: says_that_logs_differ(client))  # the second may answer a moment later


def says_that_logs_differ(client: Client) -> bool:
    try:
        client.stats()
    except InvalidConfig as error:
        return "different logs" in str(error)
    return False


@pytest.mark.parametrize("partitions", [1, 3])
def test_replicas_at_the_same_positions_give_the_same_answers(
    make_cluster: Callable[..., Cluster], partitions: int
) -> None:
    cluster = make_cluster(partitions, capacity=60)
    clients = [cluster.client(cluster.serve(record_retrievals=False))]
    cluster.add(*experiences(50))
    cluster.log.append(
        [
            keyed_record(Composer().outcome(f"r{at}", f"x{at}", success=at % 3 == 0), partitions)
            for at in range(30)
        ]
    )
    engine_of(cluster.servers[0]).catch_up()
    # One has followed along, the other has found it all.
    wanted = cluster.add(*(replace_id(each) for each in experiences(40, seed=1)))
    clients.append(cluster.client(cluster.serve(record_retrievals=False)))

    searches = [
        [(h.id, h.score) for h in c.search(visual=[0.3, -1, 2, 0], k=60, min_positions=wanted)]
        for c in clients
    ]
    samples = [
        [
            (i.id, i.probability, i.weight)
            for i in c.sample(20, seed=5, now=NOW_S, alpha=0.7, beta=0.4)
        ]
        for c in clients
    ]

    assert searches[0] == searches[1]
    assert len(searches[0]) > 50
    assert samples[0] == samples[1]
    assert clients[0].stats().digest == clients[1].stats().digest


def replace_id(experience: Experience) -> Experience:
    return replace(experience, id=f"y{experience.id}")


# Shares


@pytest.fixture
def shares(make_cluster: Callable[..., Cluster]) -> tuple[Client, Client, Cluster]:
    """One client of a service with everything, and one of two that have a share."""
    cluster = make_cluster(3, capacity=50)
    whole = cluster.client(cluster.serve(record_retrievals=False))
    parts = [cluster.serve(*share, record_retrievals=False) for share in ((0, 2), (1,))]
    return whole, cluster.client(*parts), cluster


def test_shares_answer_searches_as_one_service_does(
    shares: tuple[Client, Client, Cluster],
) -> None:
    whole, parts, cluster = shares
    wanted = cluster.add(*experiences(80))
    rng = np.random.default_rng(1)

    for k in (0, 1, 7, 40, 100):
        query: dict[str, Any] = {
            "visual": rng.standard_normal(DIM),
            "text": rng.standard_normal(DIM),
        }
        one = whole.search(**query, k=k, min_positions=wanted)
        merged = parts.search(**query, k=k, min_positions=wanted)

        found = [[(h.id, h.score, h.position) for h in result] for result in (one, merged)]
        assert found[0] == found[1]
        assert [content(h.experience) for h in merged] == [content(h.experience) for h in one]
        assert set(merged.positions) == {0, 1, 2}


def test_shares_answer_filtered_and_many_searches_as_one_service_does(
    shares: tuple[Client, Client, Cluster],
) -> None:
    whole, parts, cluster = shares
    wanted = cluster.add(*experiences(80))
    queries = np.random.default_rng(2).standard_normal((6, DIM))
    few: dict[str, Any] = {"filter": Filter(min_reward=0.5), "k": 9, "min_positions": wanted}
    near: dict[str, Any] = {"min_score": 0.2, "k": 9, "min_positions": wanted}

    for options in (few, near):
        many: list[Any] = [c.search_many(visual=queries, **options) for c in (whole, parts)]
        one_by_one = [parts.search(visual=query, **options) for query in queries]
        found = [
            [[(h.id, h.score) for h in result] for result in results]
            for results in (*many, one_by_one)
        ]
        assert found[0] == found[1] == found[2]
        assert any(len(result) > 1 for result in found[0])
        assert len({result.retrieval_id for result in many[1]}) == 6
    assert parts.search_many(visual=queries[:0], min_positions=wanted) == []


@pytest.mark.parametrize("strategy", ["prioritized", "uniform", "fifo", "lifo", "highest_priority"])
def test_shares_answer_samples_as_one_service_does(
    shares: tuple[Client, Client, Cluster], strategy: str
) -> None:
    whole, parts, cluster = shares
    wanted = cluster.add(*experiences(80))
    options: dict[str, Any] = {
        "now": NOW_S,
        "beta": 0.5,
        "strategy": strategy,
        "min_positions": wanted,
    }

    one, merged = (client.sample(100, seed=3, **options) for client in (whole, parts))

    probabilities = {item.id: item.probability for item in one}
    weights = {item.id: item.weight for item in one}
    assert len(merged) == len(one) == whole.stats().size
    assert {item.id: item.probability for item in merged} == pytest.approx(probabilities)
    assert {item.id: item.weight for item in merged} == pytest.approx(weights)
    assert (merged.seed, merged.now) == (3, NOW_S)
    if strategy in ("fifo", "lifo", "highest_priority"):
        assert [item.id for item in merged] == [item.id for item in one]
    again = parts.sample(5, seed=3, **options)
    assert [i.id for i in again] == [i.id for i in parts.sample(5, seed=3, **options)]


def test_shares_answer_filtered_samples_with_or_without_content(
    shares: tuple[Client, Client, Cluster],
) -> None:
    whole, parts, cluster = shares
    wanted = cluster.add(*experiences(80))
    options: dict[str, Any] = {"seed": 3, "now": NOW_S, "alpha": 0.6, "beta": 0.5}
    options |= {"filter": Filter(min_reward=0.2), "min_positions": wanted}

    batches = [
        client.sample(100, content=content, **options)
        for client in (whole, parts)
        for content in (True, False)
    ]

    expected = dict(zip(batches[0].ids, batches[0].probabilities, strict=True))
    for batch in batches:
        assert len(batch) == len(expected)
        assert batch.now == batches[0].now
        found = dict(zip(batch.ids, batch.probabilities.tolist(), strict=True))
        assert found == pytest.approx(expected)
        assert dict(zip(batch.ids, batch.priorities, strict=True)) == pytest.approx(
            dict(zip(batches[0].ids, batches[0].priorities, strict=True))
        )
        assert len(batch.weights) == len(batch.versions) == len(batch)
    assert batches[2].ids == batches[3].ids
    assert batches[3].items is None


def test_what_shares_cannot_answer_together_is_refused(
    shares: tuple[Client, Client, Cluster],
) -> None:
    _, parts, cluster = shares
    cluster.add(*experiences(5))

    with pytest.raises(InvalidQuery, match="strategy"):
        parts.sample(2, strategy="nearest", visual=[1.0] * DIM)
    with pytest.raises(InvalidQuery, match="cannot be asked of services that have a share"):
        parts.sample_sequences(2, 2)


def test_shares_take_the_priorities_of_their_own_experiences(
    shares: tuple[Client, Client, Cluster],
) -> None:
    whole, parts, cluster = shares
    wanted = cluster.add(*experiences(40))
    batch = parts.sample(30, content=False, min_positions=wanted)
    new = [float(at) for at in range(30)]

    done = parts.update_priorities(
        [*batch.ids, "nobody", batch.ids[0]],
        [*new, 1.0, 7.5],
        [*batch.versions.tolist(), 0, int(batch.versions[0])],
    )
    again = parts.update_priorities(batch.ids, new, batch.versions)
    nothing = parts.update_priorities([], [], [])

    assert (done.updated, done.stale, done.unknown) == (30, 0, 1)
    assert (again.updated, again.stale, again.unknown) == (0, 30, 0)
    assert (nothing.updated, nothing.stale, nothing.unknown) == (0, 0, 0)
    assert set(again.positions) == set(range(cluster.log.partitions))
    for client in (whole, parts):
        all_of_it = client.sample(40, now=0.0, content=False, min_positions=again.positions)
        found = dict(zip(all_of_it.ids, all_of_it.versions.tolist(), strict=True))
        assert [found[each] for each in batch.ids] == [1] * 30
        priorities = dict(zip(all_of_it.ids, all_of_it.priorities.tolist(), strict=True))
        assert priorities[batch.ids[0]] == 7.5
        stats = client.stats(min_positions=again.positions)
        assert (stats.priority_updates, stats.stale_updates, stats.unknown_updates) == (30, 30, 1)


def test_shares_put_an_episode_together(shares: tuple[Client, Client, Cluster]) -> None:
    whole, parts, cluster = shares
    played = [
        replace(each, episode_id="e1" if at % 4 else "e2", step=at // 2)
        for at, each in enumerate(experiences(60))
    ]
    wanted = cluster.add(*played)

    for episode_id in ("e1", "e2", "nobody's"):
        one = whole.episode(episode_id, min_positions=wanted)
        merged = parts.episode(episode_id, min_positions=wanted)
        assert list(map(content, merged)) == list(map(content, one))
        steps = [each.step or 0 for each in merged]
        assert steps == sorted(set(steps))  # of two experiences for one step, the first
        assert bool(steps) is (episode_id != "nobody's")


def test_shares_are_asked_for_what_they_have(shares: tuple[Client, Client, Cluster]) -> None:
    whole, parts, cluster = shares
    wanted = cluster.add(*experiences(80))

    for at in range(80):
        found = parts.get(f"x{at}", min_positions=wanted)
        expected = whole.get(f"x{at}", min_positions=wanted)
        assert content(found) == content(expected)
    one, merged = (client.stats(min_positions=wanted) for client in (whole, parts))
    same = (
        "size",
        "capacity",
        "additions",
        "evictions",
        "index_size",
        "positions",
        "digest",
        "log",
    )
    assert [getattr(merged, name) for name in same] == [getattr(one, name) for name in same]
    assert merged.recovery is not None
    assert merged.index is not None


def content(experience: Experience | None) -> list[Any] | None:
    """All of it but the priority, which is of the moment that it was asked for."""
    if experience is None:
        return None
    values = (getattr(experience, n) for n in Experience.__slots__ if n != "priority")
    return [value.tolist() if isinstance(value, np.ndarray) else value for value in values]


def test_a_merged_retrieval_counts_once_for_what_was_returned(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(3)
    whole = cluster.client(cluster.serve())
    parts = cluster.client(cluster.serve(0, 2), cluster.serve(1))
    wanted = cluster.add(*experiences(30))

    query = np.array([1.0, 2.0, 3.0, 4.0])
    parts.search_many(visual=[query, -query], k=3, min_positions=wanted)
    result = parts.search(visual=query, k=5, min_positions=wanted)
    batch = parts.sample(5, seed=1, now=NOW_S)
    parts.report_outcome(result.retrieval_id, result[0].id, success=True)
    token = parts.report_outcome(batch.retrieval_id, batch[0].id, success=False)

    def counted() -> bool:
        stats = whole.stats(min_positions=cluster.ends())
        return (stats.retrievals, stats.outcomes, stats.orphans) == (16, 2, 0)

    eventually(counted)
    assert isinstance(token, Token)
    found = [parts.get(hit.id, min_positions=cluster.ends()) for hit in result]
    assert all(each is not None and each.retrieval_count >= 1 for each in found)
    assert found[0] is not None
    assert found[0].success_count == 1


def test_a_share_says_what_it_has_and_nothing_of_the_rest(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(3)
    wanted = cluster.add(*experiences(20))
    client = cluster.client(cluster.serve(1))

    assert set(client.stats().positions) == {1}
    assert set(client.search(visual=[1.0] * DIM).positions) == {1}
    for _ in range(2):
        answers = [known(client, f"x{at}") for at in range(20)]
        assert answers.count(None) == 20 - client.stats().size
    with pytest.raises(InvalidQuery, match="min_positions"):
        client.stats(min_positions=wanted)


def known(client: Client, experience_id: str) -> bool | None:
    try:
        return client.get(experience_id) is not None
    except InvalidQuery:
        return None


def test_a_state_of_one_share_is_refused_by_another(tmp_path: Path) -> None:
    log = MemoryLog(2)
    state = StateDirectory(tmp_path, "file", Snapshots(tmp_path / "snapshots"))
    log.append(Composer().settings_records(Settings(visual_dim=DIM, text_dim=DIM), 2, "made"))

    def opened(*share: int) -> Engine:
        mine = log_share(log, share)
        found = state.recover(mine)
        return Engine(mine, found.store, recovered=found)

    engine = opened(0)
    engine.start()
    engine.close()
    for other in ((1,), (0, 1)):
        with pytest.raises(LogReplaced, match="start with an empty state directory"):
            opened(*other)
    engine = opened(0)
    assert engine.positions() == {0: 1}
    engine.close()


def test_missing_partitions_are_named(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(4)
    one, other = cluster.serve(0), cluster.serve(2, 3)
    client = cluster.client()

    with pytest.raises(PartitionsMissing, match=r"\[1\]") as missing:
        client.search(visual=[1.0] * DIM)
    assert missing.value.missing == (1,)

    third = cluster.serve(1)
    whole = cluster.client(one, other, third)
    assert len(whole.stats().positions) == 4
    third.close(1.0)
    with pytest.raises(PartitionsMissing) as missing:
        whole.search(visual=[1.0] * DIM)
    assert missing.value.missing == (1,)


def test_shares_that_overlap_are_refused(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(3)
    cluster.serve(0, 1)
    cluster.serve(1, 2)

    with pytest.raises(InvalidConfig, match="overlap"):
        cluster.client().stats()


def test_a_share_has_replicas_and_a_service_of_everything_stands_in(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(2)
    first, second, third = cluster.serve(0), cluster.serve(1), cluster.serve(1)
    wanted = cluster.add(*experiences(20))
    client = cluster.client()
    assert client.stats(min_positions=wanted).size == 20

    third.close(1.0)
    assert client.stats(min_positions=wanted).size == 20
    whole = cluster.serve()
    client = cluster.client(first, second, whole)
    assert client.stats().size == 20
    first.close(1.0)
    assert client.stats(min_positions=wanted).size == 20
    whole.close(1.0)
    with pytest.raises(PartitionsMissing):
        client.stats()


def test_threads_stick_to_a_replica_of_every_share(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(2)
    counts = [served(cluster.serve(share)) for share in (0, 0, 1, 1)]
    client = cluster.client()

    def ask() -> None:
        for _ in range(5):
            client.search(visual=[1.0] * DIM)

    in_a_thread(ask)
    assert sorted(count() for count in counts[:2]) == [0, 5]
    assert sorted(count() for count in counts[2:]) == [0, 5]
    in_a_thread(ask)
    assert [count() for count in counts] == [5] * 4


def test_a_service_that_comes_back_with_another_share_is_noticed(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(2)
    changing, _ = cluster.serve(0), cluster.serve(1)
    wanted = cluster.add(*experiences(20))
    client = cluster.client()
    assert client.stats(min_positions=wanted).size == 20

    changing.close(1.0)
    cluster.serve(listen=changing.address)

    eventually(lambda: answers(client) and client.stats().size == 20)
    assert sorted(
        h.id for h in client.search(visual=[1.0] * DIM, text=[1.0] * DIM, k=20)
    ) == sorted(f"x{at}" for at in range(20))


@pytest.mark.parametrize(
    ("kind", "retrievals"),
    [
        ("look", [GOOD]),
        ("search", [GOOD, pb.Retrieval(retrieval_id="r", ids=["x"], scores=[])]),
        ("search", [GOOD, pb.Retrieval(retrieval_id="r", ids=["x"], scores=[math.nan])]),
        ("search", [GOOD] * 1_001),
        ("search", [pb.Retrieval(retrieval_id="r", ids=["x"] * 100_001, scores=[1.0])]),
        ("search", [GOOD, pb.Retrieval(retrieval_id="", ids=["x"], scores=[1.0])]),
        ("search", [GOOD, pb.Retrieval(retrieval_id="r", ids=[""], scores=[1.0])]),
    ],
)
def test_retrievals_that_no_search_could_have_made_are_refused(
    make_cluster: Callable[..., Cluster], kind: str, retrievals: list[Any]
) -> None:
    cluster = make_cluster(1)
    engine = engine_of(cluster.serve())
    before = cluster.ends()

    with pytest.raises((InvalidQuery, InvalidExperience)):
        IndexService(engine, cluster.log, 1).record_retrievals(
            pb.RecordRetrievalsRequest(kind=kind, retrievals=retrievals), 1.0
        )

    engine.flush()
    assert cluster.ends() == before


def test_an_event_id_of_another_length_is_refused(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(1)
    service = IndexService(engine_of(cluster.serve()), cluster.log, 1)

    with pytest.raises(InvalidExperience, match="event_id"):
        service.report_outcome(pb.ReportOutcomeRequest(experience_id="x", event_id=b"short"), 1.0)
