"""Failing and killing a child at its n-th system call of a kind, with strace.

The calls are those on the files of one directory. strace counts those of each name and each thread
by themselves: to try each call of a run in turn, ask for one name at a time (`Tracer.made`).
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.faults.children import PATIENCE_S, Child

# The last number that strace can count to.
NEVER = 65_535

SYNCS = ("fsync", "fdatasync")
WRITES = ("write", "pwrite64", "writev", "pwritev", "ftruncate")


class Call(NamedTuple):
    """The n-th system call of a name, from 1."""

    name: str
    nth: int


@dataclass(frozen=True, slots=True)
class Injection:
    """What happens to which calls.

    Attributes:
        calls: system calls, by name.
        what: in strace's words: `error=EIO`, or `signal=SIGKILL`.
        nth: which of each name, from 1.
        all_after: whether those after it too.
        files: that the calls are on.
    """

    calls: tuple[str, ...]
    what: str
    nth: int
    all_after: bool
    files: tuple[Path, ...]

    def command(self, pid: int, report: Path) -> list[str]:
        """What attaches it to a process."""
        calls = ",".join(self.calls)
        when = f"{self.nth}+" if self.all_after else str(self.nth)
        return [
            *("strace", "-qq", "-f", "-o", str(report), "-e", f"trace={calls}"),
            *("-e", f"inject={calls}:{self.what}:when={when}", "-e", "signal=none"),
            *(word for file in self.files for word in ("-P", str(file))),
            *("-p", str(pid)),
        ]


class Tracer:
    """Attaches an injection to a child: `with Tracer(…) as tracer: trial.use(plan, trace=tracer)`.

    Args:
        injection: what to do to it.
        report: where strace writes what it saw.
    """

    def __init__(self, injection: Injection, report: Path) -> None:
        self._injection = injection
        self._report = report
        self._strace: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Tracer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._strace is not None:
            self._strace.kill()
            self._strace.communicate()

    def __call__(self, child: Child) -> None:
        self._report.unlink(missing_ok=True)
        self._strace = subprocess.Popen(
            self._injection.command(child.pid, self._report), stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + PATIENCE_S
        while not _is_traced(child.pid):
            if self._strace.poll() is not None or time.monotonic() > deadline:
                _, said = self._strace.communicate()
                raise AssertionError(f"strace does not attach: {said.decode()}")
            time.sleep(0.002)

    def injected(self) -> list[str]:
        """The calls that were interfered with. Call it when the child has ended."""
        assert self._strace is not None
        self._strace.communicate(timeout=PATIENCE_S)
        return [line for line in self._seen() if "INJECTED" in line or "SIGKILL" in line]

    def made(self) -> list[Call]:
        """The calls of the thread that made most, in order. Call it when the child has ended."""
        assert self._strace is not None
        self._strace.communicate(timeout=PATIENCE_S)
        names: dict[str, list[str]] = {}
        for line in self._seen():
            if "(" in line and "resumed" not in line:
                thread, call = line.split(maxsplit=1)
                names.setdefault(thread, []).append(call.partition("(")[0])
        most = max(names.values(), key=len, default=[])
        return [Call(name, most[: at + 1].count(name)) for at, name in enumerate(most)]

    def _seen(self) -> Iterable[str]:
        return self._report.read_text(errors="replace").splitlines()


def some(calls: Sequence[Call], wanted: int, chance: Random) -> list[Call]:
    """All calls, or as many as wanted; in order."""
    return [calls[n] for n in sorted(chance.sample(range(len(calls)), min(len(calls), wanted)))]


def _is_traced(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return "TracerPid:\t0\n" not in status
