"""An integration test of your own: a real Kafka broker, a real index service, no mocks.

    pip install 'relive[cpu,testing]' && pytest examples/test_integration.py

The broker is the fixture `kafka_broker` of Relive's pytest plugin: one that you name in
RELIVE_TEST_KAFKA, else one in Docker, else one on a local JVM. Without any, the tests are skipped.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from relive.buffer import Experience
from relive.client import Client
from relive.errors import ServiceUnavailable
from relive.producers import Publisher
from relive.testing.broker import Broker
from relive.testing.replay import assert_replay_equals

RELIVE = [sys.executable, "-m", "relive.cli.main"]


@pytest.fixture
def log(kafka_broker: Broker, kafka_topic: str) -> str:
    """The URL of a fresh log with settings in force."""
    url = f"kafka://{kafka_broker.bootstrap}/{kafka_topic}"
    subprocess.run([*RELIVE, "log", "create", url, "--visual-dim", "64"], check=True, timeout=60)
    return url


@contextmanager
def index_service(log: str, directory: Path) -> Iterator[str]:
    """The address of a `relive serve` that answers; it is killed afterwards."""
    command = [*RELIVE, "serve", "--log", log, "--path", str(directory)]
    listen = ["--listen", "127.0.0.1:0", "--json"]
    with subprocess.Popen([*command, *listen], stdout=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout is not None
            address: str = json.loads(service.stdout.readline())["listening"]
            wait_until_it_answers(address)
            yield address
        finally:
            service.kill()


def wait_until_it_answers(address: str, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    with Client(address) as client:
        while True:
            try:
                client.stats()
                return
            except ServiceUnavailable:  # it recovers
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


def test_an_agent_finds_what_another_published(log: str, tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).standard_normal((20, 64))
    with Publisher(log) as publisher, index_service(log, tmp_path) as address:
        queued = [
            publisher.publish(Experience(id=f"x{number}", visual=picture, final_answer=number))
            for number, picture in enumerate(pictures)
        ]
        tokens = [future.result(timeout=30) for future in queued]  # on the broker's disk

        with Client(address) as client:
            # min_positions: the answer includes what was published just now.
            result = client.search(visual=pictures[7], k=3, min_positions=tokens)
            assert result[0].id == "x7"
            after = client.report_outcome(result.retrieval_id, "x7", success=True)
            used = client.get("x7", min_positions=after)
            assert used is not None
            assert (used.success_count, used.final_answer) == (1, 7)


def test_a_service_that_is_killed_comes_back_with_the_same_state(log: str, tmp_path: Path) -> None:
    with Publisher(log) as publisher:
        queued = [publisher.publish(Experience(visual=np.eye(64)[n])) for n in range(64)]
        tokens = [future.result(timeout=30) for future in queued]
    with index_service(log, tmp_path) as address, Client(address) as client:
        before = client.stats(min_positions=tokens)
    with index_service(log, tmp_path) as address, Client(address) as client:
        after = client.stats(min_positions=before.positions)
    assert after.digest == before.digest
    assert after.size == 64
    assert_replay_equals(log, after)
