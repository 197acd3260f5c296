"""Recovery: the store if it is sound, else the newest sound snapshot, else the log.

state            the store
state.lock       held while one process looks at all of this
state.origin     the snapshot that the store was restored from, where it was
state.condemned  why the store is not to be trusted, where a read found out
state.restoring  a snapshot being restored, or left behind by kill -9; so is state.converting
state.removing   a store of no use being removed, or left behind as well
state.damaged    the last store that was passed over, in case someone wants to look at it
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from relive.consumers.durable_files import sync_directory, write_atomically
from relive.consumers.file_lock import locked
from relive.consumers.ladder import Ladder
from relive.consumers.made_note import read_made_note
from relive.consumers.memory_store import MemoryStore
from relive.consumers.opening import Backend, open_store
from relive.consumers.snapshot_loading import (
    backend_of_snapshot,
    copy_tables,
    load,
    open_restored,
)
from relive.consumers.snapshots import Confirm, Snapshot, Snapshots
from relive.consumers.store import StateStore
from relive.core.results import StateSource
from relive.errors import (
    ReliveError,
    SnapshotError,
    StateDamaged,
    StoreDamaged,
    StoreError,
    StoreIncompatible,
    StoreInUse,
)
from relive.log import EventLog

LOCK_TIMEOUT_S = 60.0
# Every try distrusts one more state; more bad ones than this have another cause.
_MOST_TRIES = 10
_A_SNAPSHOT = "a snapshot"

Used = TypeVar("Used")
Json = TypeVar("Json", list[Any], dict[str, Any])

_log = logging.getLogger(__name__)


def _nothing_to_confirm() -> None:
    """Where nothing is still being compared."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """A store that the tail of the log can be folded on.

    Attributes:
        store: open; whoever takes this closes it.
        backend: of the directory's stores.
        owned: whether it is durable, and this process owns it.
        source: where its state comes from.
        passed_over: states that were of no use, and why.
        started_s: when recovery began, by `time.monotonic`.
        condemn: called when a read finds the store damaged: no later opening trusts it.
        condemned: whether that has happened.
        confirm: waits until the files of a restored snapshot have all been read and compared, which
            goes on beside the loading of the state; to be called before it is relied on.
        inherit: recovers the store once its owner has ended; None where it is owned.
    """

    store: StateStore
    backend: Backend
    owned: bool
    source: StateSource
    passed_over: tuple[str, ...]
    started_s: float
    condemn: Callable[[StoreError], None]
    condemned: Callable[[], bool]
    confirm: Confirm = _nothing_to_confirm
    inherit: Callable[[], Recovered] | None = None


def recovering(recover: Callable[[], Recovered], use: Callable[[Recovered], Used]) -> Used:
    """Use what was recovered; where that finds it damaged, what is recovered instead.

    Raises:
        whatever either of them raises.
    """
    for _ in range(_MOST_TRIES):
        recovered = recover()
        try:
            return use(recovered)
        except ReliveError as error:
            if isinstance(error, StateDamaged | StoreDamaged) and not recovered.condemned():
                recovered.condemn(error)
            if not recovered.condemned():
                raise
            damage = error
    raise damage


class StateDirectory:
    """Where a buffer or a service has its state.

    Args:
        directory: made if missing.
        backend: of the store in it.
        snapshots: where to look for snapshots.
    """

    def __init__(self, directory: Path, backend: Backend, snapshots: Snapshots) -> None:
        self._directory = directory
        self._backend = backend
        self._snapshots = snapshots
        self._state = directory / "state"
        self._origin = directory / "state.origin"
        self._condemned = directory / "state.condemned"
        self._restoring = directory / "state.restoring"
        self._removing = directory / "state.removing"
        self._damaged = directory / "state.damaged"

    def recover(self, log: EventLog) -> Recovered:
        """Open the best state there is; the log's tail is still to be folded on it.

        Raises:
            StoreInUse: another process owns the store.
            StoreIncompatible: the store was made with another backend.
            LogReplaced: the store is of another log.
            StateUnrecoverable: the log's beginning is gone, and no state holds what it gave.
            LogUnavailable: the log cannot be reached.
        """
        started = time.monotonic()
        with self._locked():
            ladder = Ladder(log)
            source = StateSource.STORE
            store = self._sound_store(ladder)
            confirm = _nothing_to_confirm
            if store is None:
                source = StateSource.SNAPSHOT
                store, confirm = self._restored_store(ladder)
            if store is None:
                source = StateSource.LOG
                ladder.check_log_is_whole()
                self._make_place()
                store = open_store(self._state, self._backend)
        return Recovered(
            store=store,
            backend=self._backend,
            owned=True,
            source=source,
            passed_over=tuple(ladder.passed_over),
            started_s=started,
            condemn=self._condemn,
            condemned=self._condemned.exists,
            confirm=lambda: self._confirm(confirm),
        )

    def read_only(self, log: EventLog) -> Recovered:
        """A state in memory, for a process that does not own the store.

        Raises:
            StateUnrecoverable, LogUnavailable: as for `recover`.
        """
        started = time.monotonic()
        store = MemoryStore()
        source = StateSource.SNAPSHOT
        with self._locked():
            ladder = Ladder(log)
            if not self._read_snapshot(ladder, store):
                source = StateSource.LOG
                ladder.check_log_is_whole()
        return Recovered(
            store=store,
            backend=self._backend,
            owned=False,
            source=source,
            passed_over=tuple(ladder.passed_over),
            started_s=started,
            condemn=lambda error: None,
            condemned=lambda: False,
            inherit=lambda: self.recover(log),
        )

    def _sound_store(self, ladder: Ladder) -> StateStore | None:
        if not self._state.exists():
            return None
        store: StateStore | None = None
        keep = empty = False
        try:
            # Opened even if condemned: whoever found the damage may still own it.
            store = open_store(self._state, self._backend)
            if self._condemned.exists():
                raise StateDamaged(str(_read_json(self._condemned, {}).get("reason", "condemned")))
            keep = ladder.checked(store) is not None
            empty = not keep
        except StoreIncompatible as error:
            if self._is_of_another_backend():
                raise
            ladder.pass_over("the store", error)
        except (StoreDamaged, StateDamaged) as error:
            ladder.pass_over("the store", error)
        finally:
            if store is not None and not keep:
                store.close()
        if empty:  # nothing was ever committed: it is not worth keeping as a damaged one
            self._remove_state()
        return store if keep else None

    def _restored_store(self, ladder: Ladder) -> tuple[StateStore | None, Confirm]:
        """The store in its place, restored from the newest snapshot that is sound; None if none is.

        What was in its place stays there until a snapshot has been restored next to it.
        """
        distrusted = self._distrusted()
        for snapshot in ladder.usable(self._snapshots, distrusted):
            try:
                confirm = self._restore(snapshot)
            except (SnapshotError, StoreError) as error:
                ladder.pass_over(f"snapshot {snapshot.path.name}", error)
                continue
            self._make_place()
            write_atomically(self._origin, json.dumps([snapshot.path.name, *distrusted]).encode())
            self._restoring.rename(self._state)
            sync_directory(self._directory)
            try:
                return open_restored(self._state, self._backend, snapshot), confirm
            except (SnapshotError, StoreError) as error:
                ladder.pass_over(f"snapshot {snapshot.path.name}", error)
                self._remove_state()
        return None, _nothing_to_confirm

    def _read_snapshot(self, ladder: Ladder, into: MemoryStore) -> bool:
        """Whether there was a sound snapshot to read everything from."""
        for snapshot in ladder.usable(self._snapshots, ()):
            try:
                load(self._snapshots, snapshot, self._restoring, into)
            except (SnapshotError, StoreError) as error:
                ladder.pass_over(f"snapshot {snapshot.path.name}", error)
                into.clear()
            else:
                return True
        return False

    def _restore(self, snapshot: Snapshot) -> Confirm:
        """Put the store of a snapshot next to the store's place, in the backend that is asked for.

        Raises:
            SnapshotError, StoreError: it cannot be done.
        """
        confirm = self._snapshots.restore(snapshot, self._restoring)
        backend = backend_of_snapshot(snapshot)
        if backend == self._backend:
            return confirm
        confirm()
        other = self._directory / "state.converting"
        shutil.rmtree(other, ignore_errors=True)
        self._restoring.rename(other)
        source = open_restored(other, backend, snapshot)
        try:
            target = open_store(self._restoring, self._backend)
            try:
                copy_tables(source, target)
            finally:
                target.close()
        finally:
            source.close()
            shutil.rmtree(other, ignore_errors=True)
        return _nothing_to_confirm

    def _is_of_another_backend(self) -> bool:
        """A changed setting may be a mistake; what no backend made is passed over."""
        try:
            note = read_made_note(self._state)
        except StoreError:
            return False
        return note is not None and note.backend != self._backend

    def _distrusted(self) -> list[str]:
        names = _read_json(self._condemned, {}).get("distrusted")
        return [str(name) for name in names] if isinstance(names, list) else []

    def _make_place(self) -> None:
        """Move aside what is in the store's place, and forget what was said of it."""
        if _read_json(self._condemned, {}).get("of") == _A_SNAPSHOT:
            self._remove_state()  # a mere copy; what was moved aside for it stays there
        elif self._state.exists():
            shutil.rmtree(self._damaged, ignore_errors=True)
            self._state.rename(self._damaged)
        self._origin.unlink(missing_ok=True)
        self._condemned.unlink(missing_ok=True)
        sync_directory(self._directory)

    def _remove_state(self) -> None:
        """Remove what is in the store's place at once: half of it would look like a damaged one."""
        shutil.rmtree(self._removing, ignore_errors=True)
        if self._state.exists():
            self._state.rename(self._removing)
            shutil.rmtree(self._removing)

    def _confirm(self, confirm: Confirm) -> None:
        """See `Recovered.confirm`; what turns out damaged is condemned.

        Raises:
            StateDamaged: a file is not what the snapshot's manifest says.
        """
        try:
            confirm()
        except SnapshotError as error:
            damaged = StateDamaged(f"a snapshot was no good: {error}")
            self._condemn(damaged, _A_SNAPSHOT)
            raise damaged from error

    def _condemn(self, error: StoreError, of: str = "a store") -> None:
        distrusted = _read_json(self._origin, [])
        said = {"reason": str(error), "of": of, "distrusted": distrusted}
        try:
            write_atomically(self._condemned, json.dumps(said).encode())
        except OSError as failure:
            _log.error("could not note that the state is damaged: %s", failure)

    def _locked(self) -> AbstractContextManager[None]:
        taken = StoreInUse(f"another process is recovering the state in {self._state}")
        return locked(self._directory / "state.lock", LOCK_TIMEOUT_S, taken)


def _read_json(path: Path, otherwise: Json) -> Json:
    try:
        said = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return otherwise
    return said if isinstance(said, type(otherwise)) else otherwise
