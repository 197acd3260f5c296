"""Processes that serve while something is measured."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from relive.index_service.rpc_health import health


def wait_until_serving(address: str) -> None:
    """Until a service answers; at most two minutes."""
    deadline = time.monotonic() + 120.0
    while health(address, 1.0) != "SERVING":
        if time.monotonic() > deadline:
            raise RuntimeError("the service did not recover")
        time.sleep(0.1)


@contextmanager
def service(command: list[str]) -> Iterator[str]:
    """A process that prints one line, then serves until it is ended."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "RELIVE_RECORD_RETRIEVALS": "false"},
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(30)
