"""What several of the integration tests need: the command line, and topics made by it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from relive.testing.plugin import skip_at_a_desk
from relive.testing.ports import free_ports

if TYPE_CHECKING:
    from relive.testing.broker import Broker

ROOT = Path(__file__).parents[2]
RELIVE = (sys.executable, "-m", "relive.cli.main")


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What the last line of its output says."""
        return json.loads(self.out.splitlines()[-1])


@pytest.fixture
def run_relive() -> Callable[..., Done]:
    """Runs the command to its end: `run_relive("replay", "--log", url, "--json").json`."""

    def run(*arguments: object, timeout_s: float = 60.0, **environ: str) -> Done:
        done = subprocess.run(
            [*RELIVE, *map(str, arguments)],
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def start_relive() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command, and kills it after the test if it still runs."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*RELIVE, *map(str, arguments)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


@pytest.fixture
def make_kafka_log(
    kafka_broker: Broker, make_kafka_topic: Callable[..., str], run_relive: Callable[..., Done]
) -> Iterator[Callable[..., str]]:
    """Makes a log with `relive log create`: `make_kafka_log("--partitions", 2, …)` is its URL."""
    from confluent_kafka.admin import AdminClient

    # make_kafka_topic has seen to it that the broker runs, and does so again afterwards.
    topics: list[str] = []

    def make(*options: object) -> str:
        topic = f"relive-test-{uuid.uuid4().hex[:12]}"
        url = f"kafka://{kafka_broker.bootstrap}/{topic}"
        done = run_relive("log", "create", url, *options, "--json")
        assert done.code == 0, done
        topics.append(topic)
        return url

    yield make
    kafka_broker.ensure_running()
    if topics:
        admin = AdminClient({"bootstrap.servers": kafka_broker.bootstrap, "log_level": 0})
        for deleted in admin.delete_topics(topics).values():
            deleted.result(30)


@dataclass(frozen=True)
class Stack:
    """The services of docker-compose.yml, running under a name of their own."""

    command: tuple[str, ...]
    environ: dict[str, str]
    bootstrap: str
    rpc: str

    def run(self, *arguments: str, timeout_s: float = 120.0) -> str:
        """What a subcommand of docker-compose prints; it must succeed."""
        done = subprocess.run(
            [*self.command, *arguments],
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def kill(self, service: str) -> None:
        self.run("kill", "-s", "SIGKILL", service)

    def wait_until_healthy(self, service: str, timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not self._is_healthy(service):
            assert time.monotonic() < deadline, self.run("logs", "--tail=50")
            time.sleep(0.5)

    def _is_healthy(self, service: str) -> bool:
        container = self.run("ps", "-q", service).strip()
        inspect = ["docker", "inspect", "--format", "{{.State.Health.Status}}", container]
        return subprocess.check_output(inspect, text=True, timeout=30).strip() == "healthy"


@pytest.fixture(scope="session")
def compose_stack() -> Iterator[Stack]:
    """docker-compose.yml, up and healthy; RELIVE_IMAGE names the image that is under test.

    Takes up to a minute, so a test of it needs a time limit of its own.
    """
    if not os.environ.get("RELIVE_IMAGE"):
        skip_at_a_desk("RELIVE_IMAGE is not set: infra/relive/build-image prints it")
    compose = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    kafka, rpc = free_ports(2)
    stack = Stack(
        command=(*compose, "-f", str(ROOT / "docker-compose.yml")),
        environ={
            **os.environ,
            "COMPOSE_PROJECT_NAME": f"relive-test-{uuid.uuid4().hex[:8]}",
            "RELIVE_KAFKA_PORT": str(kafka),
            "RELIVE_PORT": str(rpc),
        },
        bootstrap=f"127.0.0.1:{kafka}",
        rpc=f"127.0.0.1:{rpc}",
    )
    try:
        stack.run("up", "-d")
        stack.wait_until_healthy("index")
        yield stack
    finally:
        stack.run("down", "-v", "--remove-orphans", "--timeout", "10")
