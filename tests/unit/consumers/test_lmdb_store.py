"""What the durable store promises beyond the contract of all stores."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from relive.consumers import LmdbStore
from relive.core.tail import Table
from relive.errors import StoreError, StoreInUse

ROWS = (b"", b"\xff" * 9)


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_what_was_committed_is_there_after_reopening(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    store.commit({Table.ROWS: {b"a": b"1", b"b": b"2"}})
    store.commit({Table.ROWS: {b"a": None}, Table.IDS: {b"c": b"3"}})
    store.close()
    store = LmdbStore(tmp_path)
    assert list(store.scan(Table.ROWS, *ROWS)) == [(b"b", b"2")]
    assert store.get(Table.IDS, b"c") == b"3"
    store.close()


def test_a_store_has_one_owner(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    with pytest.raises(StoreInUse, match="another process owns"):
        LmdbStore(tmp_path)
    store.close()
    LmdbStore(tmp_path).close()


def test_another_process_is_refused_until_the_owner_lets_go(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from relive.consumers import LmdbStore
from relive.errors import StoreInUse
try:
    LmdbStore(Path(sys.argv[1])).close()
except StoreInUse:
    print("in use")
else:
    print("owned")
"""
    store = LmdbStore(tmp_path)
    assert run(code, str(tmp_path)).stdout == "in use\n"
    store.close()
    assert run(code, str(tmp_path)).stdout == "owned\n"


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0)  # whatever the umask is
    try:
        store = LmdbStore(tmp_path / "state")
        store.commit({Table.ROWS: {b"a": b"1"}})
    finally:
        os.umask(before)
    modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "state").iterdir()}
    assert set(modes) == {"data.mdb", "lock.mdb", "owner.lock"}
    assert set(modes.values()) == {0o600}
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    store.close()


def test_a_process_killed_at_any_moment_leaves_its_last_commit_whole(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from relive.consumers import LmdbStore
from relive.core.tail import Table
store = LmdbStore(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    value = b"%d" % number
    store.commit({Table.META: {b"n": value}, Table.ROWS: {b"%d" % (number % 50): value * 500}})
    print(number, flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = iter(process.stdout)
    for _ in range(100):
        next(lines)
    process.send_signal(signal.SIGKILL)
    acknowledged = 100 + sum(1 for _ in lines)
    process.wait()
    process.stdout.close()

    store = LmdbStore(tmp_path)
    number = int(store.get(Table.META, b"n") or 0)
    assert acknowledged <= number <= acknowledged + 1
    assert store.get(Table.ROWS, b"%d" % (number % 50)) == b"%d" % number * 500
    store.close()


def test_a_commit_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, map_bytes=1024 * 1024)
    store.commit({Table.ROWS: {b"a": b"1"}})
    with pytest.raises(StoreError, match="no room left"):
        store.commit({Table.ROWS: {b"a": b"2", b"b": bytes(4 * 1024 * 1024)}})
    assert list(store.scan(Table.ROWS, *ROWS)) == [(b"a", b"1")]
    store.commit({Table.ROWS: {b"a": b"3"}})
    assert store.get(Table.ROWS, b"a") == b"3"
    store.close()


@pytest.mark.parametrize("content", [b"not LMDB" * 4_000, b"x"])
def test_a_file_that_is_no_store_is_refused_and_let_go(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.mdb").write_bytes(content)
    for _ in range(2):  # the second time, the first must hold nothing
        with pytest.raises(StoreError, match="cannot open the state"):
            LmdbStore(tmp_path)
    assert (tmp_path / "data.mdb").read_bytes()[: len(content)] == content


@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_file_cut_short_is_refused_before_it_could_crash_the_process(
    tmp_path: Path, kept: float
) -> None:
    store = LmdbStore(tmp_path)
    store.commit({Table.ROWS: {b"%d" % n: bytes(2_000) for n in range(200)}})
    store.close()
    data = tmp_path / "data.mdb"
    os.truncate(data, int(data.stat().st_size * kept) // 4096 * 4096)
    code = """
import sys
from pathlib import Path
from relive.consumers import LmdbStore
from relive.core.tail import Table
from relive.errors import StoreError
try:
    store = LmdbStore(Path(sys.argv[1]))
    for table in Table:
        list(store.scan(table, b"", b"\\xff" * 9))
except StoreError as error:
    print(error)
"""
    finished = run(code, str(tmp_path))
    assert finished.returncode == 0, f"died of signal {-finished.returncode}"
    assert "cut short" in finished.stdout


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
