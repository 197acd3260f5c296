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
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.client import Client
from relive.errors import (
    BufferClosed,
    NotCaughtUp,
    Overloaded,
    ReliveError,
    ServiceUnavailable,
)
from relive.index_service.rpc_health import health

PATIENCE_S = 60.0
VECTOR = [1.0, 2.0, 3.0]

# Says on standard output when it listens, and when a call waits for positions or its turn; with
# `hold`, it recovers only once a line comes in; a search takes `slow_s` longer.
_PROCESS = """
import json, os, sys, time
from pathlib import Path
from relive.config import BufferConfig
from relive.errors import ReliveError
from relive.index_service import Engine
from relive.index_service.searching import Searching
from relive.index_service.rpc_admission import Admission
from relive.index_service.server import serve

def say(what):
    os.write(1, json.dumps(what).encode() + b"\\n")

start, catch_up, search = Engine.start, Engine.catch_up, Searching.search
wait_for_turn = Admission._wait

def start_when_told(engine, *arguments):
    sys.stdin.readline()
    start(engine, *arguments)

def catch_up_aloud(engine, *arguments):
    say("waiting")
    catch_up(engine, *arguments)

def wait_aloud(admission, *arguments):
    say("queued")
    wait_for_turn(admission, *arguments)

def search_slowly(engine, **query):
    time.sleep(slow_s)
    return search(engine, **query)

directory, log, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
Engine.catch_up, Admission._wait = catch_up_aloud, wait_aloud
if options.pop("hold", False):
    Engine.start = start_when_told
slow_s = options.pop("slow_s", 0.0)
if slow_s:
    Searching.search = search_slowly
config = BufferConfig(**options.pop("config", {}))
try:
    listening = lambda address, page: say(address)
    code = serve(Path(directory), config, log=log, on_listening=listening, **options)
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


class Crowd:
    """Callers who all search at once, each several times, and what became of their calls."""

    def __init__(self, address: str, callers: int, calls: int = 1, **options: Any) -> None:
        self.answered: list[list[str]] = []
        self.problems: list[Exception] = []
        self._address, self._calls, self._options = address, calls, options
        self._together = threading.Barrier(callers)
        self._threads = [threading.Thread(target=self._search) for _ in range(callers)]
        for thread in self._threads:
            thread.start()

    def _search(self) -> None:
        with Client(self._address, timeout_s=PATIENCE_S) as client:
            self._together.wait(PATIENCE_S)
            for _ in range(self._calls):
                try:
                    found = client.search(visual=VECTOR, k=3, **self._options)
                    self.answered.append([hit.id for hit in found])
                except ReliveError as problem:
                    self.problems.append(problem)

    def gone(self) -> Crowd:
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
        return self


def test_more_calls_than_it_takes_are_refused_and_the_others_answered(
    start: Callable[..., Service], buffer: ExperienceBuffer
) -> None:
    """Two workers, four places, forty callers: as many answers as the workers can give."""
    buffer.add_many(experiences(50))
    expected = [hit.id for hit in buffer.search(visual=VECTOR, k=3)]
    service = start(max_workers=2, max_queued=4, slow_s=0.05)
    service.wait_until("SERVING")
    told: list[str] = []
    over = threading.Event()

    def ask_for_health() -> None:
        while not over.is_set():
            told.append(health(service.address, PATIENCE_S))
            time.sleep(0.01)

    asking = threading.Thread(target=ask_for_health)
    asking.start()

    crowd = Crowd(service.address, callers=40, calls=5).gone()
    over.set()
    asking.join(PATIENCE_S)

    # None met its deadline, none hung, and nothing else went wrong.
    assert {type(problem) for problem in crowd.problems} == {Overloaded}
    assert len(crowd.answered) + len(crowd.problems) == 200
    # Those that find two turns and four places free at once, at the least.
    assert len(crowd.answered) >= 6
    assert all(ids == expected for ids in crowd.answered)
    assert set(told) == {"SERVING"}
    with Client(service.address) as client:
        assert client.stats().calls_shed == len(crowd.problems)
    # Afterwards all is as before.
    again = Crowd(service.address, callers=6).gone()
    assert (again.answered, again.problems) == ([expected] * 6, [])


def test_a_call_whose_deadline_would_pass_in_the_queue_is_told_so_before_it_does(
    start: Callable[..., Service], buffer: ExperienceBuffer
) -> None:
    buffer.add_many(experiences(5))
    service = start(max_workers=1, max_queued=100, slow_s=0.1)
    service.wait_until("SERVING")
    # Four seconds of work.
    crowd = Crowd(service.address, callers=40)

    with Client(service.address) as hasty:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                hasty.search(visual=VECTOR, timeout_s=0.6)
            except Overloaded as refused:
                # By then it is known how long a turn takes.
                if "after them, in about" in str(refused):
                    break
            assert time.monotonic() < deadline

    crowd.gone()
    assert (len(crowd.answered), crowd.problems) == (40, [])


def test_callers_who_go_away_leave_no_work_behind(
    start: Callable[..., Service], buffer: ExperienceBuffer
) -> None:
    service = start(max_workers=1, max_queued=50, slow_s=0.5)
    service.wait_until("SERVING")
    callers = [Client(service.address, timeout_s=PATIENCE_S) for _ in range(30)]

    def ask(caller: Client) -> None:
        with suppress(BufferClosed, ServiceUnavailable):
            caller.search(visual=VECTOR)

    threads = [threading.Thread(target=ask, args=[caller]) for caller in callers]
    for thread in threads:
        thread.start()
    for _ in callers[1:]:
        assert service.hears() == "queued"

    for caller in callers:
        caller.close()
    for thread in threads:
        thread.join(PATIENCE_S)

    # Fifteen seconds of work, of which nobody wants to hear any more.
    with Client(service.address) as client:
        client.search(visual=VECTOR, timeout_s=8.0)


def test_a_signal_lets_calls_in_the_queue_finish(
    start: Callable[..., Service], buffer: ExperienceBuffer
) -> None:
    buffer.add_many(experiences(5))
    service = start(max_workers=1, max_queued=10, slow_s=0.5, grace_s=PATIENCE_S)
    service.wait_until("SERVING")
    crowd = Crowd(service.address, callers=4)
    for _ in range(3):
        assert service.hears() == "queued"

    service.process.send_signal(signal.SIGTERM)

    crowd.gone()
    assert (len(crowd.answered), crowd.problems) == (4, [])
    assert service.process.wait(PATIENCE_S) == 0
