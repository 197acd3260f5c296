"""A write that a crash cut short: the last record is whole or absent, at whatever byte it was cut.

The last record was never acknowledged: its process died after the write and before it could say
so. All before it are there, and the next one takes its place.
"""

from __future__ import annotations

import shutil
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import pytest
from tests.faults.damage import cut
from tests.faults.sizes import Size
from tests.faults.trial import Trial, make
from tests.faults.worker import Plan

from relive.errors import LogDamaged
from relive.log import NewRecord
from relive.log.sqlite import FILE_NAME, LOCK_NAME, SqliteLog

WAL = f"{FILE_NAME}-wal"

# https://www.sqlite.org/fileformat2.html#walformat
_WAL_HEADER, _FRAME_HEADER = 32, 24
_PAGE_BYTES_AT, _COMMIT_AT = 8, 4


@dataclass(frozen=True, slots=True)
class Torn:
    """A buffer whose last record was written and not acknowledged.

    Attributes:
        trial: the buffer.
        start, end: where the last record's transaction lies in the WAL.
        own: the part of it that is the record, and not the rest of its page.
    """

    trial: Trial
    start: int
    end: int
    own: range

    def cuts(self, size: Size, chance: Random) -> list[int]:
        """Lengths to cut the WAL to: every byte of the record, and some of its page or all."""
        every = range(self.start, self.end)
        if size.name == "soak":
            return list(every)
        if size.name == "ci":
            header = range(self.start, self.start + _FRAME_HEADER + 1)
            return sorted({*self.own, *header, *chance.sample(every, size.cuts)})
        return sorted({*chance.sample(self.own, size.cuts), *chance.sample(every, size.cuts)})


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> Torn:
    trial = make(tmp_path_factory.mktemp("torn"), 6, store="file")
    plan = Plan(6, "a", 60, kill_at=("note the end.before", 30))
    assert trial.use(plan).was_killed
    wal = (trial.place.directory / WAL).read_bytes()
    *_, start, end = transactions(wal)
    connection = sqlite3.connect(f"file:{shadow(trial.place.directory) / FILE_NAME}", uri=True)
    with closing(connection):
        (value,) = connection.execute(
            "SELECT value FROM records ORDER BY position DESC LIMIT 1"
        ).fetchone()
    at = wal.index(value, start)
    return Torn(trial, start, end, range(at, at + len(value) + 1))


def shadow(directory: Path) -> Path:
    """A copy of a log to look into, since looking makes a checkpoint."""
    copy = directory.with_name("shadow")
    copy.mkdir()
    for name in (FILE_NAME, WAL):
        shutil.copy(directory / name, copy)
    return copy


def transactions(wal: bytes) -> Iterator[int]:
    """Where each transaction in a WAL ends."""
    (page_bytes,) = struct.unpack_from(">I", wal, _PAGE_BYTES_AT)
    frame_bytes = _FRAME_HEADER + page_bytes
    for start in range(_WAL_HEADER, len(wal), frame_bytes):
        (pages,) = struct.unpack_from(">I", wal, start + _COMMIT_AT)
        if pages:
            yield start + frame_bytes


def values(log: SqliteLog) -> list[bytes]:
    return [record.value for record in log.read({0: 0}, 10_000)]


@pytest.mark.parametrize("rest", ["missing", "zeros"])
def test_the_last_record_is_whole_or_absent_wherever_it_was_cut(
    tmp_path: Path, torn: Torn, rest: str, size: Size, chance: Random
) -> None:
    source, copy = torn.trial.place.directory, tmp_path / "log"
    copy.mkdir()
    for name in (FILE_NAME, WAL, LOCK_NAME):
        shutil.copy(source / name, copy)
    content = {name: (copy / name).read_bytes() for name in (FILE_NAME, WAL, LOCK_NAME)}
    with closing(SqliteLog(copy)) as log:
        whole = values(log)
    seen = set()
    for length in (*torn.cuts(size, chance), torn.end):
        for name, before in content.items():
            (copy / name).write_bytes(before)
        cut(copy / WAL, length)
        if rest == "zeros":
            cut(copy / WAL, torn.end)
        with closing(SqliteLog(copy)) as log:
            found = values(log)
            assert found in (whole[:-1], whole), length
            assert log.append([NewRecord(0, b"", b"next")]) == [len(found)]
            assert values(log) == [*found, b"next"]
        seen.add(len(found))
    assert seen == {len(whole) - 1, len(whole)}


def test_a_record_that_was_acknowledged_and_cut_is_missed(
    tmp_path: Path, torn: Torn, chance: Random
) -> None:
    """Not what a crash does, but what a disk that forgets does."""
    copy = tmp_path / "buffer"
    shutil.copytree(torn.trial.place.directory, copy)
    with closing(SqliteLog(copy)) as log:  # the last one's note is made good
        (position,) = log.append([NewRecord(0, b"", b"acknowledged")])
        assert position > 0
        shutil.copytree(copy, tmp_path / "again")
    again = tmp_path / "again"
    *_, start, end = transactions((again / WAL).read_bytes())
    cut(again / WAL, chance.randrange(start, end))
    with pytest.raises(LogDamaged, match=f"records {position} to {position} were acknowledged"):
        SqliteLog(again)


def test_a_buffer_goes_on_after_a_torn_write(
    tmp_path: Path, torn: Torn, size: Size, chance: Random
) -> None:
    for length in chance.sample(torn.cuts(size, chance), max(4, size.cuts // 20)):
        directory = tmp_path / "buffer"
        shutil.copytree(torn.trial.place.directory, directory)
        cut(directory / WAL, length)
        place = replace(torn.trial.place, directory=directory)
        trial = Trial(place, torn.trial.seed, deepcopy(torn.trial.history))
        trial.check(trial.look())
        assert trial.use(Plan(length, "later", 20)).code == 0
        trial.check(trial.look())
        trial.delete()


@pytest.mark.parametrize("rest", ["missing", "zeros"])
def test_a_buffer_goes_on_after_a_torn_commit_of_the_file_store(
    tmp_path: Path, rest: str, size: Size, chance: Random
) -> None:
    """What of the state was not committed comes from the log."""
    trial = make(tmp_path, chance.randrange(2**32), store="file")
    # The last commit is the last record of the journal.
    trial.use(Plan(trial.seed, "a", 60, kill_at=("commit.after", 2)))
    (journal,) = (trial.place.directory / "state").glob("journal-*")
    start = journal.read_bytes().rindex(b"RLJR")
    end = journal.stat().st_size
    for length in chance.sample(range(start, end), max(4, size.cuts // 10)):
        directory = tmp_path / "torn"
        shutil.copytree(trial.place.directory, directory)
        cut(directory / "state" / journal.name, length)
        if rest == "zeros":
            cut(directory / "state" / journal.name, end)
        place = replace(trial.place, directory=directory)
        torn = Trial(place, trial.seed, deepcopy(trial.history))
        torn.check(torn.look(close=True))
        torn.check(torn.look())
        torn.delete()
