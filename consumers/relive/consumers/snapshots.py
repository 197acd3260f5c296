"""A directory of snapshots: each a copy of a store, with a manifest that vouches for it.

    snapshots/lock                        held by whoever writes or removes snapshots
    snapshots/00000000000000001234-5f0c…  a snapshot: how many events, and its digest
        manifest.json
        state/…                           files that the same kind of store can be opened on
    snapshots/unfinished-…                being written or removed, or left behind by kill -9

Several machines may share it: a snapshot depends on the log alone, not on who wrote it.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from relive.consumers.durable_files import sync_directory
from relive.consumers.manifest import Manifest, SnapshotFile, manifest_from
from relive.consumers.snapshot_files import copy_with_sha256, sha256_of
from relive.errors import SnapshotError, SnapshotUnsound

MANIFEST_NAME = "manifest.json"
STATE_NAME = "state"
LOCK_NAME = "lock"
_UNFINISHED = "unfinished-"
_CPUS = os.cpu_count() or 1
_MOST_THREADS = 4


Confirm: TypeAlias = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot.

    Attributes:
        path: its directory.
        manifest: what it holds.
    """

    path: Path
    manifest: Manifest

    @property
    def positions(self) -> Mapping[int, int]:
        """It includes everything before these."""
        return self.manifest.state.positions

    @property
    def digest(self) -> str:
        """Of the state it holds."""
        return self.manifest.state.digest

    @property
    def size_bytes(self) -> int:
        """Of its files; what is shared by hard link counts too."""
        return sum(file.size for file in self.manifest.files)


class Snapshots:
    """The snapshots in a directory.

    Args:
        directory: made when the first one is written.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def directory(self) -> Path:
        """Where they are."""
        return self._directory

    # Reading

    def found(self) -> list[Snapshot | tuple[Path, SnapshotUnsound]]:
        """Every snapshot there is, newest first; with the reason where one cannot be read."""
        try:
            names = sorted(os.listdir(self._directory), reverse=True)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SnapshotError(f"cannot read {self._directory}: {error}") from error
        found: list[Snapshot | tuple[Path, SnapshotUnsound]] = []
        for path in (self._directory / name for name in names if name[:1].isdigit()):
            try:
                found.append(snapshot_at(path))
            except SnapshotUnsound as reason:
                found.append((path, reason))
        return found

    def own_bytes(self) -> int:
        """Of all files but those that have names elsewhere too, so that they'd be there anyway."""
        names: Counter[tuple[int, int]] = Counter()
        sizes: dict[tuple[int, int], tuple[int, int]] = {}
        # Not rglob, which a folder that another one removes meanwhile would be an error to.
        for folder, _, files in os.walk(self._directory):
            for name in files:
                with suppress(FileNotFoundError):
                    found = os.stat(os.path.join(folder, name))
                    file = found.st_dev, found.st_ino
                    names[file] += 1
                    sizes[file] = found.st_size, found.st_nlink
        return sum(size for file, (size, links) in sizes.items() if links == names[file])

    def readable(self, log: str) -> list[Snapshot]:
        """Those of a log whose manifests can be read, newest first; files are not looked at."""
        return [s for s in self.found() if isinstance(s, Snapshot) and s.manifest.state.log == log]

    def verify(self, snapshot: Snapshot) -> None:
        """Compare every file with the manifest.

        Raises:
            SnapshotUnsound: names what is missing or damaged.
        """
        _together(lambda file: _check(snapshot, file), snapshot.manifest.files)

    def restore(self, snapshot: Snapshot, directory: Path) -> Confirm:
        """Put a snapshot's files into a new directory, each compared with the manifest.

        Shared files are linked, so that they take no time and no room, and compared in the
        background.

        Returns:
            waits until they have been, and raises SnapshotUnsound if one is damaged. Nothing that
            is made of them may be taken for true before.

        Raises:
            SnapshotUnsound: names what is missing or damaged; what was restored is removed.
            SnapshotError: it cannot be restored.
        """
        if directory.exists():
            shutil.rmtree(directory)
        directory.mkdir(mode=0o700, parents=True)
        try:
            for file in snapshot.manifest.files:
                (directory / file.name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            linked = [
                f for f in snapshot.manifest.files if f.shared and _link(snapshot, f, directory)
            ]
            copied = [file for file in snapshot.manifest.files if file not in linked]
            confirm = _begun(lambda file: _check(snapshot, file), linked, max(1, _CPUS - 1))
            _together(lambda file: _copy(snapshot, file, directory), copied)
            for folder in (directory, *(d for d in directory.rglob("*") if d.is_dir())):
                sync_directory(folder)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        return confirm


def snapshot_at(path: Path) -> Snapshot:
    """The snapshot in a directory.

    Raises:
        SnapshotUnsound: its manifest cannot be read.
    """
    try:
        raw = (path / MANIFEST_NAME).read_bytes()
    except OSError as error:
        raise SnapshotUnsound(f"its manifest cannot be read: {error}") from error
    return Snapshot(path, manifest_from(raw))


def _together(action: Callable[[SnapshotFile], None], files: Sequence[SnapshotFile]) -> None:
    """Do it to every file, some at a time."""
    _begun(action, files, _CPUS)()


def _begun(
    action: Callable[[SnapshotFile], None], files: Sequence[SnapshotFile], threads: int
) -> Confirm:
    """Begin to do it to every file; what is returned waits for the end of that."""
    pool = ThreadPoolExecutor(min(_MOST_THREADS, threads), thread_name_prefix="relive-hash")
    # The largest first, so that all threads end at about the same time.
    by_size = sorted(files, key=lambda file: file.size, reverse=True)
    begun = [pool.submit(action, file) for file in by_size]
    pool.shutdown(wait=False)

    def wait() -> None:
        try:
            for done in begun:
                done.result()
        finally:
            pool.shutdown(cancel_futures=True)

    return wait


def _check(snapshot: Snapshot, file: SnapshotFile) -> None:
    path = _sized(snapshot, file)
    try:
        found = sha256_of(path)
    except OSError as error:
        raise SnapshotUnsound(f"{file.name} cannot be read: {error}") from error
    _compare(file, found)


def _copy(snapshot: Snapshot, file: SnapshotFile, directory: Path) -> None:
    try:
        _compare(file, copy_with_sha256(_sized(snapshot, file), directory / file.name))
    except OSError as error:
        if error.errno == errno.EIO:
            raise SnapshotUnsound(f"{file.name} cannot be read: {error}") from error
        raise SnapshotError(f"cannot restore {snapshot.path}: {error}") from error


def _link(snapshot: Snapshot, file: SnapshotFile, directory: Path) -> bool:
    try:
        os.link(_sized(snapshot, file), directory / file.name)
    except OSError:  # another file system, or one without links
        return False
    return True


def _sized(snapshot: Snapshot, file: SnapshotFile) -> Path:
    path = snapshot.path / STATE_NAME / file.name
    try:
        size = path.stat().st_size
    except OSError as error:
        raise SnapshotUnsound(f"{file.name} is missing: {error}") from error
    if size != file.size:
        raise SnapshotUnsound(f"{file.name} has {size} bytes instead of {file.size}")
    return path


def _compare(file: SnapshotFile, sha256: str) -> None:
    if sha256 != file.sha256:
        raise SnapshotUnsound(f"{file.name} does not match its checksum")
