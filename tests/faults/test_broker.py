"""A broker that misbehaves, seen by a publisher, an index service and its client.

Nothing acknowledged is lost, nothing counts twice, memory stays bounded, every call ends within its
deadline, and work resumes by itself, or stops saying why.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tests.faults.history import experience
from tests.faults.proxy import Network, Proxy
from tests.faults.sizes import Size

from relive.client import Client, health
from relive.core.results import Token
from relive.errors import (
    BufferClosed,
    ConsumerStopped,
    LogError,
    LogMissing,
    LogReplaced,
    LogUnavailable,
    PublisherFull,
    ReliveError,
)
from relive.log.kafka import KafkaLog
from relive.producers import Publisher
from relive.testing.broker import Broker, broker_settings
from relive.testing.jvm_broker import JvmBroker, find_jars, find_java
from relive.testing.plugin import skip_at_a_desk
from relive.testing.ports import free_ports
from relive.testing.replay import replayed
from relive.testing.topics import Topics

pytestmark = pytest.mark.broker

PATIENCE_S = 90.0
# Of one call of a client, and how much later than that it may end on a busy machine.
CALL_S, GRACE_S = 3.0, 3.0
# The log's own; shorter than the default, so that retries come within a short outage too.
LOG_S = 2.0
QUEUE_BYTES = 256 * 1024
# What a process may grow by while its broker is away.
GROWTH_BYTES = 96 * 1024 * 1024


@dataclass
class Traffic:
    """What was published and read while something happened.

    Attributes:
        published: futures, by experience id.
        refused: how often the publisher's queue was full.
        slow: calls that ended too late.
        untyped: errors of calls that are none of Relive's.
        answered, failed: calls of the client.
    """

    published: dict[str, Future[Token]] = field(default_factory=dict)
    refused: int = 0
    slow: list[str] = field(default_factory=list)
    untyped: list[str] = field(default_factory=list)
    answered: int = 0
    failed: int = 0


class System:
    """A publisher, a `relive serve` and a client, over one topic."""

    def __init__(self, bootstrap: str, topic: str, directory: Path) -> None:
        self.url = f"kafka://{bootstrap}/{topic}"
        self.topic = topic
        self._log = KafkaLog(bootstrap, topic, timeout_s=LOG_S)
        self.publisher = Publisher(self._log, queue_bytes=QUEUE_BYTES)
        self.service, address = serve(self.url, directory)
        self.address = address
        self.client = Client(address, timeout_s=CALL_S)
        self.traffic = Traffic()
        self._numbers = count(1)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def publish(self, count: int) -> list[Token]:
        """Publish and wait until they are durable."""
        return [self._publish(timeout_s=PATIENCE_S).result(PATIENCE_S) for _ in range(count)]

    def start_traffic(self) -> None:
        """Publish and read without a pause, from now on."""
        for run in (self._publish_on, self._read_on, self._report_on):
            self._threads.append(threading.Thread(target=run, daemon=True))
            self._threads[-1].start()

    def stop_traffic(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "a call does not end"

    def close(self) -> None:
        self._stop.set()
        self.client.close()
        with contextlib.suppress(ReliveError):
            self.publisher.close(timeout_s=5.0)
        self._log.close()
        with self.service:
            self.service.kill()

    def _publish(self, timeout_s: float) -> Future[Token]:
        experience_id = f"x{next(self._numbers)}"
        future = self.publisher.publish(experience(experience_id, 0), timeout_s=timeout_s)
        self.traffic.published[experience_id] = future
        return future

    def _publish_on(self) -> None:
        while not self._stop.is_set():
            try:
                self._timed("publish", lambda: self._publish(timeout_s=0.3), 0.3)
            except PublisherFull:
                self.traffic.refused += 1
            except BufferClosed:  # the test has failed, and cleans up
                return
            time.sleep(0.005)

    def _read_on(self) -> None:
        wanted = experience("x1", 0)
        while not self._stop.is_set():
            self._call("search", lambda: self.client.search(text=wanted.text, k=3))
            self._call("get", lambda: self.client.get("x1", min_positions={0: 1}))
            time.sleep(0.05)

    def _report_on(self) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            retrieval = f"r{number}"
            report = partial(self.client.report_outcome, retrieval, "x1", success=True)
            self._call("outcome", report)
            time.sleep(0.05)

    def _call(self, what: str, call: Callable[[], object]) -> None:
        try:
            self._timed(what, call, CALL_S)
            self.traffic.answered += 1
        except ReliveError:
            self.traffic.failed += 1
        except Exception as error:  # noqa: BLE001 - which none may be
            self.traffic.untyped.append(f"{what}: {error!r}")

    def _timed(self, what: str, call: Callable[[], object], limit_s: float) -> None:
        started = time.monotonic()
        try:
            call()
        finally:
            took = time.monotonic() - started
            if took > limit_s + GRACE_S:
                self.traffic.slow.append(f"{what} took {took:.1f} s")


def serve(url: str, directory: Path) -> tuple[subprocess.Popen[str], str]:
    """A service that answers, and its address."""
    service = subprocess.Popen(
        [
            *(sys.executable, "-m", "relive.cli.main", "serve", "--log", url),
            *("--path", str(directory), "--listen", "127.0.0.1:0", "--json"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert service.stdout is not None
    address: str = json.loads(service.stdout.readline())["listening"]
    wait_until(lambda: health(address, 5.0) == "SERVING")
    return service, address


def wait_until(holds: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it does not come to hold"
        time.sleep(0.05)


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


@pytest.fixture
def broker(kafka_broker: Broker) -> Iterator[Broker]:
    if kafka_broker.via == "address":
        pytest.skip("the broker of RELIVE_TEST_KAFKA is not the test's to hurt")
    yield kafka_broker
    kafka_broker.ensure_running()


@pytest.fixture
def make_system(
    kafka_broker: Broker, make_kafka_topic: Callable[..., str], tmp_path: Path
) -> Iterator[Callable[[], System]]:
    made: list[System] = []

    def make() -> System:
        topic = make_kafka_topic()
        made.append(System(kafka_broker.bootstrap, topic, tmp_path / topic))
        return made[-1]

    yield make
    for system in made:
        system.close()


def judge(system: System) -> None:
    """What must hold when it is over: see the module's docstring."""
    traffic = system.traffic
    system.publisher.flush(PATIENCE_S)
    # Work resumes by itself.
    (last,) = system.publish(1)
    wait_until(lambda: answers(system, last))
    system.stop_traffic()
    system.publisher.flush(PATIENCE_S)
    assert traffic.slow == []
    assert traffic.untyped == []
    tokens = {i: f.result(0) for i, f in traffic.published.items() if f.exception(0) is None}
    failures = [f.exception(0) for f in traffic.published.values() if f.exception(0) is not None]
    assert all(isinstance(failure, LogUnavailable) for failure in failures)
    assert len(tokens) > 50
    # Nothing acknowledged is lost, vectors included.
    newest = max(tokens.values(), key=lambda token: token.position)
    for experience_id in tokens:
        wanted = experience(experience_id, 0)
        found = system.client.search(
            visual=wanted.visual, text=wanted.text, k=1, min_positions=newest, timeout_s=30.0
        )
        assert found[0].id == experience_id
        assert found[0].score == pytest.approx(1.0, abs=1e-5)
    # Nothing counts twice, and the state is what the log says.
    stats = system.client.stats(min_positions=newest)
    assert len(tokens) <= stats.additions <= len(traffic.published)
    assert stats.quarantined == 0
    assert stats.size == stats.additions
    wait_until(lambda: is_what_the_log_says(system))


def is_what_the_log_says(system: System) -> bool:
    """Once everything that the searches were recorded in is there."""
    clean = replayed(system.url)
    stats = system.client.stats(min_positions=clean.positions)
    if dict(stats.positions) != clean.positions:
        return False
    assert stats.digest == clean.digest
    return True


def answers(system: System, token: Token) -> bool:
    with contextlib.suppress(ReliveError):
        return system.client.get(token.id, min_positions=token) is not None
    return False


def killed(broker: Broker, size: Size) -> None:
    broker.kill()
    broker.restart()


def frozen(broker: Broker, size: Size) -> None:
    broker.pause()
    time.sleep(size.freeze_s)
    broker.resume()


def gone(broker: Broker, size: Size) -> None:
    broker.kill()
    time.sleep(size.outage_s)
    broker.restart()


# A restart takes its time, so where there is little of it one of them has to do.
MISFORTUNES = [
    pytest.param(killed, marks=pytest.mark.long, id="killed"),
    pytest.param(frozen, id="frozen"),
    pytest.param(gone, marks=pytest.mark.long, id="gone"),
]


@pytest.mark.parametrize("misfortune", MISFORTUNES)
def test_a_broker_that_is_away_for_a_while_costs_nothing(
    broker: Broker,
    make_system: Callable[[], System],
    size: Size,
    misfortune: Callable[[Broker, Size], None],
) -> None:
    system = make_system()
    system.publish(30)
    before = [resident_bytes(pid) for pid in (system.service.pid, os.getpid())]
    system.start_traffic()
    time.sleep(0.5)
    misfortune(broker, size)
    after = [resident_bytes(pid) for pid in (system.service.pid, os.getpid())]
    assert all(now - then < GROWTH_BYTES for then, now in zip(before, after, strict=True))
    if size.name != "sample" and misfortune is not killed:
        assert system.traffic.refused > 0  # or the bound of the queue was not put to the test
    judge(system)


# Between client and broker


class ProxiedBroker(JvmBroker):
    """A broker that is reached through a proxy only."""

    def __init__(self, directory: Path) -> None:
        super().__init__(find_java(os.environ), find_jars(os.environ), directory)
        (self._proxy_port,) = free_ports(1)
        self.proxy = Proxy(self._proxy_port, self._port)

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self._proxy_port}"

    def _write_settings(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        settings = broker_settings(
            listen=f"127.0.0.1:{self._port}",
            advertise=self.bootstrap,
            controller=self._controller,
            data=str(self._data),
        )
        self._settings.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedBroker]:
    from relive.testing.broker import BrokerUnavailable

    try:
        broker = ProxiedBroker(tmp_path_factory.mktemp("proxied"))
    except BrokerUnavailable as reason:
        skip_at_a_desk(str(reason))
    broker.start()
    yield broker
    broker.stop()
    broker.proxy.close()


@pytest.mark.long
@pytest.mark.parametrize(
    "state",
    [
        pytest.param(Network.CUT, id="cut"),
        pytest.param(Network.ANSWERS_LOST, id="deaf"),
    ],
)
def test_a_network_that_is_cut_costs_nothing(
    proxied: ProxiedBroker, tmp_path: Path, size: Size, state: Network
) -> None:
    """Where requests arrive and answers don't, what is sent again is in the log twice."""
    topics = Topics(proxied.bootstrap)
    system = System(proxied.bootstrap, topics.create(), tmp_path / "state")
    with contextlib.closing(system):
        system.publish(30)
        system.start_traffic()
        time.sleep(0.5)
        proxied.proxy.state = state
        time.sleep(max(size.freeze_s / 3, 2 * LOG_S))
        proxied.proxy.state = Network.WHOLE
        proxied.proxy.reset()
        judge(system)
        ends = sum(replayed(system.url).positions.values())
        if state is Network.ANSWERS_LOST:
            stats = system.client.stats()
            events = stats.additions + stats.outcomes
            assert ends > events, "there were no duplicates, so nothing was shown"


# Topics


def test_a_topic_that_was_made_again_stops_everything_with_the_reason(
    broker: Broker, make_system: Callable[[], System]
) -> None:
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    from relive.testing.topics import TOPIC_SETTINGS

    system = make_system()
    system.publish(10)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    admin.delete_topics([system.topic])[system.topic].result(PATIENCE_S)
    again = NewTopic(system.topic, num_partitions=1, config=dict(TOPIC_SETTINGS))
    made_again(admin, again)

    def refused() -> bool:
        future = system.publisher.publish(experience("again", 0), timeout_s=1.0)
        failure = future.exception(PATIENCE_S)
        assert failure is None or isinstance(failure, LogError)
        return isinstance(failure, LogReplaced | LogMissing)

    wait_until(refused)
    wait_until(lambda: health(system.address, 5.0) == "NOT_SERVING")
    with pytest.raises(ConsumerStopped, match=r"was deleted|is not the one"):
        system.client.get("x1", min_positions={0: 11})


def made_again(admin: Any, topic: Any) -> None:
    """The controller takes its time to forget the old one."""
    from confluent_kafka import KafkaException

    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            admin.create_topics([topic])[topic.topic].result(PATIENCE_S)
            return
        except KafkaException:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_head_that_was_trimmed_is_missed_only_by_who_had_not_read_it(
    broker: Broker, make_system: Callable[[], System], tmp_path: Path
) -> None:
    system = make_system()
    tokens = system.publish(30)
    wait_until(lambda: answers(system, tokens[-1]))
    log = KafkaLog(broker.bootstrap, system.topic)
    with contextlib.closing(log):
        log.truncate_before(0, 20)
    # Who has read it goes on.
    tokens += system.publish(10)
    wait_until(lambda: answers(system, tokens[-1]))
    assert system.client.get("x1") is not None
    # Who has not says that it cannot.
    late = subprocess.run(
        [
            *(sys.executable, "-m", "relive.cli.main", "serve", "--log", system.url),
            *("--path", str(tmp_path / "late"), "--listen", "127.0.0.1:0", "--json"),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert late.returncode == 4
    assert "positions 0 to 19 were removed" in late.stdout


def test_a_service_that_was_away_while_the_head_was_trimmed_says_so(
    broker: Broker, make_system: Callable[[], System]
) -> None:
    import signal

    system = make_system()
    tokens = system.publish(10)
    wait_until(lambda: answers(system, tokens[-1]))
    system.service.send_signal(signal.SIGSTOP)
    end = system.publish(200)[-1].position
    log = KafkaLog(broker.bootstrap, system.topic)
    with contextlib.closing(log):
        log.truncate_before(0, end)
    system.service.send_signal(signal.SIGCONT)
    # What it had fetched before it may fold; it must not pass over the rest.
    told: list[str] = []

    def has_told() -> bool:
        try:
            told.append(f"{system.client.stats(min_positions={0: end + 1}).additions} additions")
        except ConsumerStopped as stopped:
            told.append(str(stopped))
        except ReliveError:
            return False
        return True

    wait_until(has_told)
    assert "were removed" in told[0] or told[0] == "210 additions"
