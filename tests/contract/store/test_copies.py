"""A copy of a store is what the last commit left, and stays it."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from relive.consumers import MemoryStore, StateStore, verify_store
from relive.consumers.progress import Progress
from relive.core.tail import Changes, Table
from relive.errors import StoreError

if TYPE_CHECKING:
    from tests.contract.store.conftest import StoreCase

SIZE = 30_000


def key(number: int) -> bytes:
    return number.to_bytes(10, "big")


def payload(number: int) -> bytes:
    return (b"%d." % number * SIZE)[:SIZE]


def turn(number: int, kept: int = 40) -> Changes:
    """Ten come, and the ten oldest go."""
    numbers = range(10 * number, 10 * number + 10)
    payloads: dict[bytes, bytes | None] = {key(n): payload(n) for n in numbers}
    payloads |= {key(n - kept): None for n in numbers if n >= kept}
    rows = {k: None if value is None else value[:10] for k, value in payloads.items()}
    return {Table.META: {b"n": b"%d" % number}, Table.ROWS: rows, Table.PAYLOADS: payloads}


def check(contents: dict[Table, dict[bytes, bytes]], kept: int = 40) -> int:
    """Whether it is what a commit left; returns which."""
    number = int(contents[Table.META][b"n"])
    end = 10 * number + 10
    expected = {key(n): payload(n) for n in range(max(0, end - kept), end)}
    assert contents[Table.PAYLOADS] == expected
    assert contents[Table.ROWS] == {k: value[:10] for k, value in expected.items()}
    return number


def fingerprints(directory: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.iterdir()
        if not path.name.startswith("lock")
    }


def filled(case: StoreCase, turns: int = 8) -> StateStore:
    store = case.open()
    for number in range(turns):
        store.commit(turn(number))
    return store


def test_a_copy_is_what_the_last_commit_left(case: StoreCase, tmp_path: Path) -> None:
    store = filled(case)
    store.copy_to(tmp_path / "copy")
    copy = case.open(tmp_path / "copy")
    assert case.contents(copy) == case.contents(store)
    assert check(case.contents(copy)) == 7
    copy.commit(turn(8))
    assert check(case.contents(copy)) == 8
    assert check(case.contents(store)) == 7


@pytest.mark.parametrize("links", [True, False])
def test_it_is_told_how_many_bytes_of_a_copy_there_are(
    case: StoreCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    progress = Progress()
    filled(case).copy_to(tmp_path / "copy", progress)
    stage = progress.now
    assert (stage.done, stage.unit) == (stage.total, "bytes")
    notes = {"closed", "store", "owner"}
    sizes = {p.name: p.stat().st_size for p in (tmp_path / "copy").iterdir()}
    assert stage.done == sum(size for name, size in sizes.items() if name not in notes)


def test_a_copy_never_changes_whatever_becomes_of_the_store(
    case: StoreCase, tmp_path: Path
) -> None:
    store = filled(case)
    store.copy_to(tmp_path / "copy")
    before = fingerprints(tmp_path / "copy")
    store.commit(turn(8))
    store.close()
    case.forget_closing()
    store = case.open()
    for number in range(9, 30):
        store.commit(turn(number))
    store.close()
    assert fingerprints(tmp_path / "copy") == before
    assert check(case.contents(case.open(tmp_path / "copy"))) == 7


def test_the_store_never_changes_whatever_becomes_of_a_copy(
    case: StoreCase, tmp_path: Path
) -> None:
    filled(case).copy_to(tmp_path / "copy")
    before = fingerprints(case.directory)
    copy = case.open(tmp_path / "copy")
    for number in range(8, 30):
        copy.commit(turn(number))
    assert fingerprints(case.directory) == before


def test_payloads_are_shared_with_a_copy_and_not_stored_twice(
    case: StoreCase, tmp_path: Path
) -> None:
    store = filled(case)
    store.copy_to(tmp_path / "copy")
    ours, theirs = case.segments(), case.segments(tmp_path / "copy")
    assert set(ours) == set(theirs)
    shared = [name for name, path in ours.items() if path.samefile(theirs[name])]
    assert len(shared) >= len(ours) - 1


def test_without_hard_links_a_copy_has_files_of_its_own(
    case: StoreCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    store = filled(case)
    monkeypatch.setattr(os, "link", refused)
    store.copy_to(tmp_path / "copy")
    ours, theirs = case.segments(), case.segments(tmp_path / "copy")
    assert not any(path.samefile(theirs[name]) for name, path in ours.items())
    assert check(case.contents(case.open(tmp_path / "copy"))) == 7


def test_many_copies_neither_store_payloads_again_nor_leave_many_files(
    case: StoreCase, tmp_path: Path
) -> None:
    store = case.open()
    for number in range(60):
        store.commit(turn(number))
        store.copy_to(tmp_path / "copies" / str(number))
    assert len(case.segments()) <= 12
    files = {
        (stat.st_ino, stat.st_size)
        for path in tmp_path.rglob("payloads-*")
        if (stat := path.stat()).st_size
    }
    # 600 payloads were committed, and every copy keeps 40 of them.
    assert sum(size for _, size in files) < 2 * 600 * SIZE


def test_copies_are_made_beside_commits(case: StoreCase, tmp_path: Path) -> None:
    store = filled(case)
    done = threading.Event()
    made: list[Path] = []
    failed: list[Exception] = []

    def copy() -> None:
        try:
            while not done.is_set() or not made:
                directory = tmp_path / "copies" / str(len(made))
                store.copy_to(directory)
                made.append(directory)
        except Exception as error:  # noqa: BLE001 - looked at below
            failed.append(error)

    thread = threading.Thread(target=copy)
    thread.start()
    for number in range(8, 60):
        store.commit(turn(number))
    done.set()
    thread.join()
    assert failed == []
    found = []
    for directory in made:
        again = case.open(directory)
        found.append(check(case.contents(again)))
        again.close()
    assert found == sorted(found)
    assert len(set(found)) > 1


def test_a_copy_of_a_copy_opens(case: StoreCase, tmp_path: Path) -> None:
    filled(case).copy_to(tmp_path / "copy")
    case.open(tmp_path / "copy").copy_to(tmp_path / "again")
    store = case.open(tmp_path / "again")
    store.commit(turn(8))
    assert check(case.contents(store)) == 8


def test_a_copy_is_found_sound(case: StoreCase, tmp_path: Path) -> None:
    filled(case).copy_to(tmp_path / "copy")
    before = fingerprints(tmp_path / "copy")
    verdict = verify_store(tmp_path / "copy", timeout_s=60)
    assert verdict.sound, verdict.problem
    assert verdict.payload_bytes == 40 * SIZE
    assert fingerprints(tmp_path / "copy") == before


def test_a_copy_goes_into_an_empty_directory_only(case: StoreCase, tmp_path: Path) -> None:
    store = filled(case, turns=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").write_text("mine")
    with pytest.raises(StoreError, match="not empty"):
        store.copy_to(tmp_path / "full")
    assert (tmp_path / "full" / "something").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    store.copy_to(tmp_path / "empty")


def test_a_copy_that_fails_leaves_nothing_and_hinders_nothing(
    case: StoreCase, tmp_path: Path
) -> None:
    store = filled(case)
    with case.room_for(500), pytest.raises(StoreError, match="copy"):
        store.copy_to(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    store.commit(turn(8))
    store.copy_to(tmp_path / "copy")
    assert check(case.contents(case.open(tmp_path / "copy"))) == 8


def test_a_store_in_memory_has_nothing_to_copy(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="in memory only"):
        MemoryStore().copy_to(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
