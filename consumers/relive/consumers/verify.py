"""Check a state store that nobody has open: `python -m relive.consumers.verify DIRECTORY`.

Prints a JSON verdict; see `relive.consumers.store_check`, which runs it. The exit code is 0 for a
sound store.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from relive.consumers import file_store, lmdb_file, lmdb_store
from relive.consumers.closed_note import read_note
from relive.consumers.durable_files import temporary
from relive.consumers.made_note import read_made_note
from relive.consumers.owner import OWNER_LOCK_NAME, own
from relive.consumers.payload_segments import (
    Segment,
    segment_number,
    unpack_reference,
    unpack_segment,
)
from relive.consumers.segment_reader import SegmentReader
from relive.consumers.store_check import RENEW, Verdict
from relive.consumers.tables import AFTER_ALL, SEGMENTS, TABLES, TableReads
from relive.core.tail import Table
from relive.errors import StoreDamaged, StoreError


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m relive.consumers.verify", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument(
        RENEW,
        action="store_true",
        help="write the LMDB file anew beside it, checked; for the owner of the store",
    )
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        check = renewed if arguments.renew else checked
        verdict = check(arguments.directory)
    except StoreDamaged as error:
        where = "" if error.offset is None else f", offset {error.offset}"
        verdict = Verdict(False, True, f"{error.path.name}{where}: {error.problem}")
    except (StoreError, OSError) as error:
        verdict = Verdict(False, problem=str(error))
    sys.stdout.write(json.dumps(asdict(verdict)) + "\n")
    sys.exit(not verdict.sound)


def checked(directory: Path) -> Verdict:
    """Check everything in a store.

    Raises:
        StoreDamaged: found.
        StoreError, OSError: it could not be checked.
    """
    with _owned(directory):
        made = read_made_note(directory)
        if made is None or not made.finished:
            raise StoreError(f"there is no state in {directory}")
        note = read_note(directory)
        if note is not None:
            note.check(directory)
        if made.backend == lmdb_store.BACKEND:
            data = directory / lmdb_file.DATA_NAME
            with lmdb_file.reading(data) as tables:
                for _ in tables.checked_entries():
                    pass
                return _checked_tables(tables, directory, read_payloads=True)
        in_memory = file_store.read_tables(directory)
        return _checked_tables(in_memory, directory, read_payloads=True)


def renewed(directory: Path) -> Verdict:
    """Write an LMDB file anew beside it, and check all but the payloads of it.

    Raises:
        StoreDamaged: found.
        StoreError, OSError: it could not be done.
    """
    data = directory / lmdb_file.DATA_NAME
    anew = temporary(data)
    lmdb_file.write_anew(data, anew)
    with lmdb_file.reading(anew) as tables:
        return _checked_tables(tables, directory, read_payloads=False)


def _checked_tables(tables: TableReads, directory: Path, *, read_payloads: bool) -> Verdict:
    entries = 0
    found: dict[int, Segment] = {}
    segments: dict[int, Segment] = {}
    for table in TABLES:
        for key, value in tables.scan(table, b"", AFTER_ALL):
            entries += 1
            if table == Table.PAYLOADS:
                reference = unpack_reference(value)
                so_far = found.get(reference.segment, Segment())
                found[reference.segment] = so_far.with_payload(reference)
            elif table == SEGMENTS:
                segments[segment_number(key)] = unpack_segment(value)
    reader = SegmentReader(directory)
    for number in found.keys() | segments.keys():
        _check_segment(reader, number, segments.get(number), found.get(number, Segment()))
    payload_bytes = 0
    if read_payloads:
        references = tables.scan(Table.PAYLOADS, b"", AFTER_ALL)
        payload_bytes = sum(len(payload) for _, payload in reader.read_in_order(references))
    reader.close()
    return Verdict(True, entries=entries, payload_bytes=payload_bytes)


def _check_segment(
    reader: SegmentReader, number: int, noted: Segment | None, found: Segment
) -> None:
    if noted is None:
        raise StoreDamaged(reader.path(number), "is referred to, but is not known")
    counted = (found.live_bytes, found.live_count)
    if counted != (noted.live_bytes, noted.live_count):
        raise StoreDamaged(
            reader.path(number),
            f"has {noted.live_count} payloads of {noted.live_bytes} bytes, {found.live_count} of "
            f"{found.live_bytes} are referred to",
        )
    reader.check(number, noted)


@contextmanager
def _owned(directory: Path) -> Iterator[None]:
    """Keeps others from opening a store; one without a lock file was never opened."""
    if not (directory / OWNER_LOCK_NAME).exists():
        yield
        return
    lock_file = own(directory)
    try:
        yield
    finally:
        os.close(lock_file)


if __name__ == "__main__":
    main()
