"""A snapshot's manifest: what it holds, and the checksum of every file.

Whatever differs from what was written, by a bit or by a version, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import PurePosixPath
from typing import Any

from relive.consumers.committed import Committed, committed_from
from relive.core.framed import framed, unframed
from relive.errors import SnapshotUnsound

FORMAT = 1


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """One file of a snapshot.

    Attributes:
        name: relative to the snapshot's state directory, with `/`.
        size: in bytes.
        sha256: in hexadecimal.
        shared: never changes; another directory may have it by hard link.
    """

    name: str
    size: int
    sha256: str
    shared: bool


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a snapshot holds.

    Attributes:
        store: the kind of store that its files are.
        state: what its last commit said.
        schemas: released event schemas that the program knew, file name to fingerprint.
        created_at: UTC, ISO 8601.
        relive: version of the program.
        written_bytes: what writing it took; files shared by hard link took nothing.
        files: all of them.
        format: of manifest and directory.
    """

    store: str
    state: Committed
    schemas: Mapping[str, str]
    created_at: str
    relive: str
    written_bytes: int
    files: tuple[SnapshotFile, ...]
    format: int = FORMAT

    def to_json(self) -> bytes:
        """What `manifest_from` reads."""
        return framed("manifest", asdict(self))


def manifest_from(raw: bytes) -> Manifest:
    """The manifest in the bytes of a file.

    Raises:
        SnapshotUnsound: it is damaged, or of a newer format.
    """
    try:
        body = unframed("manifest", raw)
    except ValueError as error:
        raise SnapshotUnsound(f"its manifest {error}") from error
    try:
        if body["format"] != FORMAT:
            raise SnapshotUnsound(f"it has format {body['format']}, this version reads {FORMAT}")
        return _manifest(body)
    except (ValueError, KeyError, TypeError) as error:
        raise SnapshotUnsound(f"its manifest cannot be read: {error!r}") from error


def _manifest(body: dict[str, Any]) -> Manifest:
    files = tuple(SnapshotFile(**file) for file in body["files"])
    for file in files:
        path = PurePosixPath(file.name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"a file outside of the snapshot: {file.name}")
    values = {field.name: body[field.name] for field in fields(Manifest)}
    return Manifest(**{**values, "state": committed_from(body["state"]), "files": files})
