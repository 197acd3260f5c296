"""Damages the files of a store, one after another, and reads what is left.

    python reading_damaged.py KIND DIRECTORY closed|open FLIPS

Prints a JSON line for each damage: the file, what was done to it, and what came of it: the name of
an error, `last` (what the last commit left), `earlier` (what one before it left) or `wrong`. A
process of its own, because reading what is damaged may end it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from relive.consumers import FileStore, LmdbStore, StateStore
from relive.core.tail import Table
from relive.errors import StoreError

KINDS: dict[str, Callable[[Path], StateStore]] = {
    "lmdb": lambda directory: LmdbStore(directory, map_bytes=1 << 30),
    "file": lambda directory: FileStore(directory, min_journal_bytes=40_000),
}
Contents = dict[Table, dict[bytes, bytes]]


def key(number: int) -> bytes:
    return number.to_bytes(10, "big")


def contents(store: StateStore) -> Contents:
    return {table: dict(store.scan(table, b"", b"\xff" * 50)) for table in Table}


def fill(store: StateStore) -> list[Contents]:
    """What the store held after each commit."""
    random.seed(1)
    states = [contents(store)]
    for turn in range(6):
        numbers = range(60 * turn, 60 * turn + 60)
        gone: dict[bytes, bytes | None] = {key(n - 150): None for n in numbers if n >= 150}
        store.commit(
            {
                Table.META: {b"n": b"%d" % turn * 100},
                Table.PAYLOADS: gone | {key(n): random.randbytes(2_000) for n in numbers},
                Table.ROWS: gone | {key(n): random.randbytes(90) for n in numbers},
                Table.IDS: {random.randbytes(16): key(n) for n in numbers},
                Table.RECENT: {key(turn): random.randbytes(16_000)},
            }
        )
        states.append(contents(store))
    return states


def damages(path: Path, flips: int) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """What is done to a file, and how."""
    size = path.stat().st_size
    for kept in sorted({0, size // 2, size - 1} - {-1, size}):
        yield f"cut to {kept} of {size}", partial(os.truncate, length=kept)
    yield "removed", os.unlink
    for turn in range(flips if size else 0):
        # Where a file, or a page of it, begins, there is most that others depend on.
        inside = random.randrange(-(-size // 4096)) * 4096 + random.randrange(64)
        at = (random.randrange(size), random.randrange(min(64, size)), inside)[turn % 3] % size
        bit = 1 << random.randrange(8)
        yield f"bit {bit} of byte {at} flipped", partial(flip, at=at, bit=bit)


def flip(path: Path, at: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= bit
    path.write_bytes(data)


def main() -> None:
    kind, directory = KINDS[sys.argv[1]], Path(sys.argv[2])
    closed, flips = sys.argv[3] == "closed", int(sys.argv[4])
    store = kind(directory / "sound")
    states = fill(store)
    store.close()
    if not closed:
        (directory / "sound" / "closed").unlink()

    def come_of(damage: Callable[[Path], None], name: str) -> str:
        target = directory / "damaged"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(directory / "sound", target)
        damage(target / name)
        try:
            store = kind(target)
        except StoreError as error:
            return type(error).__name__
        try:
            found = contents(store)
            outcome = "last" if found == states[-1] else "earlier" if found in states else "wrong"
            # What was read is also what is built on.
            store.commit({Table.ROWS: {key(n): b"later" for n in range(500, 900)}})
            if contents(store) != {**found, Table.ROWS: contents(store)[Table.ROWS]}:
                return "wrong"
            return outcome
        except StoreError as error:
            return type(error).__name__
        finally:
            store.close()

    for path in sorted((directory / "sound").iterdir()):
        # An LMDB file without a note of its closing takes a process to check: only what matters.
        costly = sys.argv[1] == "lmdb" and (not closed or path.name == "closed")
        if costly and path.name not in {"data.mdb", "closed"}:
            continue
        for what, damage in damages(path, 4 if path.name == "closed" else 12 if costly else flips):
            said = {"file": path.name, "what": what, "outcome": come_of(damage, path.name)}
            print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
