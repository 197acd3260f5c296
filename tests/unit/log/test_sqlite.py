"""What the embedded log promises beyond the contract of all logs."""

import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from relive.errors import LogDamaged, LogMissing, LogUnavailable
from relive.log import Bounds, NewRecord
from relive.log.sqlite import FILE_NAME, FORMAT, LOCK_NAME, SqliteLog


def values(log: SqliteLog) -> list[bytes]:
    return [record.value for record in log.read({0: log.bounds(0).first}, 10_000)]


def filled(directory: Path, count: int = 20) -> None:
    log = SqliteLog(directory, create=True)
    log.append([NewRecord(0, b"k", b"%06d" % n * 100) for n in range(count)])
    log.close()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0)  # whatever the umask is
    try:
        log = SqliteLog(tmp_path / "buffer", create=True)
        log.append([NewRecord(0, b"", b"x")])
        values(log)
    finally:
        os.umask(before)
    files = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "buffer").iterdir()}
    assert {FILE_NAME, LOCK_NAME, f"{FILE_NAME}-wal", f"{FILE_NAME}-shm"} == set(files)
    assert set(files.values()) == {0o600}
    assert (tmp_path / "buffer").stat().st_mode & 0o777 == 0o700
    log.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE records SET value = zeroblob(600) WHERE position = 5",
        "UPDATE records SET key = x'00' WHERE position = 5",
        "UPDATE records SET time_us = time_us + 1 WHERE position = 5",
        "UPDATE records SET checksum = checksum + 1 WHERE position = 5",
        "UPDATE records SET position = 100 WHERE position = 5",
        "UPDATE records SET time_us = x'00' WHERE position = 5",
        "UPDATE records SET value = 7 WHERE position = 5",
        "UPDATE records SET checksum = 'text' WHERE position = 5",
    ],
    ids=["value", "key", "time", "checksum", "position", "type", "value's type", "text"],
)
def test_a_record_that_is_not_what_was_written_is_never_returned(
    tmp_path: Path, damage: str
) -> None:
    filled(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        connection.execute(damage)
        connection.commit()
    log = SqliteLog(tmp_path)
    assert len(log.read({0: 0}, 5)) == 5
    with pytest.raises(LogDamaged, match=r"record 5 of .* (does not match its checksum|is gone)"):
        log.read({0: 0}, 10_000)
    log.close()


def test_bounds_that_are_no_numbers_are_damage(tmp_path: Path) -> None:
    filled(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        connection.execute("UPDATE meta SET value = 'x' WHERE name = 'first'")
        connection.commit()

    def open_and_look() -> None:
        with closing(SqliteLog(tmp_path)) as log:
            log.bounds(0)

    with pytest.raises(LogDamaged):
        open_and_look()


def test_a_flipped_bit_in_the_file_is_noticed(tmp_path: Path) -> None:
    filled(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    file = tmp_path / FILE_NAME
    content = bytearray(file.read_bytes())
    at = content.index(b"000007000007")
    content[at] ^= 1
    file.write_bytes(content)
    log = SqliteLog(tmp_path)
    with pytest.raises(LogDamaged):
        log.read({0: 0}, 10_000)
    log.close()


def test_a_file_cut_short_is_damaged_not_empty(tmp_path: Path) -> None:
    filled(tmp_path, 2_000)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    os.truncate(tmp_path / FILE_NAME, (tmp_path / FILE_NAME).stat().st_size // 2)

    def read_all() -> None:
        with closing(SqliteLog(tmp_path)) as log:
            position = log.bounds(0).first
            while position < log.bounds(0).end:
                position = log.read({0: position}, 100)[-1].position + 1

    with pytest.raises(LogDamaged):
        read_all()


def killed_with_everything_in_the_wal(directory: Path, count: int = 20) -> None:
    """A log whose process died before a checkpoint."""
    code = (
        "import os, signal, sys; from pathlib import Path; from relive.log import NewRecord; "
        "from relive.log.sqlite import SqliteLog; log = SqliteLog(Path(sys.argv[1]), create=True); "
        "[log.append([NewRecord(0, b'k', b'%06d' % n * 100)]) for n in range(int(sys.argv[2]))]; "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(directory), str(count)], check=False)


@pytest.mark.parametrize("damage", ["header", "middle", "gone"])
def test_a_damaged_wal_is_not_taken_for_the_end_of_the_log(tmp_path: Path, damage: str) -> None:
    """SQLite ends a WAL silently at the first frame that does not match its checksum."""
    killed_with_everything_in_the_wal(tmp_path)
    wal = tmp_path / f"{FILE_NAME}-wal"
    content = bytearray(wal.read_bytes())
    content[{"header": 9, "middle": content.index(b"000007000007"), "gone": 0}[damage]] ^= 1
    wal.write_bytes(b"" if damage == "gone" else content)
    for _ in range(2):  # the first refusal must not have made things good
        with pytest.raises(LogDamaged, match="19 were acknowledged and are gone"):
            SqliteLog(tmp_path, create=True)


@pytest.mark.parametrize("gone", ["= 0", "= 7", ">= 15", ">= 0"])
def test_records_that_are_missing_are_noticed(tmp_path: Path, gone: str) -> None:
    filled(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        connection.execute(f"DELETE FROM records WHERE position {gone}")
        connection.commit()

    def read_all() -> None:
        with closing(SqliteLog(tmp_path)) as log:
            values(log)

    with pytest.raises(LogDamaged, match="gone"):
        read_all()


def test_a_file_that_is_no_log_is_refused_untouched_and_let_go(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    file.write_bytes(b"someone's notes\n" * 1_000)
    before = open_descriptors()
    for create in (False, True):
        with pytest.raises(LogDamaged, match="is not a log"):
            SqliteLog(tmp_path, create=create)
    assert open_descriptors() == before
    assert file.read_bytes() == b"someone's notes\n" * 1_000


def test_another_programs_database_is_refused_untouched_and_let_go(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
        connection.commit()
    content, before = file.read_bytes(), open_descriptors()
    for create in (False, True):
        with pytest.raises(LogDamaged, match="is not a log"):
            SqliteLog(tmp_path, create=create)
    assert open_descriptors() == before
    assert file.read_bytes() == content


def test_a_newer_format_is_refused_by_number_and_let_go(tmp_path: Path) -> None:
    filled(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE name = 'format'", (FORMAT + 1,))
        connection.commit()
    before = open_descriptors()
    with pytest.raises(LogDamaged, match=f"has log format {FORMAT + 1}, this version reads"):
        SqliteLog(tmp_path)
    assert open_descriptors() == before


def test_a_long_truncation_lets_appends_in_and_gives_the_room_back(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, create=True)
    log.append([NewRecord(0, b"k", bytes(2_000)) for _ in range(5_000)])
    other = SqliteLog(tmp_path)
    appended: list[int] = []
    trimming = threading.Thread(target=lambda: log.truncate_before(0, 4_900))
    trimming.start()
    while trimming.is_alive():
        appended += other.append([NewRecord(0, b"k", b"meanwhile")])
    trimming.join()
    assert log.bounds(0) == Bounds(4_900, 5_000 + len(appended))
    # At the least, one came between two slices.
    assert len(appended) > 1
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    assert pages * page_bytes < 2_000_000  # of 10 MB before
    other.close()
    log.close()


def test_without_create_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(LogMissing, match="create=True"):
        SqliteLog(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


HOLD = """
import fcntl, os, sys
lock = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_an_append_waits_for_another_process_only_so_long(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, create=True, timeout_s=0.2)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / LOCK_NAME)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(LogUnavailable, match="another process has kept"):
        log.append([NewRecord(0, b"", b"x")])
    assert values(log) == []  # reads don't wait for it

    # When the process dies, its lock is gone.
    holder.kill()
    holder.communicate()
    assert log.append([NewRecord(0, b"", b"x")]) == [0]
    log.close()


KILLED = """
import sys
from pathlib import Path
from relive.log import Bounds, NewRecord
from relive.log.sqlite import SqliteLog
log = SqliteLog(Path(sys.argv[1]))
while True:
    positions = log.append([NewRecord(0, b"", b"x" * 3_000)] * 3)
    print(positions[-1], flush=True)
"""


def test_what_was_acknowledged_before_kill_9_is_there_and_groups_are_whole(tmp_path: Path) -> None:
    SqliteLog(tmp_path, create=True).close()
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = iter(process.stdout)
    for _ in range(50):
        next(lines)
    process.kill()
    acknowledged = [int(line) for line in lines]
    process.wait()
    process.stdout.close()
    log = SqliteLog(tmp_path)
    count = len(values(log))
    assert count % 3 == 0
    assert count >= 150
    if acknowledged:
        assert acknowledged[-1] < count
    log.close()
