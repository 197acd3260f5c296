"""Checks a store in a process of its own, so that a signal becomes a verdict.

Reading a damaged LMDB file can end the process that reads it. `python -m relive.consumers.verify`
is that process; here is what waits for it.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from relive.consumers.durable_files import sync_directory, temporary
from relive.errors import StoreDamaged, StoreError

_log = logging.getLogger(__name__)

VERIFY_TIMEOUT_S = 600.0
RENEW = "--renew"

# What a process dies of when it reads what makes no sense.
_OF_DAMAGE = frozenset(
    {signal.SIGBUS, signal.SIGSEGV, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP}
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found.

    Attributes:
        sound: everything is what was written.
        damaged: something isn't. If neither, the check could not be made.
        problem: what is wrong; empty if it is sound.
        entries: of all tables.
        payload_bytes: that were read.
    """

    sound: bool
    damaged: bool = False
    problem: str = ""
    entries: int = 0
    payload_bytes: int = 0


def verify_store(directory: Path, timeout_s: float = VERIFY_TIMEOUT_S) -> Verdict:
    """Read everything in a store that nobody has open, and check it."""
    return _ask([str(directory)], timeout_s)


def renew(data: Path, timeout_s: float = VERIFY_TIMEOUT_S) -> None:
    """Write an LMDB file anew, checked, for the owner of the store.

    Raises:
        StoreDamaged: it is damaged.
        StoreError: it could not be checked.
    """
    started = time.monotonic()
    verdict = _ask([RENEW, str(data.parent)], timeout_s)
    if verdict.damaged:
        raise StoreDamaged(data, f"the check found: {verdict.problem}")
    if not verdict.sound:
        raise StoreError(f"cannot check {data}: {verdict.problem}")
    os.replace(temporary(data), data)
    sync_directory(data.parent)
    taken = time.monotonic() - started
    _log.info("%s was not closed in good order; it is sound (checked in %.1f s)", data, taken)


def _ask(arguments: list[str], timeout_s: float) -> Verdict:
    # -P: the directory that happens to be the current one has no say in what is run.
    command = [sys.executable, "-P", "-m", "relive.consumers.verify", *arguments]
    try:
        process = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Verdict(False, problem=f"the check did not end within {timeout_s:.0f} s")
    except OSError as error:
        return Verdict(False, problem=f"the check could not be started: {error}")
    if process.returncode < 0:
        number = -process.returncode
        name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
        return Verdict(False, number in _OF_DAMAGE, f"the process that read it died of {name}")
    try:
        # What is on stdout counts: of a process that nobody waits for, the status is always 0.
        return Verdict(**json.loads(process.stdout))
    except (ValueError, TypeError):
        said = process.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        return Verdict(False, problem=f"the check failed: {' '.join(said)}")
