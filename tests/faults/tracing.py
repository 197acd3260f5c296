"""Failing and killing a child at its n-th system call of a kind, with strace.

The calls are those on the files of one directory; the count is of each thread, as strace's is.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.children import PATIENCE_S, Child

# The last number that strace can count to.
NEVER = 65_535

SYNCS = ("fsync", "fdatasync")
WRITES = ("write", "pwrite64", "writev", "pwritev", "ftruncate")


@dataclass(frozen=True, slots=True)
class Injection:
    """What happens to which calls.

    Attributes:
        calls: system calls, by name.
        what: in strace's words: `error=EIO`, or `signal=SIGKILL`.
        nth: which of them, from 1.
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

    def count(self) -> int:
        """How many calls one thread made at most. Call it when the child has ended."""
        assert self._strace is not None
        self._strace.communicate(timeout=PATIENCE_S)
        made: dict[str, int] = {}
        for line in self._seen():
            if "(" in line and "resumed" not in line:
                thread = line.split()[0]
                made[thread] = made.get(thread, 0) + 1
        return max(made.values(), default=0)

    def _seen(self) -> Iterable[str]:
        return self._report.read_text(errors="replace").splitlines()


def _is_traced(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return "TracerPid:\t0\n" not in status
