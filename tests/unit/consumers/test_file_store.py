"""What the store in plain files promises beyond the contract of all durable stores."""

import os
import resource
import threading
from pathlib import Path

import pytest

from relive.consumers import FileStore
from relive.core.tail import Table
from relive.errors import StoreDamaged, StoreFull, StoreIncompatible, StoreStopped

ALL = (b"", b"\xff" * 9)


def files(directory: Path, kind: str) -> list[str]:
    return sorted(path.name for path in directory.glob(f"{kind}-*"))


def journal(directory: Path) -> Path:
    (path,) = directory.glob("journal-*")
    return path


def kill(directory: Path) -> None:
    """Make a closed store look as if its process had died."""
    (directory / "closed").unlink(missing_ok=True)


def filled(directory: Path, commits: int = 3) -> list[dict[bytes, bytes]]:
    """Commits to a new store, closed; returns what it held after each."""
    store = FileStore(directory)
    states: list[dict[bytes, bytes]] = [{}]
    for number in range(commits):
        store.commit({Table.ROWS: {b"%d" % number: b"x" * 40, b"last": b"%d" % number}})
        states.append(dict(store.scan(Table.ROWS, *ALL)))
    store.close()
    return states


def rows(directory: Path) -> dict[bytes, bytes]:
    store = FileStore(directory)
    found = dict(store.scan(Table.ROWS, *ALL))
    store.close()
    return found


def test_a_last_record_that_is_cut_off_anywhere_is_a_commit_that_was_not_made(
    tmp_path: Path,
) -> None:
    states = filled(tmp_path)
    content = journal(tmp_path).read_bytes()
    filled_before = tmp_path / "before"
    filled(filled_before, commits=2)
    start = journal(filled_before).stat().st_size
    assert content[:start] == journal(filled_before).read_bytes()
    for end in range(start, len(content)):
        kill(tmp_path)
        journal(tmp_path).write_bytes(content[:end])
        assert rows(tmp_path) == states[2], end
        assert journal(tmp_path).stat().st_size == start
    kill(tmp_path)
    journal(tmp_path).write_bytes(content)
    assert rows(tmp_path) == states[3]


def test_garbage_behind_the_last_record_is_cut_off(tmp_path: Path) -> None:
    states = filled(tmp_path)
    content = journal(tmp_path).read_bytes()
    for garbage in (bytes(100), b"\xff" * 100, b"RLJR" * 20, content[:60]):
        kill(tmp_path)
        journal(tmp_path).write_bytes(content + garbage)
        assert rows(tmp_path) == states[3]
        assert journal(tmp_path).read_bytes() == content


def test_any_flipped_bit_before_the_last_record_is_refused_with_its_place(tmp_path: Path) -> None:
    filled(tmp_path)
    content = journal(tmp_path).read_bytes()
    last = content.rindex(b"RLJR")
    for at in range(last):
        kill(tmp_path)
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 8
        journal(tmp_path).write_bytes(damaged)
        with pytest.raises(StoreDamaged) as refused:
            FileStore(tmp_path)
        assert refused.value.path == journal(tmp_path)
        assert refused.value.offset is not None
        assert refused.value.offset <= at


def test_a_missing_record_is_noticed(tmp_path: Path) -> None:
    filled(tmp_path)
    kill(tmp_path)
    content = journal(tmp_path).read_bytes()
    second = content.index(b"RLJR", content.index(b"RLJR") + 1)
    third = content.rindex(b"RLJR")
    journal(tmp_path).write_bytes(content[:second] + content[third:])
    with pytest.raises(StoreDamaged, match="not what was written"):
        FileStore(tmp_path)


def test_a_journal_that_outgrows_its_checkpoint_gives_way_to_the_next(tmp_path: Path) -> None:
    store = FileStore(tmp_path, min_journal_bytes=10_000)
    assert (files(tmp_path, "checkpoint"), files(tmp_path, "journal")) == (
        [],
        ["journal-0000000000"],
    )
    largest = 0
    for number in range(300):
        store.commit({Table.ROWS: {b"%d" % (number % 20): b"%d" % number * 300}})
        largest = max(largest, store.disk_use().tables)
    assert len(files(tmp_path, "checkpoint")) == len(files(tmp_path, "journal")) == 1
    assert files(tmp_path, "checkpoint") > ["checkpoint-0000000003"]
    assert largest < 60_000  # of 300 × 900 bytes that were committed
    expected = dict(store.scan(Table.ROWS, *ALL))
    store.close()
    for _ in range(2):
        assert rows(tmp_path) == expected
        kill(tmp_path)


def test_a_checkpoint_that_fails_fails_no_commit(tmp_path: Path) -> None:
    store = FileStore(tmp_path, min_journal_bytes=100)
    store.commit({Table.ROWS: {b"a": b"a" * 10_000}})
    assert files(tmp_path, "checkpoint") == ["checkpoint-0000000001"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, before[1]))
    try:
        store.commit({Table.ROWS: {b"b": b"b" * 11_000}})  # the journal fits, all tables do not
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert files(tmp_path, "checkpoint") == ["checkpoint-0000000001"]
    for number in range(10):
        store.commit({Table.ROWS: {b"c": b"%d" % number * 1_500}})
    assert files(tmp_path, "checkpoint") == ["checkpoint-0000000002"]
    store.close()
    kill(tmp_path)
    assert rows(tmp_path) == {b"a": b"a" * 10_000, b"b": b"b" * 11_000, b"c": b"9" * 1_500}


def test_a_commit_that_does_not_fit_changes_nothing_and_the_next_succeeds(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.commit({Table.ROWS: {b"a": b"1"}})
    size = journal(tmp_path).stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1_000, before[1]))
    try:
        with pytest.raises(StoreFull, match="File too large"):
            store.commit({Table.ROWS: {b"a": b"2" * 2_000}, Table.PAYLOADS: {b"a": b"2"}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert journal(tmp_path).stat().st_size == size
    assert store.get(Table.ROWS, b"a") == b"1"
    assert store.get(Table.PAYLOADS, b"a") is None
    store.commit({Table.ROWS: {b"a": b"3"}, Table.PAYLOADS: {b"a": b"3"}})
    store.close()
    kill(tmp_path)
    assert rows(tmp_path) == {b"a": b"3"}


def test_a_failed_write_that_cannot_be_cut_off_stops_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(tmp_path)
    store.commit({Table.ROWS: {b"a": b"1"}})

    def failing(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", failing)
        patched.setattr(os, "ftruncate", failing)
        with pytest.raises(StoreStopped, match="nor cut it off"):
            store.commit({Table.ROWS: {b"a": b"2"}})
    with pytest.raises(StoreStopped):
        store.commit({Table.ROWS: {b"a": b"2"}})
    store.close()
    assert rows(tmp_path) == {b"a": b"1"}


def test_a_newer_format_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        newer.setattr("relive.consumers.journal.JOURNAL_FORMAT", 2)
        filled(tmp_path)
    with pytest.raises(StoreIncompatible, match=r"journal.* has format 2, this version reads 1"):
        FileStore(tmp_path)


@pytest.mark.parametrize("kind", ["checkpoint", "journal"])
def test_a_missing_file_is_noticed(tmp_path: Path, kind: str) -> None:
    store = FileStore(tmp_path, min_journal_bytes=100)
    store.commit({Table.ROWS: {b"a": b"1" * 200}})
    store.commit({Table.ROWS: {b"b": b"2"}})
    store.close()
    (path,) = tmp_path.glob(f"{kind}-*")
    path.unlink()
    kill(tmp_path)
    with pytest.raises(StoreDamaged, match="missing"):
        FileStore(tmp_path)


def test_a_scan_sees_no_half_of_a_commit_in_what_it_reads_at_once(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.commit({Table.ROWS: {b"a": b"0", b"b": b"0"}})
    done = threading.Event()
    torn: list[object] = []

    def read() -> None:
        while not done.is_set():
            values = {value for _, value in store.scan(Table.ROWS, *ALL)}
            if len(values) != 1:
                torn.append(values)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(100):
        store.commit({Table.ROWS: {b"a": b"%d" % number, b"b": b"%d" % number}})
    done.set()
    for thread in threads:
        thread.join()
    store.close()
    assert torn == []
