"""Writing snapshots, whole or not at all, and removing old ones."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

from relive.consumers.committed import Committed, last_committed
from relive.consumers.durable_files import sync_directory, sync_file, write_atomically
from relive.consumers.file_lock import locked
from relive.consumers.manifest import Manifest, SnapshotFile
from relive.consumers.opening import Backend, open_store
from relive.consumers.progress import Progress
from relive.consumers.snapshot_files import sha256_of
from relive.consumers.snapshots import MANIFEST_NAME, STATE_NAME, Snapshot, Snapshots, snapshot_at
from relive.consumers.store import StateStore
from relive.errors import SnapshotError, SnapshotUnsound
from relive.schemas.released import lock_entries

LOCK_NAME = "lock"
_UNFINISHED = "unfinished-"

# Called before each step of writing, by its name: for tests that stop or kill a writer there.
Step: TypeAlias = Callable[[str], None]
STEPS = ("copy", "describe", "sync", "manifest", "rename", "publish", "prune")


def no_step(name: str) -> None:
    """The step of a writer that is left alone."""


class SnapshotWriter:
    """Writes and removes the snapshots of a directory; one process at a time does.

    Args:
        snapshots: the directory.
        backend: of the stores that are copied.
    """

    def __init__(self, snapshots: Snapshots, backend: Backend) -> None:
        self._snapshots = snapshots
        self._directory = snapshots.directory
        self._backend = backend

    def write(
        self,
        store: StateStore,
        keep: int,
        *,
        timeout_s: float = 0.0,
        step: Step = no_step,
        progress: Progress | None = None,
    ) -> Snapshot:
        """Write a snapshot of what a store's last commit left, then remove the oldest.

        Args:
            store: read beside its reads and commits.
            keep: how many of this log stay.
            timeout_s: how long to wait for another writer.
            step: called before each of `STEPS`.
            progress: told how many bytes are copied, and read again.

        Raises:
            SnapshotError: it could not be written; nothing of it is left.
            StoreError: the store could not be copied.
        """
        try:
            with self._locked(timeout_s):
                self._remove_unfinished()
                snapshot = self._write(store, step, progress or Progress())
                step("prune")
                self._prune(snapshot.manifest.state.log, keep)
        except OSError as error:
            raise SnapshotError(f"cannot write a snapshot in {self._directory}: {error}") from error
        return snapshot

    def remove_unfinished(self) -> None:
        """Remove what killed writers left; not while another writes."""
        if self._directory.exists():
            with suppress(SnapshotError), self._locked(0.0):
                self._remove_unfinished()

    def _write(self, store: StateStore, step: Step, progress: Progress) -> Snapshot:
        unfinished = self._unfinished()
        unfinished.mkdir(mode=0o700)
        try:
            step("copy")
            store.copy_to(unfinished / STATE_NAME, progress)
            step("describe")
            progress.begin("looking at the copy")
            state = self._described(unfinished / STATE_NAME)
            step("sync")
            files = self._files(unfinished / STATE_NAME, state.log, progress)
            manifest = Manifest(
                store=self._backend,
                state=state,
                schemas=lock_entries(),
                created_at=datetime.now(UTC).isoformat(timespec="seconds"),
                relive=version("relive"),
                written_bytes=sum(file.size for file in files if not file.shared),
                files=tuple(files),
            )
            step("manifest")
            write_atomically(unfinished / MANIFEST_NAME, manifest.to_json())
            for folder in (unfinished, *(d for d in unfinished.rglob("*") if d.is_dir())):
                sync_directory(folder)
            step("rename")
            return self._publish(unfinished, manifest, step)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _publish(self, unfinished: Path, manifest: Manifest, step: Step) -> Snapshot:
        state = manifest.state
        path = self._directory / f"{state.events:020d}-{state.digest[:12]}"
        if path.exists():
            # Of the same state: there it stays, if it is sound.
            try:
                there = snapshot_at(path)
                self._snapshots.verify(there)
            except SnapshotUnsound:
                path.rename(self._unfinished())
            else:
                return there
        unfinished.rename(path)
        step("publish")
        sync_directory(self._directory)
        return Snapshot(path, manifest)

    def _described(self, copy: Path) -> Committed:
        """What the copy itself says it holds: commits went on while it was made."""
        copied = set(copy.rglob("*"))
        opened = open_store(copy, self._backend)
        try:
            state = last_committed(opened)
        finally:
            opened.close()
            for file in set(copy.rglob("*")) - copied:
                file.unlink()
        if state is None:
            raise SnapshotError("there is nothing to take a snapshot of: the state is empty")
        return state

    def _files(self, copy: Path, log: str, progress: Progress) -> list[SnapshotFile]:
        known = self._known_checksums(log)
        found = []
        for path in sorted(path for path in copy.rglob("*") if path.is_file()):
            status = path.stat()
            shared = status.st_nlink > 1
            checksum = known.get(_identity(status)) if shared else None
            found.append((path, status.st_size, shared, checksum))
        unknown = sum(size for _, size, _, checksum in found if checksum is None)
        progress.begin("reading the copy", unknown, "bytes")
        files = []
        for path, size, shared, checksum in found:
            if not shared:
                sync_file(path)
            checksum = checksum or sha256_of(path, progress.add)
            files.append(SnapshotFile(path.relative_to(copy).as_posix(), size, checksum, shared))
        return files

    def _known_checksums(self, log: str) -> dict[tuple[int, ...], str]:
        """Of files that the newest snapshot shares with the store, and that never change."""
        known = {}
        for snapshot in self._snapshots.readable(log)[:1]:
            for file in snapshot.manifest.files:
                with suppress(OSError):
                    status = (snapshot.path / STATE_NAME / file.name).stat()
                    if file.shared and status.st_size == file.size:
                        known[_identity(status)] = file.sha256
        return known

    # Removing

    def _prune(self, log: str, keep: int) -> None:
        kept = [snapshot.path.name for snapshot in self._snapshots.readable(log)[:keep]]
        for found in self._snapshots.found():
            path = found.path if isinstance(found, Snapshot) else found[0]
            mine = not isinstance(found, Snapshot) or found.manifest.state.log == log
            if mine and len(kept) == keep and path.name < min(kept):
                path.rename(self._unfinished())
        self._remove_unfinished()

    def _remove_unfinished(self) -> None:
        for path in self._directory.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _unfinished(self) -> Path:
        return self._directory / f"{_UNFINISHED}{uuid.uuid4().hex}"

    def _locked(self, timeout_s: float) -> AbstractContextManager[None]:
        taken = SnapshotError(f"another snapshot is being written in {self._directory}")
        return locked(self._directory / LOCK_NAME, timeout_s, taken)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
