"""A note beside a store that it was closed in good order, and what its file looked like then.

A file that fits its note is exactly what was written: nothing else has to be checked. One that
doesn't was damaged. Without a note, a process died, or the machine did.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

from relive.consumers.durable_files import sync_directory, write_atomically
from relive.errors import StoreDamaged

_NAME = "closed"
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ClosedNote:
    """What a file looked like.

    Attributes:
        name, size: of the file.
        crc32: of its content.
    """

    name: str
    size: int
    crc32: int

    def check(self, directory: Path) -> None:
        """Check that the file is what it was.

        Raises:
            StoreDamaged: it isn't.
        """
        path = directory / self.name
        if not path.exists():
            raise StoreDamaged(path, "is missing")
        found = describe(path)
        if found.size != self.size:
            raise StoreDamaged(path, f"has {found.size} bytes, when it was closed {self.size}")
        if found.crc32 != self.crc32:
            raise StoreDamaged(path, "is not what it was when it was closed")


def describe(path: Path) -> ClosedNote:
    """What a file looks like now."""
    size = checksum = 0
    with path.open("rb", buffering=0) as file:
        while data := file.read(_CHUNK_BYTES):
            size += len(data)
            checksum = zlib.crc32(data, checksum)
    return ClosedNote(path.name, size, checksum)


def write_note(path: Path) -> None:
    """Note that a file, and the store it is of, was closed in good order.

    Raises:
        OSError: it could not be written.
    """
    said = json.dumps(asdict(describe(path))).encode()
    write_atomically(path.with_name(_NAME), said, b"\n%d\n" % zlib.crc32(said))


def read_note(directory: Path) -> ClosedNote | None:
    """The note of a store; None if there is none, or it is damaged itself."""
    try:
        said, checksum = (directory / _NAME).read_bytes().splitlines()
        if int(checksum) != zlib.crc32(said):
            return None
        return ClosedNote(**json.loads(said))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def remove_note(directory: Path) -> None:
    """Say, before a change, that the store is open. It is durable on return."""
    note = directory / _NAME
    if note.exists():
        note.unlink()
        sync_directory(directory)
