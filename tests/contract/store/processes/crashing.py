"""Dies of kill -9 before, within or after a call that changes a file, and looks at what is left.

    python crashing.py KIND DIRECTORY EVERY

Prints a JSON line for every death that was tried: how many commits were acknowledged by then, how
many the reopened store has, and what its payloads take in the end. One child dies and another one
looks, so that neither has the other's files open.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from relive.consumers import FileStore, LmdbStore, StateStore
from relive.core.tail import Table

# Checkpoints at every commit.
KINDS: dict[str, Callable[[Path], StateStore]] = {
    "lmdb": LmdbStore,
    "file": lambda directory: FileStore(directory, min_journal_bytes=1),
}
CHANGING = ("pwrite", "fdatasync", "replace", "unlink", "link", "truncate", "ftruncate")

Changes = dict[Table, dict[bytes, bytes | None]]


def key(number: int) -> bytes:
    return struct.pack(">HQ", 0, number)


def payload(number: int) -> bytes:
    return number.to_bytes(2, "big") * 10_000


def commits() -> list[Changes]:
    """Fill segments; leave most of each dead, so that the rest moves; go on; remove nearly all."""
    gone: dict[bytes, bytes | None] = {key(n): None for n in range(40) if n % 4}
    payloads: list[dict[bytes, bytes | None]] = [
        {key(n): payload(n) for n in range(40)},
        gone | {key(n): payload(n) for n in range(100, 103)},
        {key(n): payload(n) for n in range(200, 215)},
        {key(n): None for n in (*range(0, 40, 4), *range(200, 214))},
    ]
    return [
        {Table.META: {b"n": b"%d" % n}, Table.ROWS: dict(changes), Table.PAYLOADS: changes}
        for n, changes in enumerate(payloads, 1)
    ]


def states() -> list[dict[Table, dict[bytes, bytes]]]:
    """What the store holds after each commit, none included."""
    found: list[dict[Table, dict[bytes, bytes]]] = [{table: {} for table in Table}]
    for changes in commits():
        state = {table: dict(entries) for table, entries in found[-1].items()}
        for table, entries in changes.items():
            for k, value in entries.items():
                if value is None:
                    state[table].pop(k, None)
                else:
                    state[table][k] = value
        found.append(state)
    return found


def die_at(call: int, when: str) -> None:
    """Count the calls that change a file, and die of one."""
    counted = 0

    def wrap(name: str) -> None:
        original = getattr(os, name)

        def counting(*arguments: Any, **named: Any) -> Any:
            nonlocal counted
            counted += 1
            if counted == call and when == "before":
                if name == "pwrite":
                    descriptor, data, offset = arguments
                    original(descriptor, data[: len(data) // 2], offset)
                os.kill(os.getpid(), signal.SIGKILL)
            this = counted
            try:
                return original(*arguments, **named)
            finally:
                if this == call:
                    os.kill(os.getpid(), signal.SIGKILL)

        setattr(os, name, counting)

    for name in CHANGING:
        wrap(name)


def in_child(action: Callable[[], None]) -> int:
    """Run something in a child; returns the signal that it died of, 0 for none."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - said, and told by the exit code
            print(json.dumps({"error": repr(error)}), flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit(1)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def main() -> None:
    kind, directory, every = KINDS[sys.argv[1]], Path(sys.argv[2]), int(sys.argv[3])
    expected = states()

    def commit_all(call: int, when: str, acknowledge: int) -> None:
        store = kind(directory)
        die_at(call, when)
        for changes in commits():
            store.commit(changes)
            os.write(acknowledge, b".")
        os._exit(0)

    def look(call: int, when: str, acknowledged: int) -> None:
        store = kind(directory)
        found = {table: dict(store.scan(table, b"", b"\xff" * 50)) for table in Table}
        have = expected.index(found)
        # It goes on as if nothing had been.
        for changes in commits()[have:]:
            store.commit(changes)
        store.close()
        store = kind(directory)
        assert {table: dict(store.scan(table, b"", b"\xff" * 50)) for table in Table} == expected[
            -1
        ]
        use = store.disk_use()
        store.close()
        said = {"call": call, "when": when, "acknowledged": acknowledged, "found": have}
        print(json.dumps(said | {"live": use.payloads_live, "files": use.payloads}), flush=True)

    call = 1
    while True:
        for when in ("before", "after"):
            shutil.rmtree(directory, ignore_errors=True)
            reader, writer = os.pipe()
            signal_number = in_child(lambda: commit_all(call, when, writer))  # noqa: B023
            os.close(writer)
            acknowledged = len(os.read(reader, 100))
            os.close(reader)
            if not signal_number:
                print(json.dumps({"calls": call - 1}), flush=True)
                return
            in_child(lambda: look(call, when, acknowledged))  # noqa: B023
        call += every


if __name__ == "__main__":
    main()
