"""Published indices: directories of files with checksums, one of them current.

| name              | what                                                                    |
|-------------------|-------------------------------------------------------------------------|
| `current`         | the name of the published index, framed with its checksum               |
| `EPOCH-HEX/`      | an index: the current one and the one before it                         |
| `building-HEX/`   | one that is being built, or that a crash left so                        |

An index is `rows.f32`, its rows one after the other; `keys.i64`, their partitions, then their
positions, ordered by both; `crcs.u32`, a checksum of each row, compared when it is first used;
`lists.faiss`, if it has lists; and `manifest.json`, which has the checksums of all but the rows.
Numbers are little-endian.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from relive.consumers.durable_files import sync_directory, write_atomically
from relive.consumers.snapshot_files import sha256_of
from relive.core.embedding import EmbeddingSpace, HybridMode, Metric
from relive.core.framed import framed, unframed
from relive.errors import IndexDamaged
from relive.index_service.index import Base
from relive.index_service.lists import Probes, read_lists
from relive.index_service.segments import Chunk, RowChecks

FORMAT = 1

ROWS, KEYS, CHECKS, LISTS = "rows.f32", "keys.i64", "crcs.u32", "lists.faiss"
_MANIFEST, _CURRENT = "manifest.json", "current"
_BUILDING = "building-"


@dataclass(frozen=True, slots=True)
class ListsMade:
    """What a manifest says of the lists.

    Attributes:
        count: of them.
        probes, candidates: see `relive.index_service.lists.Model`.
        recall: share of the true ten nearest that was found, by kind of query; None for a kind
            that the rows do not have.
    """

    count: int
    probes: Mapping[str, int]
    candidates: int
    recall: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class IndexManifest:
    """What a published index holds.

    Attributes:
        log: the identity of the log that its rows were recorded in.
        space: that they lie in, field by field.
        positions: it has what was live at these.
        epoch: see `View`.
        rows: how many.
        norm: the greatest length of a row.
        lists: None where all rows are scanned.
        seconds: that training took.
        files: name to (bytes, SHA-256), of all but the rows.
        format: of all this.
    """

    log: str
    space: Mapping[str, Any]
    positions: Mapping[str, int]
    epoch: int
    rows: int
    norm: float
    lists: ListsMade | None
    seconds: float
    files: Mapping[str, tuple[int, str]]
    format: int = FORMAT

    def to_json(self) -> bytes:
        """What `read_manifest` reads."""
        return framed("index", asdict(self))


def described(space: EmbeddingSpace) -> dict[str, Any]:
    """A space as a manifest says it."""
    return asdict(space)


def space_of(said: Mapping[str, Any]) -> EmbeddingSpace:
    """The space that a manifest describes."""
    enums = {"metric": Metric(said["metric"]), "mode": HybridMode(said["mode"])}
    return EmbeddingSpace(**{**said, **enums})


def read_manifest(directory: Path) -> IndexManifest:
    """The manifest of an index.

    Raises:
        IndexDamaged: it is not there, not what was written, or of another version.
    """
    try:
        said = unframed("index", (directory / _MANIFEST).read_bytes())
        if said["format"] != FORMAT:
            raise IndexDamaged(
                f"{directory} has format {said['format']}, this version reads {FORMAT}"
            )
        lists = said["lists"] and ListsMade(**said["lists"])
        files = {name: (int(size), str(sha)) for name, (size, sha) in said["files"].items()}
        return IndexManifest(**{**said, "lists": lists, "files": files})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IndexDamaged(f"the manifest of {directory} {error}") from error


def write_manifest(directory: Path, manifest: IndexManifest) -> None:
    """Put a manifest beside the files that it vouches for, which are durable by then."""
    write_atomically(directory / _MANIFEST, manifest.to_json())


def fingerprint(path: Path) -> tuple[int, str]:
    """The size and SHA-256 of a file."""
    return path.stat().st_size, sha256_of(path)


def open_base(directory: Path, manifest: IndexManifest) -> Base:
    """The rows of an index, mapped, and its lists.

    Raises:
        IndexDamaged: a file is not what was written. Rows are compared when they are first used.
    """
    try:
        for name, expected in manifest.files.items():
            if fingerprint(directory / name) != expected:
                raise IndexDamaged(f"{directory / name} does not match its checksum")
        space = space_of(manifest.space)
        count = manifest.rows
        rows = directory / ROWS
        if rows.stat().st_size != count * space.width * 4:
            raise IndexDamaged(f"{rows} has {rows.stat().st_size} bytes, not those of {count} rows")
        keys = np.fromfile(directory / KEYS, dtype="<i8").reshape(2, count)
        crcs = np.fromfile(directory / CHECKS, dtype="<u4").reshape(count)
        # As a plain array: one of the subclass takes 0.1 ms for each look at it.
        matrix = np.memmap(rows, dtype="<f4", mode="r", shape=(count, space.width)).view(np.ndarray)
        made = manifest.lists
        lists = None
        if made is not None:
            probes = Probes(**made.probes)
            lists = read_lists(directory / LISTS, space, probes, made.candidates)
        if lists is not None and lists.count != count:
            raise IndexDamaged(f"the lists of {directory} have {lists.count} of {count} rows")
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise IndexDamaged(f"{directory} cannot be read: {error}") from error
    checks = RowChecks(crcs, np.zeros(count, dtype=bool))
    return Base(Chunk(matrix, keys[0], keys[1], checks), manifest.norm, lists, directory)


class IndexDirectory:
    """Where the indices of one buffer are published. One process at a time changes it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def current(self) -> Path | None:
        """The published index, or None; whether it is sound shows when it is opened.

        Raises:
            IndexDamaged: what names it is not what was written.
        """
        try:
            said = unframed("current", (self.path / _CURRENT).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise IndexDamaged(f"{self.path / _CURRENT} {error}") from error
        return self.path / str(said["name"])

    def former(self) -> Path | None:
        """The newest index that is not the current one, or not known to be."""
        try:
            current = self.current()
        except IndexDamaged:
            current = None
        others = sorted(path for path in self._published() if path != current)
        return others[-1] if others else None

    def new(self) -> Path:
        """A directory to build an index in.

        Raises:
            OSError: it cannot be made.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        building = self.path / f"{_BUILDING}{os.urandom(4).hex()}"
        building.mkdir(mode=0o700)
        return building

    def publish(self, building: Path, epoch: int) -> Path:
        """Give a finished index its name, and make it the current one.

        Raises:
            OSError: it could not be done.
        """
        named = self.path / f"{epoch:08d}-{building.name.removeprefix(_BUILDING)}"
        os.replace(building, named)
        sync_directory(self.path)
        self.point_to(named)
        return named

    def point_to(self, index: Path) -> None:
        """Make a published index the current one."""
        write_atomically(self.path / _CURRENT, framed("current", {"name": index.name}))

    def tidy(self) -> None:
        """Remove what was left half built, and all but the current index and the one before."""
        for building in self.path.glob(f"{_BUILDING}*"):
            shutil.rmtree(building, ignore_errors=True)
        try:
            kept = {self.current(), self.former()}
        except IndexDamaged:
            return  # which one is current is not known
        for index in self._published():
            if index not in kept:
                shutil.rmtree(index, ignore_errors=True)

    def _published(self) -> list[Path]:
        return [path for path in self.path.glob("[0-9]*-*") if path.is_dir()]
