"""What the LMDB store promises beyond the contract of all durable stores."""

import os
import resource
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from relive.consumers import LmdbStore
from relive.core.tail import Table
from relive.errors import StoreDamaged, StoreFull, StoreStopped

ROWS = (b"", b"\xff" * 9)


def test_a_commit_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, map_bytes=1024 * 1024)
    store.commit({Table.ROWS: {b"a": b"1"}, Table.PAYLOADS: {b"a": b"1"}})
    too_large: dict[bytes, bytes | None] = {b"a": b"2", b"b": bytes(4 * 1024 * 1024)}
    with pytest.raises(StoreFull, match="no room left"):
        store.commit({Table.ROWS: too_large, Table.PAYLOADS: {b"a": None, b"b": b"2"}})
    assert list(store.scan(Table.ROWS, *ROWS)) == [(b"a", b"1")]
    assert list(store.scan(Table.PAYLOADS, *ROWS)) == [(b"a", b"1")]
    store.commit({Table.ROWS: {b"a": b"3"}, Table.PAYLOADS: {b"b": b"3"}})
    assert store.get(Table.ROWS, b"a") == b"3"
    store.close()
    store = LmdbStore(tmp_path, map_bytes=1024 * 1024)
    assert list(store.scan(Table.PAYLOADS, *ROWS)) == [(b"a", b"1"), (b"b", b"3")]
    store.close()


def test_after_a_failed_write_it_refuses_commits_until_it_is_reopened(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    store.commit({Table.ROWS: {b"a": b"1"}})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, ((tmp_path / "data.mdb").stat().st_size + 50_000, before[1])
    )
    try:
        with pytest.raises(StoreStopped, match="reopen"):
            store.commit({Table.ROWS: {b"%d" % n: bytes(2_000) for n in range(100)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with pytest.raises(StoreStopped):
        store.commit({Table.ROWS: {b"a": b"2"}})
    assert store.get(Table.ROWS, b"a") == b"1"
    store.close()
    store = LmdbStore(tmp_path)
    assert list(store.scan(Table.ROWS, *ROWS)) == [(b"a", b"1")]
    store.commit({Table.ROWS: {b"a": b"2"}})
    store.close()


@pytest.mark.parametrize("content", [b"not LMDB" * 4_000, b"x"])
def test_a_file_that_is_no_store_is_refused_and_let_go(tmp_path: Path, content: bytes) -> None:
    LmdbStore(tmp_path).close()
    (tmp_path / "closed").unlink()
    (tmp_path / "data.mdb").write_bytes(content)
    for _ in range(2):  # the second time, the first must hold nothing
        with pytest.raises(StoreDamaged, match="cannot be opened"):
            LmdbStore(tmp_path)
    assert (tmp_path / "data.mdb").read_bytes() == content


@pytest.mark.parametrize("closed", [True, False])
def test_a_file_cut_short_is_refused_before_it_could_end_the_process(
    tmp_path: Path, closed: bool
) -> None:
    store = LmdbStore(tmp_path)
    store.commit({Table.ROWS: {b"%d" % n: bytes(2_000) for n in range(200)}})
    store.close()
    data = tmp_path / "data.mdb"
    os.truncate(data, data.stat().st_size // 2 // 4096 * 4096)
    if not closed:
        (tmp_path / "closed").unlink()
    code = """
import sys
from pathlib import Path
from relive.consumers import LmdbStore
from relive.errors import StoreDamaged
try:
    LmdbStore(Path(sys.argv[1]))
except StoreDamaged as error:
    print(error)
"""
    finished = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished
    assert ("when it was closed" if closed else "died of SIGBUS") in finished.stdout
    assert f"remove {tmp_path} to have the state rebuilt from the log" in finished.stdout


def test_a_file_of_a_dead_process_is_written_anew(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    for turn in range(20):
        store.commit({Table.ROWS: {b"%d" % n: b"%d" % turn * 90 for n in range(500)}})
    store.commit({Table.ROWS: {b"%d" % n: None for n in range(1, 500)}})
    store.close()
    size = (tmp_path / "data.mdb").stat().st_size
    (tmp_path / "closed").unlink()
    store = LmdbStore(tmp_path)
    assert list(store.scan(Table.ROWS, *ROWS)) == [(b"0", b"19" * 90)]
    assert (tmp_path / "data.mdb").stat().st_size < size / 2
    assert not list(tmp_path.glob("*.part*"))
    store.close()


def test_an_older_file_is_not_taken_for_the_one_that_was_closed(tmp_path: Path) -> None:
    """Each of its values is sound, and still it is wrong."""
    store = LmdbStore(tmp_path)
    store.commit({Table.ROWS: {b"a": b"1"}})
    store.close()
    shutil.copy(tmp_path / "data.mdb", tmp_path.parent / "older")
    store = LmdbStore(tmp_path)
    store.commit({Table.ROWS: {b"a": b"2"}})
    store.close()
    shutil.copy(tmp_path.parent / "older", tmp_path / "data.mdb")
    with pytest.raises(StoreDamaged, match="when it was closed"):
        LmdbStore(tmp_path)


def test_readers_of_any_thread_see_whole_commits(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    store.commit({Table.ROWS: {b"a": b"0", b"b": b"0"}})
    done = threading.Event()
    torn: list[object] = []

    def read() -> None:
        while not done.is_set():
            values = {value for _, value in store.scan(Table.ROWS, *ROWS)}
            if len(values) != 1:
                torn.append(values)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(200):
        store.commit({Table.ROWS: {b"a": b"%d" % number, b"b": b"%d" % number}})
    done.set()
    for thread in threads:
        thread.join()
    store.close()
    assert torn == []
