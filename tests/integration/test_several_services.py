"""Several `relive serve` over one Kafka topic: replicas that are killed, and shares."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from relive.buffer import Experience
from relive.client import Client, health
from relive.errors import ReliveError
from relive.producers import Publisher

COUNT = 300
DIM = 16
NOW_S = 1_800_000_000.0
PATIENCE_S = 60.0
THREADS = 4


class Service:
    """A `relive serve` that can be killed and started again where it was."""

    def __init__(
        self, start_relive: Callable[..., subprocess.Popen[str]], log: str, *options: object
    ) -> None:
        self._start_relive = start_relive
        self._options = ("serve", "--log", log, *options, "--json", "--listen")
        self.start("127.0.0.1:0")

    def start(self, listen: str) -> None:
        self._process = self._start_relive(*self._options, listen)
        assert self._process.stdout is not None
        self.address: str = json.loads(self._process.stdout.readline())["listening"]

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def wait_until_it_serves(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self._health() != "SERVING":
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def _health(self) -> str:
        try:
            return health(self.address, 5.0)
        except ReliveError:
            return ""


@pytest.fixture
def make_service(
    start_relive: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> Callable[..., Service]:
    def make(log: str, name: str, *options: object) -> Service:
        service = Service(start_relive, log, "--path", tmp_path / name, *options)
        service.wait_until_it_serves()
        return service

    return make


@pytest.fixture
def make_client() -> Iterator[Callable[..., Client]]:
    with ExitStack() as stack:

        def make(*services: Service) -> Client:
            target = ",".join(service.address for service in services)
            return stack.enter_context(Client(target, timeout_s=20.0))

        yield make


def filled(log: str) -> dict[int, int]:
    """Publishes the experiences; returns the positions that include them."""
    rng = np.random.default_rng(0)
    with Publisher(log) as publisher:
        queued = [
            publisher.publish(
                Experience(
                    id=f"x{at}",
                    visual=rng.standard_normal(DIM),
                    total_reward=float(rng.normal()),
                    model_confidence=float(rng.random()),
                    timestamp=int(NOW_S * 1e6) - at * 3_600_000_000,
                )
            )
            for at in range(COUNT)
        ]
        tokens = [each.result(PATIENCE_S) for each in queued]
    return {
        partition: 1 + max(t.position for t in tokens if t.partition == partition)
        for partition in {token.partition for token in tokens}
    }


@dataclass
class Load:
    """Threads that ask, check every answer, and report how it went, until they are stopped."""

    client: Client
    queries: list[np.ndarray]
    expected: list[list[tuple[str, float]]]
    failures: list[BaseException] = field(default_factory=list)
    rounds: list[int] = field(default_factory=lambda: [0] * THREADS)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._ask, args=(at,)) for at in range(THREADS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def go_on(self, rounds: int) -> None:
        """Until every thread has been round as many times more."""
        target = [done + rounds for done in self.rounds]
        deadline = time.monotonic() + PATIENCE_S
        while any(done < to for done, to in zip(self.rounds, target, strict=True)):
            assert not self.failures, self.failures
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _ask(self, at: int) -> None:
        try:
            while not self._stop.is_set():
                self._round(at)
                self.rounds[at] += 1
        except BaseException as failure:  # noqa: BLE001 - the test looks at it
            self.failures.append(failure)

    def _round(self, at: int) -> None:
        which = self.rounds[at] % len(self.queries)
        result = self.client.search(visual=self.queries[which], k=10)
        assert [(hit.id, hit.score) for hit in result] == self.expected[which]
        self.client.report_outcome(result.retrieval_id, result[0].id, success=True)
        batch = self.client.sample(8)
        assert len({item.id for item in batch}) == 8
        found = self.client.get(batch[0].id)
        assert found is not None
        assert found.id == batch[0].id


def ranking(client: Client, query: np.ndarray, k: int = 10) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in client.search(visual=query, k=k)]


@pytest.mark.timeout(240)
def test_killing_one_of_two_under_load_fails_no_request(
    make_kafka_log: Callable[..., str],
    make_service: Callable[..., Service],
    make_client: Callable[..., Client],
) -> None:
    log = make_kafka_log("--partitions", 2, "--visual-dim", DIM, "--text-dim", 4)
    one, other = make_service(log, "one"), make_service(log, "other")
    wanted = filled(log)
    alone = [make_client(service) for service in (one, other)]
    for client in alone:
        assert client.stats(min_positions=wanted).size == COUNT
    queries = list(np.random.default_rng(1).standard_normal((5, DIM)))
    expected = [ranking(alone[0], query) for query in queries]
    assert [ranking(alone[1], query) for query in queries] == expected
    client = make_client(one, other)

    with Load(client, queries, expected) as load:
        load.go_on(5)
        for service in (one, other):  # the second death finds the first one back in use
            service.kill()
            load.go_on(10)
            service.start(service.address)
            service.wait_until_it_serves()
            load.go_on(10)
    assert load.failures == []

    # Every outcome is there, and there once, though some were reported to a dying service.
    reported = sum(load.rounds)
    last = client.report_outcome(None, "x0", success=True)
    stats = [c.stats(min_positions=client.stats(min_positions=last).positions) for c in alone]
    assert [s.outcomes for s in stats] == [reported + 1] * 2


@pytest.mark.timeout(240)
def test_replicas_at_the_same_positions_give_the_same_answers(
    make_kafka_log: Callable[..., str],
    make_service: Callable[..., Service],
    make_client: Callable[..., Client],
) -> None:
    log = make_kafka_log("--partitions", 2, "--visual-dim", DIM, "--text-dim", 4)
    early = make_service(log, "early")
    wanted = filled(log)
    late = make_service(log, "late")
    clients = [make_client(service) for service in (early, late)]
    queries = np.random.default_rng(2).standard_normal((5, DIM))
    stats = [client.stats(min_positions=wanted) for client in clients]
    assert stats[0].digest == stats[1].digest

    rankings = [[ranking(client, query, 50) for query in queries] for client in clients]
    samples = [
        [(i.id, i.probability, i.weight) for i in client.sample(50, seed=3, now=NOW_S, beta=0.5)]
        for client in clients
    ]

    assert rankings[0] == rankings[1]
    assert samples[0] == samples[1]


@pytest.mark.timeout(240)
def test_shares_of_a_topic_answer_as_one_service_with_all_of_it(
    make_kafka_log: Callable[..., str],
    make_service: Callable[..., Service],
    make_client: Callable[..., Client],
    run_relive: Callable[..., object],
) -> None:
    log = make_kafka_log("--partitions", 2, "--visual-dim", DIM, "--text-dim", 4)
    shares = [make_service(log, f"share{p}", "--partitions", str(p)) for p in (0, 1)]
    wanted = filled(log)
    whole, parts = make_client(make_service(log, "whole")), make_client(*shares)
    stats = [client.stats(min_positions=wanted) for client in (whole, parts)]
    assert stats[0].size == stats[1].size == COUNT
    assert stats[0].digest == stats[1].digest

    for query in np.random.default_rng(2).standard_normal((5, DIM)):
        assert ranking(parts, query, 50) == ranking(whole, query, 50)
    batches = [c.sample(COUNT, seed=1, now=NOW_S, beta=0.5) for c in (whole, parts)]
    one, merged = ({i.id: (i.probability, i.weight) for i in batch} for batch in batches)
    assert merged.keys() == one.keys()
    for each, expected in one.items():
        assert merged[each] == pytest.approx(expected)
    assert parts.get("x7") is not None

    # A killed share is found again, with its state.
    shares[0].kill()
    with pytest.raises(ReliveError, match=r"partitions \[0\]"):
        ranking(parts, np.ones(DIM))
    shares[0].start(shares[0].address)
    shares[0].wait_until_it_serves()
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            again = ranking(parts, np.ones(DIM))
            break
        except ReliveError:
            assert time.monotonic() < deadline
    assert again == ranking(whole, np.ones(DIM))

    # The same from the command line.
    target = ",".join(share.address for share in shares)
    assert run_relive("stats", target, "--json").json["size"] == COUNT  # type: ignore[attr-defined]
    assert run_relive("health", target, "--json").json["status"] == "SERVING"  # type: ignore[attr-defined]
