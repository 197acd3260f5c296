"""A store that is being made: each system call in turn fails, or is where the process dies.

Opening it again makes it, as if nothing had been: nothing was ever committed to it.
"""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

import pytest
from tests.faults.children import started
from tests.faults.sizes import Size
from tests.faults.tracing import NEVER, SYNCS, WRITES, Call, Injection, Tracer, some

from relive.consumers import Backend, open_store
from relive.core.tail import Table
from relive.errors import StoreError

CALLS = (*SYNCS, *WRITES, "openat", "mkdir", "flock", "mmap", "fallocate", "unlink", "rename")
JOURNAL = "journal-0000000000"
NOTES = ("store", "store.part", "closed", "closed.part")
FILES = ("owner.lock", *NOTES, "data.mdb", "lock.mdb", JOURNAL, f"{JOURNAL}.part")
CHANGES = {Table.ROWS: {b"a": b"1"}, Table.PAYLOADS: {b"a": b"x" * 9_000}}


def make(backend: Backend, directory: Path, answer: Connection, go: Connection) -> None:
    """Make a store, in a child."""
    go.recv_bytes()
    try:
        open_store(directory, backend).close()
    except StoreError as error:
        answer.send(str(error))
    else:
        answer.send("")


def made(
    backend: Backend, directory: Path, call: Call, what: str, report: Path
) -> tuple[int, str | None, list[Call]]:
    """The exit code of who made a store, what it said if it did, and its calls."""
    files = (directory, *(directory / name for name in FILES))
    calls = CALLS if call.nth == NEVER else (call.name,)
    with (
        Tracer(Injection(calls, what, call.nth, False, files), report) as tracer,
        started(make, backend, directory, go=True) as child,
    ):
        tracer(child)
        child.release()
        said = next(iter(child.messages()), None)
        return child.end(), said, tracer.made()


@pytest.mark.parametrize("backend", ["file", "lmdb"])
@pytest.mark.parametrize("what", ["signal=SIGKILL", "error=EIO", "error=ENOSPC"])
def test_a_store_that_was_being_made_is_made_by_the_next_opening(
    tmp_path: Path, backend: Backend, what: str, size: Size, chance: Random
) -> None:
    report = tmp_path / "seen"
    code, said, calls = made(backend, tmp_path / "whole", Call("", NEVER), what, report)
    assert (code, said) == (0, "")
    assert {"fdatasync", "pwrite64", "openat", "rename"} <= {call.name for call in calls}
    told = killed = 0
    for number, call in enumerate(some(calls, size.creations, chance)):
        directory = tmp_path / f"{number}"
        code, said, _ = made(backend, directory, call, what, report)
        killed += code != 0
        told += bool(said)
        store = open_store(directory, backend)
        store.commit(CHANGES)
        store.close()
        store = open_store(directory, backend)
        for table, entries in CHANGES.items():
            assert dict(store.scan(table, b"", b"\xff")) == entries, call
        store.close()
    # What fails last is the note of its closing, which may be missing.
    assert killed > 0 if what == "signal=SIGKILL" else told > 0
