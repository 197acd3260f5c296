"""Where a log in a directory begins and ends, without changing a byte of it.

Opening a log means being ready to append: SQLite notes that in the file, and the first to close it
tidies up. Whoever only wants to know where it stands opens it read-only.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from relive.errors import LogDamaged, LogMissing, LogUnavailable
from relive.log.port import Bounds
from relive.log.sqlite import FILE_NAME

_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Glance:
    """Where a log stands.

    Attributes:
        identity: of the log.
        bounds: of its one partition.
        last_time_us: when its last record was appended; None if there is none.
    """

    identity: str
    bounds: Bounds
    last_time_us: int | None


def glance(directory: Path) -> Glance:
    """Look at the log in a directory.

    Raises:
        LogMissing: there is none.
        LogDamaged: it is not a log.
        LogUnavailable: it cannot be read now.
    """
    path = directory / FILE_NAME
    try:
        if not path.exists():
            raise LogMissing(f"there is no log in {directory}")
        wal = path.with_name(f"{FILE_NAME}-wal")
        # Without a WAL nobody has it open, and SQLite would make one to read it.
        still = not wal.exists() or wal.stat().st_size == 0
        url = f"file:{quote(str(path.absolute()))}?mode=ro" + ("&immutable=1" if still else "")
        with closing(sqlite3.connect(url, uri=True, timeout=_TIMEOUT_S)) as reader:
            tables = {name for (name,) in reader.execute("SELECT name FROM sqlite_master")}
            if not {"meta", "records"} <= tables:
                raise LogDamaged(f"{path} is not a log: its tables are missing")
            meta = dict(reader.execute("SELECT name, value FROM meta"))
            last = reader.execute(
                "SELECT position, time_us FROM records ORDER BY position DESC LIMIT 1"
            ).fetchone()
            first = int(meta["first"])
            end = first if last is None else int(last[0]) + 1
            return Glance(
                str(meta["identity"]), Bounds(first, end), None if last is None else int(last[1])
            )
    except (sqlite3.OperationalError, OSError) as error:
        raise LogUnavailable(f"cannot read {path}: {error}") from error
    except (sqlite3.DatabaseError, KeyError, TypeError, ValueError) as error:
        raise LogDamaged(f"{path} is not a log: {error}") from error
