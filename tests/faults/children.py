"""Child processes that may die at any moment.

They are forked by a server process that has imported everything (multiprocessing's fork server):
a child then takes milliseconds to start instead of a second, and is a process like any other.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_PRELOADED = ["pytest", "tests.faults.worker", "tests.faults.reader", "faiss", "confluent_kafka"]

# Nothing takes this long unless something waits for ever.
PATIENCE_S = 60.0


class Stuck(AssertionError):
    """Raised when a child does not end in time."""


class Child:
    """A process that runs a function and sends messages.

    Args:
        target: called with the arguments and, last, the connection to send on.
        arguments: of it.
        go: whether it gets another connection, on which it waits for `release`.
    """

    def __init__(self, target: Callable[..., None], *arguments: Any, go: bool = False) -> None:
        self._messages, theirs = _CONTEXT.Pipe(duplex=False)
        given = [theirs]
        self._go: Connection | None = None
        if go:
            their_go, self._go = _CONTEXT.Pipe(duplex=False)
            given.append(their_go)
        self._process = _CONTEXT.Process(target=target, args=(*arguments, *given), daemon=True)
        # Threads of these libraries would make the server unfit to fork.
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(name, "1")
        _CONTEXT.set_forkserver_preload(_PRELOADED)
        self._ended, self._code = False, 0
        self._process.start()
        for end in given:
            end.close()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def release(self) -> None:
        """Let it begin."""
        assert self._go is not None
        self._go.send_bytes(b"go")

    def messages(self, until: float | None = None) -> Iterator[Any]:
        """What it sends, until it ends; or until a moment of the monotonic clock.

        Raises:
            Stuck: it goes on for too long.
        """
        give_up = time.monotonic() + PATIENCE_S
        while True:
            now = time.monotonic()
            if until is not None and now >= until:
                return
            if now >= give_up:
                self.kill()
                raise Stuck(f"process {self.pid} sent nothing for {PATIENCE_S:g} s")
            left = (give_up if until is None else min(until, give_up)) - now
            if not wait([self._messages], left):
                continue
            try:
                yield self._messages.recv()
            except EOFError:
                return
            give_up = time.monotonic() + PATIENCE_S

    def kill(self) -> None:
        """End it with kill -9, unless it has ended."""
        if not self._ended:
            self._process.kill()

    def end(self) -> int:
        """Wait until it has ended; its exit code, negative for a signal. Safe to call twice.

        Raises:
            Stuck: it does not end.
        """
        if self._ended:
            return self._code
        self._process.join(PATIENCE_S)
        code = self._process.exitcode
        if code is None:
            self.kill()
            self._process.join()
            raise Stuck(f"process {self.pid} has sent its last message and does not end")
        self._ended, self._code = True, code
        self._messages.close()
        if self._go is not None:
            self._go.close()
        self._process.close()
        return code


@contextmanager
def started(target: Callable[..., None], *arguments: Any, go: bool = False) -> Iterator[Child]:
    """A child that is killed at the end of the block if it is still there."""
    child = Child(target, *arguments, go=go)
    try:
        yield child
    except BaseException:
        child.kill()
        child.end()
        raise
