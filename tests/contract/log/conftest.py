"""What the tests of the event log's contract need of a backend, and the three that there are."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import pytest

from relive.log import EventLog, Record, open_log
from relive.log.memory import MemoryLog

if TYPE_CHECKING:
    from relive.testing.broker import Broker

Result = TypeVar("Result")

# Long enough for a broker on a busy machine; nothing waits this long unless something is broken.
PATIENCE_S = 30.0


class LogCase(ABC):
    """A log of one backend, and what a test may do to it from outside."""

    def __init__(self) -> None:
        self._opened: list[EventLog] = []

    def open(self) -> EventLog:
        """A handle on the log; closed after the test."""
        log = self._open()
        self._opened.append(log)
        return log

    def contents(self, log: EventLog, partition: int = 0) -> list[Record]:
        """Everything from the first position to the end."""
        bounds = log.bounds(partition)
        position, found = bounds.first, []
        while position < bounds.end:
            found += log.read({partition: position})
            position = found[-1].position + 1
        return found

    def values(self, log: EventLog, partition: int = 0) -> list[bytes]:
        return [record.value for record in self.contents(log, partition)]

    def close_all(self) -> None:
        for log in self._opened:
            log.close()

    @abstractmethod
    def _open(self) -> EventLog: ...

    @abstractmethod
    def other(self) -> LogCase:
        """Another log of the same kind."""


class MemoryCase(LogCase):
    def __init__(self, partitions: int) -> None:
        super().__init__()
        self._partitions = partitions
        self._log = MemoryLog(partitions)

    def _open(self) -> EventLog:
        return self._log

    def other(self) -> LogCase:
        return MemoryCase(self._partitions)


class UrlCase(LogCase):
    """A log that other processes can open too."""

    url: str
    partitions = 1

    def _open(self) -> EventLog:
        return open_log(self.url)

    @abstractmethod
    def delete(self) -> None: ...

    def recreate(self) -> None:
        """Delete it and make it again, under the same name."""
        self.delete()
        open_log(self.url, create=True, partitions=self.partitions).close()


class FileCase(UrlCase):
    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self.url = f"file:{directory}"
        open_log(self.url, create=True).close()

    def delete(self) -> None:
        shutil.rmtree(self._directory)

    def other(self) -> LogCase:
        return FileCase(self._directory.with_name(f"{self._directory.name}-other"))


class KafkaCase(UrlCase):
    def __init__(self, broker: Broker, make_topic: Callable[..., str], partitions: int = 1) -> None:
        super().__init__()
        self._broker = broker
        self._make_topic = make_topic
        self._topic = make_topic(partitions=partitions)
        self.partitions = partitions
        self.url = f"kafka://{broker.bootstrap}/{self._topic}"

    def delete(self) -> None:
        from confluent_kafka.admin import AdminClient

        admin = AdminClient({"bootstrap.servers": self._broker.bootstrap, "log_level": 0})
        (deleted,) = admin.delete_topics([self._topic]).values()
        deleted.result(PATIENCE_S)

    def other(self) -> LogCase:
        return KafkaCase(self._broker, self._make_topic, self.partitions)


def _case(request: pytest.FixtureRequest, partitions: int) -> LogCase:
    if request.param == "memory":
        return MemoryCase(partitions)
    if request.param == "file":
        return FileCase(request.getfixturevalue("tmp_path") / "log")
    return KafkaCase(
        request.getfixturevalue("kafka_broker"),
        request.getfixturevalue("make_kafka_topic"),
        partitions,
    )


KAFKA = pytest.param("kafka", marks=pytest.mark.broker)


@pytest.fixture(params=["memory", "file", KAFKA])
def case(request: pytest.FixtureRequest) -> Iterator[LogCase]:
    """A log of one partition, of each backend."""
    case = _case(request, 1)
    yield case
    case.close_all()


@pytest.fixture(params=["memory", KAFKA])
def wide_case(request: pytest.FixtureRequest) -> Iterator[LogCase]:
    """A log of three partitions. An embedded log has one, so there is none of a file."""
    case = _case(request, 3)
    yield case
    case.close_all()


@pytest.fixture(params=["file", KAFKA])
def shared_case(request: pytest.FixtureRequest) -> Iterator[LogCase]:
    """A log outside this process. One in memory is not, so there is none."""
    case = _case(request, 1)
    yield case
    case.close_all()


class InThread(Generic[Result]):
    """A call in a thread of its own; `result()` returns or raises what it did."""

    def __init__(self, call: Callable[[], Result]) -> None:
        self._call = call
        self._outcome: list[Result] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def is_running(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> Result:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the call does not end"
        if self._error is not None:
            raise self._error
        return self._outcome[0]

    def _run(self) -> None:
        try:
            self._outcome.append(self._call())
        except BaseException as error:  # noqa: BLE001 - raised again by result()
            self._error = error


@pytest.fixture
def in_thread() -> type[InThread[object]]:
    return InThread


@pytest.fixture
def waiting() -> Callable[[EventLog, dict[int, int]], InThread[object]]:
    """Starts a long read and returns once it waits."""

    def start(log: EventLog, positions: dict[int, int]) -> InThread[object]:
        call: InThread[object] = InThread(lambda: log.read(positions, wait_s=2 * PATIENCE_S))
        time.sleep(0.3)  # until it surely waits; if it does not yet, the test is weaker, not wrong
        assert call.is_running()
        return call

    return start


@pytest.fixture
def python() -> Iterator[Callable[..., object]]:
    """Runs a script in a process of its own: `python(script, *arguments)` is its Popen."""
    import subprocess

    started: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process, contextlib.suppress(ProcessLookupError):
            process.kill()
