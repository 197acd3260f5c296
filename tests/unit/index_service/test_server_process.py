"""The service as a process: started, asked, stopped and killed from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.client import Client
from relive.errors import NotCaughtUp, ServiceUnavailable
from relive.index_service.rpc_health import health

PATIENCE_S = 60.0
VECTOR = [1.0, 2.0, 3.0]

# Says on standard output when it listens and when a call waits for positions; with `hold`, it
# recovers only once a line comes in.
_PROCESS = """
import json, sys
from pathlib import Path
from relive.config import BufferConfig
from relive.errors import ReliveError
from relive.index_service import Engine
from relive.index_service.server import serve

def say(what):
    print(json.dumps(what), flush=True)

start, catch_up = Engine.start, Engine.catch_up

def start_when_told(engine, *arguments):
    sys.stdin.readline()
    start(engine, *arguments)

def catch_up_aloud(engine, *arguments):
    say("waiting")
    catch_up(engine, *arguments)

directory, log, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
Engine.catch_up = catch_up_aloud
if options.pop("hold", False):
    Engine.start = start_when_told
config = BufferConfig(**options.pop("config", {}))
try:
    code = serve(Path(directory), config, log=log, on_listening=say, **options)
except ReliveError as error:
    say([type(error).__name__, str(error)])
    code = 3
sys.exit(code)
"""


class Service:
    """A running service."""

    def __init__(self, directory: Path, log: str, **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROCESS, str(directory), log, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address: str = self.hears()

    def hears(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def tell(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def wait_until(self, status: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while health(self.address, PATIENCE_S) != status:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def end(self) -> None:
        with self.process:
            self.process.kill()


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[ExperienceBuffer]:
    """Writes to the log that the service reads."""
    config = BufferConfig(capacity=1_000, record_retrievals=False)
    with ExperienceBuffer.open(tmp_path / "buffer", config) as opened:
        yield opened


@pytest.fixture
def start(tmp_path: Path, buffer: ExperienceBuffer) -> Iterator[Callable[..., Service]]:
    started: list[Service] = []

    def start(**options: Any) -> Service:
        service = Service(tmp_path / "service", f"file:{tmp_path / 'buffer'}", **options)
        started.append(service)
        return service

    yield start
    for service in started:
        service.end()


def experiences(count: int) -> list[Experience]:
    rng = np.random.default_rng(0)
    return [Experience(id=f"x{at}", visual=rng.standard_normal(3)) for at in range(count)]


def test_health_says_not_serving_until_it_has_recovered(
    start: Callable[..., Service], buffer: ExperienceBuffer
) -> None:
    buffer.add_many(experiences(50))
    service = start(hold=True)

    assert health(service.address, PATIENCE_S) == "NOT_SERVING"
    with Client(service.address) as client, pytest.raises(ServiceUnavailable, match="recovering"):
        client.stats()

    service.tell()
    service.wait_until("SERVING")
    with Client(service.address) as client:
        assert client.stats().size == 50


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_running_call_finish(
    start: Callable[..., Service], buffer: ExperienceBuffer, number: signal.Signals
) -> None:
    service = start(grace_s=PATIENCE_S)
    service.wait_until("SERVING")
    found: list[Any] = []

    def read() -> None:
        with Client(service.address) as client:
            found.append(client.get("a", min_positions={0: 2}, timeout_s=PATIENCE_S))

    running = threading.Thread(target=read)
    running.start()
    assert service.hears() == "waiting"

    service.process.send_signal(number)
    buffer.add(Experience(id="a", visual=VECTOR))

    running.join()
    assert found[0].id == "a"
    assert service.process.wait(PATIENCE_S) == 0
    with pytest.raises(ServiceUnavailable):
        health(service.address)


def test_a_signal_ends_a_recovery(start: Callable[..., Service], buffer: ExperienceBuffer) -> None:
    buffer.add_many(experiences(50))
    service = start(hold=True)

    service.process.send_signal(signal.SIGTERM)
    service.tell()

    assert service.process.wait(PATIENCE_S) == 0


def test_a_read_waits_for_an_append_of_another_process(
    start: Callable[..., Service], buffer: ExperienceBuffer
) -> None:
    service = start()
    service.wait_until("SERVING")
    appended = threading.Timer(0.3, buffer.add, [Experience(id="a", visual=VECTOR)])
    appended.start()

    with Client(service.address, timeout_s=PATIENCE_S) as client:
        found = client.get("a", min_positions={0: 2})
    assert found is not None
    assert found.id == "a"
    appended.join()


def test_positions_that_never_come_end_in_not_caught_up(
    start: Callable[..., Service], buffer: ExperienceBuffer
) -> None:
    service = start()
    service.wait_until("SERVING")

    with Client(service.address) as client, pytest.raises(NotCaughtUp) as refused:
        client.search(visual=VECTOR, min_positions={0: 1_000}, timeout_s=1.0)

    assert (refused.value.wanted, refused.value.reached) == ({0: 1_000}, {0: 1})


def test_after_kill_9_it_answers_the_same(
    start: Callable[..., Service], buffer: ExperienceBuffer
) -> None:
    buffer.add_many(experiences(200))
    quiet = {"record_retrievals": False}  # or what is read would change what is compared
    service = start(config=quiet)
    service.wait_until("SERVING")
    with Client(service.address) as client:
        before = answers(client)
        token = client.report_outcome("r", "x7", success=True)
        counted = client.get("x7", min_positions=token)
        assert counted is not None

    os.kill(service.process.pid, signal.SIGKILL)
    service.process.wait(PATIENCE_S)
    again = start(config=quiet)
    again.wait_until("SERVING")

    with Client(again.address) as client:
        found = client.get("x7")
        assert found is not None
        assert found.success_count == counted.success_count == 1
        assert answers(client) == before
        assert client.stats().digest == buffer.stats().digest


def answers(client: Client) -> list[Any]:
    found = client.search(visual=VECTOR, k=20)
    drawn = client.sample(20, seed=1, now=1.9e9, strategy="uniform")
    return [[(hit.id, hit.score) for hit in found], [item.id for item in drawn]]


def test_a_client_finds_a_service_again_that_was_restarted(
    start: Callable[..., Service], buffer: ExperienceBuffer
) -> None:
    buffer.add_many(experiences(5))
    service = start()
    service.wait_until("SERVING")
    with Client(service.address) as client:
        assert client.stats().size == 5

        service.end()
        with pytest.raises(ServiceUnavailable):
            client.stats()
        start(listen=service.address).wait_until("SERVING")

        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                assert client.stats().size == 5
                break
            except ServiceUnavailable:
                assert time.monotonic() < deadline


def test_an_explicit_setting_that_contradicts_the_log_is_refused(
    start: Callable[..., Service], buffer: ExperienceBuffer
) -> None:
    service = start(config={"capacity": 7})

    assert service.hears() == [
        "InvalidConfig",
        "capacity: the log says 1000, which holds; change it there (got 7)",
    ]
    assert service.process.wait(PATIENCE_S) == 3


@pytest.mark.parametrize(
    ("config", "names"),
    [({"reward_weight": 0.9}, "reward_weight"), ({"visual_dim": 4}, "visual_dim")],
)
def test_the_contradicting_setting_is_named(
    start: Callable[..., Service], buffer: ExperienceBuffer, config: dict[str, Any], names: str
) -> None:
    buffer.add_many(experiences(1))
    service = start(config=config)

    error, message = service.hears()

    assert error == "InvalidConfig"
    assert message.startswith(f"{names}: ")


def test_settings_that_agree_with_the_log_are_accepted(
    start: Callable[..., Service], buffer: ExperienceBuffer
) -> None:
    buffer.add_many(experiences(1))
    service = start(config={"capacity": 1_000, "visual_dim": 3, "text_dim": 5})

    service.wait_until("SERVING")


def test_an_address_open_to_the_network_is_refused(
    start: Callable[..., Service], buffer: ExperienceBuffer
) -> None:
    service = start(listen="0.0.0.0:0")

    assert service.address[0] == "InvalidConfig"
    assert service.process.wait(PATIENCE_S) == 3
