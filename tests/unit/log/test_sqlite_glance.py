"""Looking at a file log without changing it."""

from __future__ import annotations

from pathlib import Path

import pytest

from relive.errors import LogDamaged, LogMissing
from relive.log import NewRecord, open_log
from relive.log.sqlite_glance import glance


def everything(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_closed_log_is_seen_and_not_touched(tmp_path: Path) -> None:
    log = open_log(f"file:{tmp_path}", create=True)
    log.append([NewRecord(0, b"key", b"value")] * 30)
    log.truncate_before(0, 10)
    identity, (last,) = log.identity(), log.read({0: 29})
    log.close()
    before = everything(tmp_path)
    found = glance(tmp_path)
    assert (found.identity, found.bounds.first, found.bounds.end) == (identity, 10, 30)
    assert found.last_time_us == last.time_us
    assert everything(tmp_path) == before


def test_a_log_in_use_is_seen_up_to_its_last_record(tmp_path: Path) -> None:
    log = open_log(f"file:{tmp_path}", create=True)
    try:
        assert glance(tmp_path).last_time_us is None
        log.append([NewRecord(0, b"key", b"value")] * 3)
        assert glance(tmp_path).bounds.end == 3
        log.append([NewRecord(0, b"key", b"value")])  # nobody was kept from writing
        assert glance(tmp_path).bounds.end == 4
    finally:
        log.close()


def test_what_is_not_a_log_is_said(tmp_path: Path) -> None:
    with pytest.raises(LogMissing):
        glance(tmp_path)
    (tmp_path / "log.sqlite3").write_bytes(b"something else entirely" * 100)
    with pytest.raises(LogDamaged):
        glance(tmp_path)
    (tmp_path / "log.sqlite3").write_bytes(b"")
    with pytest.raises(LogDamaged):
        glance(tmp_path)
