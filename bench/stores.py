"""Commits, scans and disk use of the durable stores, beside writing and reading the same bytes."""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bench.measure import per_second
from bench.workload import experiences

from relive.consumers import FileStore, LmdbStore, StateStore
from relive.core.tail import Changes, Table
from relive.producers.compose import Composer
from relive.schemas import encode

ROWS = 50_000
COMMIT = 5_000
_ROUNDS = 3
_ROW_BYTES = 90
_RECENT_CHUNK = 1_000


def run(directory: Path) -> dict[str, Any]:
    """50,000 rows in commits of 5,000, then 20,000 more that take the place of the oldest."""
    payload = encode(Composer().experience(next(experiences(1))))
    stores: dict[str, Callable[[Path], StateStore]] = {"lmdb": LmdbStore, "file": FileStore}
    return {
        "payload_bytes": len(payload),
        "rows": ROWS,
        **_baseline(directory / "baseline", payload),
        **{name: _measured(kind, directory / name, payload) for name, kind in stores.items()},
    }


def _measured(
    kind: Callable[[Path], StateStore], directory: Path, payload: bytes
) -> dict[str, Any]:
    store = kind(directory)
    fill: list[float] = []
    evict: list[float] = []
    for start in range(0, ROWS + 20_000, COMMIT):
        changes = _changes(start, payload)
        (fill if start < ROWS else evict).append(_seconds(partial(store.commit, changes)))
    scans = [_seconds(lambda: _scan(store)) for _ in range(_ROUNDS)]
    gets = per_second(10_000, lambda: _get(store, 10_000))
    copy = _seconds(lambda: store.copy_to(directory.with_name(f"{directory.name}-copy")))
    use = store.disk_use()
    everything = sum(path.stat().st_size for path in directory.iterdir())
    close = _seconds(store.close)
    reopened: list[StateStore] = []
    open_again = _seconds(lambda: reopened.append(kind(directory)))
    reopened[0].close()
    (directory / "closed").unlink()
    open_unclosed = _seconds(lambda: reopened.append(kind(directory)))
    reopened[1].close()
    return {
        "commit_5000_s": _median(fill),
        "commit_5000_and_evict_5000_s": _median(evict),
        "scan_gb_per_s": round(ROWS * len(payload) / min(scans) / 1e9, 2),
        "gets_per_s": gets,
        "copy_s": copy,
        "close_s": close,
        "open_s": open_again,
        "open_after_a_death_s": open_unclosed,
        "payload_files_over_payloads": round(use.payloads / use.payloads_live, 3),
        "disk_over_payloads": round(everything / use.payloads_live, 3),
    }


def _key(number: int) -> bytes:
    return struct.pack(">HQ", 0, number)


def _changes(start: int, payload: bytes) -> Changes:
    """What the fold changes, by size: five thousand experiences, and the oldest make room."""
    numbers = range(start, start + COMMIT)
    payloads: dict[bytes, bytes | None] = {
        _key(n): payload[:-8] + struct.pack(">Q", n) for n in numbers
    }
    rows: dict[bytes, bytes | None] = {_key(n): os.urandom(_ROW_BYTES) for n in numbers}
    ids: dict[bytes, bytes | None] = {_id(n): _key(n)[2:] for n in numbers}
    for gone in (n - ROWS for n in numbers if n >= ROWS):
        payloads[_key(gone)] = rows[_key(gone)] = ids[_id(gone)] = None
    chunks = range(start // _RECENT_CHUNK, (start + COMMIT) // _RECENT_CHUNK)
    return {
        Table.META: {b"\0\0": os.urandom(800)},
        Table.IDS: ids,
        Table.ROWS: rows,
        Table.PAYLOADS: payloads,
        Table.RECENT: {_key(chunk): os.urandom(16 * _RECENT_CHUNK) for chunk in chunks},
    }


def _id(number: int) -> bytes:
    return b"\0\0" + struct.pack(">Q", number * 0x9E3779B97F4A7C15 % 2**64) * 2


def _scan(store: StateStore) -> None:
    found = sum(1 for _ in store.scan(Table.PAYLOADS, b"", b"\xff" * 10))
    if found != ROWS:
        raise RuntimeError(f"scanned {found} of {ROWS} payloads")


def _get(store: StateStore, count: int) -> None:
    for number in range(count):
        if store.get(Table.PAYLOADS, _key(20_000 + number * 7_919 % ROWS)) is None:
            raise RuntimeError(f"payload {number} is missing")


def _baseline(path: Path, payload: bytes) -> dict[str, Any]:
    """The bytes of a commit in one write and one sync, and reading them with a checksum."""
    data = payload * COMMIT
    target = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    def append() -> None:
        os.pwrite(target, data, os.fstat(target).st_size)
        os.fdatasync(target)

    writes = [_seconds(append) for _ in range(ROWS // COMMIT)]

    def read() -> None:
        for part in _parts(target):
            zlib.crc32(part)

    reads = [_seconds(read) for _ in range(_ROUNDS)]
    size = os.fstat(target).st_size
    os.close(target)
    return {
        "write_and_sync_of_5000_s": _median(writes),
        "read_and_checksum_gb_per_s": round(size / min(reads) / 1e9, 2),
    }


def _parts(descriptor: int) -> Iterator[bytes]:
    offset = 0
    while part := os.pread(descriptor, 1024 * 1024, offset):
        offset += len(part)
        yield part


def _seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return round(time.perf_counter() - started, 4)


def _median(times: list[float]) -> float:
    return sorted(times)[len(times) // 2]
