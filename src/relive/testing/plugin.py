"""Relive's fixtures for pytest.

Pytest imports this in every run of whoever installed Relive, so it imports nothing heavy and no
optional dependency until a fixture is used.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from relive.log.memory import MemoryLog
    from relive.testing.broker import Broker
    from relive.testing.clock import TurningClock


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Broker]":
    """A Kafka broker that tests may kill: `.bootstrap`, `.kill()`, `.restart()`, `.pause()`, …

    Taken from `RELIVE_TEST_KAFKA` (an address, which is left alone), else started by a Docker
    engine, else on a local JVM; `RELIVE_TEST_KAFKA_VIA=address|docker|jvm` insists on one. Where
    there is none the test is skipped, and in CI (`CI` is set) it fails.
    """
    broker = broker_or_skip(os.environ, tmp_path_factory.mktemp("kafka"))
    yield broker
    broker.stop()


@pytest.fixture
def make_kafka_topic(kafka_broker: "Broker") -> Iterator[Callable[..., str]]:
    """Call it for the name of a fresh topic: `make_kafka_topic(partitions=3, settings={…})`.

    Afterwards its topics are deleted and the broker runs again, whatever the test did to it.
    """
    from relive.testing.topics import Topics

    kafka_broker.ensure_running()
    topics = Topics(kafka_broker.bootstrap)
    yield topics.create
    kafka_broker.ensure_running()
    topics.delete_all()


@pytest.fixture
def kafka_topic(make_kafka_topic: Callable[..., str]) -> str:
    """The name of a fresh topic of one partition."""
    return make_kafka_topic()


@pytest.fixture
def turning_clock() -> "TurningClock":
    """A clock that stands still: `turning_clock()` says microseconds, `.advance(s)` turns it."""
    from relive.testing.clock import TurningClock

    return TurningClock()


@pytest.fixture
def memory_log(turning_clock: "TurningClock") -> "Iterator[MemoryLog]":
    """An event log of one partition in memory, whose clock is `turning_clock`."""
    from relive.log.memory import MemoryLog

    log = MemoryLog(clock_us=turning_clock)
    yield log
    log.close()


def broker_or_skip(environ: Mapping[str, str], directory: Path) -> "Broker":
    """A broker by the rules of `kafka_broker`, for fixtures of another scope or environment."""
    from relive.testing.broker import BrokerUnavailable
    from relive.testing.discovery import start_broker

    try:
        return start_broker(environ, directory)
    except BrokerUnavailable as reason:
        skip_at_a_desk(str(reason))


def skip_at_a_desk(reason: str) -> NoReturn:
    """Skip for want of a service, but fail in CI, where nobody reads what was skipped."""
    if os.environ.get("CI", "").lower() in ("", "0", "false"):
        pytest.skip(reason)
    pytest.fail(f"CI is set, so this may not be skipped: {reason}", pytrace=False)
