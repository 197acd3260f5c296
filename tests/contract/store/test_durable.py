"""What every durable store promises beyond the contract of all stores."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest

from relive.consumers import Backend, open_kept_store, open_store
from relive.core.tail import Table
from relive.errors import (
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreIncompatible,
    StoreInUse,
    StoreStopped,
)

if TYPE_CHECKING:
    from tests.contract.store.conftest import StoreCase

ALL = (b"", b"\xff" * 50)


def payload(number: int, size: int = 6_000) -> bytes:
    return (b"%d." % number * size)[:size]


def key(number: int) -> bytes:
    return number.to_bytes(10, "big")


def test_what_was_committed_is_there_after_reopening(case: StoreCase) -> None:
    store = case.open()
    store.commit({Table.ROWS: {b"a": b"1", b"b": b"2"}, Table.PAYLOADS: {b"a": b"x" * 9_000}})
    store.commit({Table.ROWS: {b"a": None}, Table.IDS: {b"c": b"3"}, Table.PAYLOADS: {b"b": b""}})
    store.close()
    store = case.open()
    assert list(store.scan(Table.ROWS, *ALL)) == [(b"b", b"2")]
    assert store.get(Table.IDS, b"c") == b"3"
    assert dict(store.scan(Table.PAYLOADS, *ALL)) == {b"a": b"x" * 9_000, b"b": b""}


def test_a_directory_is_made_as_deep_as_it_is_asked_for(case: StoreCase, tmp_path: Path) -> None:
    store = case.open(tmp_path / "not" / "there yet")
    store.commit({Table.ROWS: {b"a": b"1"}})
    store.close()
    assert case.open(tmp_path / "not" / "there yet").get(Table.ROWS, b"a") == b"1"


def test_a_store_has_one_owner(case: StoreCase) -> None:
    store = case.open()
    with pytest.raises(StoreInUse, match="another process owns"):
        case.open()
    store.close()
    case.open().close()


def test_another_process_is_refused_until_the_owner_lets_go(case: StoreCase) -> None:
    code = """
from relive.errors import StoreInUse
try:
    Store(Path(sys.argv[1])).close()
except StoreInUse:
    print("in use")
else:
    print("owned")
"""
    store = case.open()
    assert case.run(code, str(case.directory)).stdout == "in use\n"
    store.close()
    assert case.run(code, str(case.directory)).stdout == "owned\n"


def test_only_its_owner_may_read_it_or_a_copy_of_it(case: StoreCase, tmp_path: Path) -> None:
    before = os.umask(0)  # whatever the umask is
    try:
        store = case.open()
        store.commit({Table.ROWS: {b"a": b"1"}, Table.PAYLOADS: {b"a": b"1"}})
        store.copy_to(tmp_path / "copy")
        store.close()
    finally:
        os.umask(before)
    for directory in (case.directory, tmp_path / "copy"):
        files = list(directory.iterdir())
        assert len(files) >= 4
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
        assert directory.stat().st_mode & 0o777 == 0o700


def test_a_commit_without_room_for_its_payloads_changes_nothing(case: StoreCase) -> None:
    store = case.open()
    store.commit({Table.ROWS: {b"a": b"1"}, Table.PAYLOADS: {b"a": payload(1)}})
    before = case.contents(store)
    changes = {key(n): payload(n) for n in range(50)}
    with case.room_for(200_000), pytest.raises(StoreFull, match="File too large"):
        store.commit({Table.ROWS: {b"a": b"2"}, Table.PAYLOADS: changes})
    assert case.contents(store) == before
    assert store.disk_use().payloads < 10_000
    # There is room again, and the next commit finds it.
    store.commit({Table.ROWS: {b"a": b"3"}, Table.PAYLOADS: changes})
    store.close()
    contents = case.contents(case.open())
    assert contents[Table.ROWS] == {b"a": b"3"}
    assert contents[Table.PAYLOADS] == {b"a": payload(1), **changes}


@pytest.mark.parametrize("fails", ["first", "last"])
def test_after_a_failed_sync_it_refuses_commits_until_it_is_reopened(
    case: StoreCase, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """A second sync can succeed although the first one lost what it failed to write."""
    store = case.open()
    store.commit({Table.ROWS: {b"a": b"1"}, Table.PAYLOADS: {b"a": b"1"}})
    fdatasync = os.fdatasync
    syncs: list[int] = []

    def failing(descriptor: int) -> None:
        syncs.append(descriptor)
        # LMDB syncs by itself: of that store, only the payloads' sync is seen here.
        if fails == "first" or len(syncs) == (1 if case.name == "lmdb" else 2):
            raise OSError(errno.EIO, "Input/output error")
        fdatasync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", failing)
        with pytest.raises(StoreStopped, match="Input/output error"):
            store.commit({Table.ROWS: {b"a": b"2"}, Table.PAYLOADS: {b"b": b"2"}})
    with pytest.raises(StoreStopped):
        store.commit({Table.ROWS: {b"a": b"3"}})
    assert store.get(Table.ROWS, b"a") == b"1"
    assert store.get(Table.PAYLOADS, b"a") == b"1"
    store.close()
    store = case.open()
    assert case.contents(store)[Table.ROWS] == {b"a": b"1"}
    assert case.contents(store)[Table.PAYLOADS] == {b"a": b"1"}
    store.commit({Table.ROWS: {b"a": b"3"}})
    assert store.get(Table.ROWS, b"a") == b"3"


def test_an_interrupted_commit_stops_the_store(
    case: StoreCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = case.open()
    store.commit({Table.PAYLOADS: {b"a": b"1"}})

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.commit({Table.PAYLOADS: {b"a": b"2"}})
    with pytest.raises(StoreStopped, match="reopen"):
        store.commit({Table.PAYLOADS: {b"a": b"3"}})
    store.close()
    assert case.contents(case.open())[Table.PAYLOADS] == {b"a": b"1"}


def test_a_closed_store_refuses(case: StoreCase, tmp_path: Path) -> None:
    store = case.open()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.commit({Table.ROWS: {b"a": b"1"}})
    with pytest.raises(StoreError, match="closed"):
        store.copy_to(tmp_path / "copy")


def test_a_directory_of_another_backend_is_refused_and_says_what_to_do(case: StoreCase) -> None:
    case.open().close()
    before = files_of(case.directory)
    other = {"lmdb": "file", "file": "lmdb"}[case.name]
    said = f"made with persistence_backend {case.name}, not {other}.*remove {case.directory}"
    for _ in range(2):  # the second time, the first must hold nothing
        with pytest.raises(StoreIncompatible, match=said):
            open_store(case.directory, "file" if other == "file" else "lmdb")
    assert files_of(case.directory) == before


def test_a_directory_with_something_else_in_it_is_refused_and_left_alone(case: StoreCase) -> None:
    case.directory.mkdir()
    (case.directory / "data.mdb").write_bytes(b"made by something else")
    (case.directory / "film.part").write_bytes(b"half of a film")
    with pytest.raises(StoreDamaged, match=r"store: is missing.*remove .* rebuilt"):
        case.open()
    assert (case.directory / "data.mdb").read_bytes() == b"made by something else"
    assert (case.directory / "film.part").read_bytes() == b"half of a film"


def test_a_newer_format_is_refused(case: StoreCase) -> None:
    case.open().close()
    said = (case.directory / "store").read_text()
    (case.directory / "store").write_text(said.replace(" 1 ", " 2 "))
    with pytest.raises(StoreIncompatible, match="format 2, this version reads 1"):
        case.open()


@pytest.mark.parametrize("died", [True, False], ids=["died", "closed"])
@pytest.mark.parametrize("table", [Table.ROWS, Table.PAYLOADS])
@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: os.truncate(path, 0)])
def test_a_store_whose_tables_are_gone_is_not_taken_for_a_new_one(
    case: StoreCase, spoil: Callable[[Path], None], table: Table, died: bool
) -> None:
    """Not by the next opening either, which finds what the first one left."""
    store = case.open()
    store.commit({table: {b"a": b"1"}})
    store.close()
    if died:
        case.forget_closing()
    spoil(case.directory / {"lmdb": "data.mdb", "file": "journal-0000000000"}[case.name])
    before = files_of(case.directory)
    for _ in range(2):
        with pytest.raises(StoreDamaged, match=r"missing|0 bytes|found|begin"):
            case.open()
    assert files_of(case.directory) == before


# What says who made it


def store_files() -> list[tuple[str, bytes | None]]:
    """What may have become of the file `store`."""
    said = b"relive-state 1 lmdb\n"
    flips = [
        (f"bit-{bit}-of-{at}", said[:at] + bytes([said[at] ^ 1 << bit]) + said[at + 1 :])
        for at in range(len(said))
        for bit in range(8)
    ]
    cut = [(f"cut-to-{kept}", said[:kept]) for kept in range(len(said))]
    return [*flips, *cut, ("missing", None), ("longer", said + said)]


def test_whatever_becomes_of_the_file_that_says_who_made_it_is_found_out(case: StoreCase) -> None:
    """And nothing is made beside what is there, by either backend."""
    store = case.open()
    store.commit({Table.ROWS: {b"a": b"1"}, Table.PAYLOADS: {b"a": b"1"}})
    store.close()
    path = case.directory / "store"
    sound = path.read_bytes()
    assert sound == f"relive-state 1 {case.name}\n".encode()
    for what, said in store_files():
        path.unlink(missing_ok=True)
        if said is not None:
            path.write_bytes(said.replace(b"lmdb", b"file") if case.name == "file" else said)
        before = files_of(case.directory)
        for backend in get_args(Backend):
            with pytest.raises((StoreDamaged, StoreIncompatible)) as raised:
                open_store(case.directory, backend)
            assert "persistence_backend" not in str(raised.value), what  # it would be bad advice
        with pytest.raises((StoreDamaged, StoreIncompatible)):
            open_kept_store(case.directory)
        assert files_of(case.directory) == before, what
    path.write_bytes(sound)
    assert case.open().get(Table.PAYLOADS, b"a") == b"1"


def test_a_store_that_was_never_finished_is_made_anew_by_any_backend(case: StoreCase) -> None:
    """Nothing was ever committed to it."""
    case.directory.mkdir()
    (case.directory / "store").write_bytes(b"relive-state 1 lmdb unfinished\n")
    for name in ("data.mdb", "lock.mdb", "journal-0000000000", "store.part"):
        (case.directory / name).write_bytes(b"half")
    store = case.open()
    store.commit({Table.ROWS: {b"a": b"1"}})
    store.close()
    assert case.open().get(Table.ROWS, b"a") == b"1"


def test_a_store_with_payloads_is_never_taken_for_an_unfinished_one(case: StoreCase) -> None:
    store = case.open()
    store.commit({Table.PAYLOADS: {b"a": b"1"}})
    store.close()
    (case.directory / "store").write_bytes(b"relive-state 1 lmdb unfinished\n")
    before = files_of(case.directory)
    with pytest.raises(StoreDamaged, match="payloads-"):
        case.open()
    assert files_of(case.directory) == before


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_scan_of_payloads_goes_on_over_what_commits_remove(case: StoreCase) -> None:
    store = case.open()
    store.commit({Table.PAYLOADS: {key(n): payload(n) for n in range(400)}})
    segments = set(case.segments())
    scan = store.scan(Table.PAYLOADS, *ALL)
    found = [next(scan) for _ in range(10)]
    if case.name == "lmdb":  # whose scans see one commit; of the other one, only what is read last
        store.commit({Table.PAYLOADS: {key(n): None for n in range(400)}})
        store.commit({Table.PAYLOADS: {key(n): payload(-n) for n in range(400, 500)}})
        assert segments <= set(case.segments())
    found += list(scan)
    assert found == [(key(n), payload(n)) for n in range(400)]
    store.commit({Table.PAYLOADS: {key(n): None for n in range(500)}})
    store.commit({Table.PAYLOADS: {b"last": b"1"}})
    assert len(case.segments()) == 1


def in_threads(count: int, action: Callable[[], None]) -> list[threading.Thread]:
    threads = [threading.Thread(target=action) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_payloads_are_read_beside_commits_that_move_and_remove_them(case: StoreCase) -> None:
    store = case.open()
    size = 30_000
    store.commit({Table.PAYLOADS: {key(n): payload(n, size) for n in range(60)}})
    done = threading.Event()
    wrong: list[object] = []
    reads = [0]

    def read() -> None:
        while not done.is_set():
            for number in range(0, 60, 5):
                try:
                    found = store.get(Table.PAYLOADS, key(number))
                except StoreError as error:
                    wrong.append(error)
                else:
                    reads[0] += 1
                    if found != payload(number, size):
                        wrong.append(number)

    threads = in_threads(2, read)
    names = set(case.segments())
    for turn in range(8):
        # Every fifth stays, and moves when all around it has died.
        numbers = [n for n in range(60) if n % 5]
        removed = {key(n): None for n in numbers}
        store.commit({Table.PAYLOADS: removed})
        store.commit({Table.PAYLOADS: {key(n): payload(n + turn, size) for n in numbers}})
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert reads[0] > 20
    assert len(names - set(case.segments())) > len(names) // 2
