import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from relive.testing import watchdog
from relive.testing.ports import FIRST_PORT, LAST_PORT, free_ports


@contextmanager
def guarded(*command: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A watchdog and the process id of the command it guards."""
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", watchdog.__file__, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with guard:
        assert guard.stdout is not None
        yield guard, int(guard.stdout.readline())


def ends(pid: int, within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        stat = Path(f"/proc/{pid}/stat")
        # A zombie has ended too: nobody may be left who reaps it.
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.01)
    return False


def test_a_guarded_command_is_killed_when_its_starter_lets_go() -> None:
    with guarded("sleep", "60") as (guard, pid):
        assert guard.stdin is not None
        guard.stdin.close()
        assert ends(pid)
        assert guard.wait(5) != 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_a_guarded_command_does_not_outlive_a_guard_that_is_killed() -> None:
    with guarded("sleep", "60") as (guard, pid):
        guard.kill()
        assert ends(pid)


def test_a_guard_ends_with_its_command_and_passes_its_status_on() -> None:
    with guarded("sh", "-c", "exit 7") as (guard, _):
        assert guard.wait(5) == 7


def test_a_guarded_command_can_be_frozen_and_killed_by_its_id() -> None:
    with guarded("sleep", "60") as (guard, pid):
        os.kill(pid, signal.SIGSTOP)
        assert guard.poll() is None
        os.kill(pid, signal.SIGKILL)
        assert guard.wait(5) == -signal.SIGKILL & 0xFF


def test_free_ports_differ_and_lie_below_those_of_outgoing_connections() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(FIRST_PORT <= port <= LAST_PORT < 32_768 for port in ports)


def test_a_port_that_is_taken_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    (taken, other) = free_ports(2)
    monkeypatch.setattr("random.sample", lambda *_: [taken, other])
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", taken))
        assert free_ports(1) == [other]
