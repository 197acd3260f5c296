"""Whether a snapshot is what its manifest says, down to the digest of the state it holds."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import cast, get_args

from relive.consumers.committed import last_committed
from relive.consumers.ladder import check_state
from relive.consumers.opening import Backend, open_store
from relive.consumers.snapshots import Snapshot, Snapshots
from relive.core.state import FOLD_VERSION
from relive.errors import SnapshotUnsound, StoreError


def check_snapshot(snapshots: Snapshots, snapshot: Snapshot) -> None:
    """Read all of a snapshot: its files, and the state in them.

    A state of another fold version has only its files checked.

    Raises:
        SnapshotUnsound: says what is wrong.
        SnapshotError: there is no room for the copy that is opened.
    """
    manifest = snapshot.manifest
    if manifest.store not in get_args(Backend):
        raise SnapshotUnsound(f"it is of a {manifest.store} store, which this version has not")
    if manifest.state.fold_version != FOLD_VERSION:
        snapshots.verify(snapshot)
        return
    with tempfile.TemporaryDirectory(prefix="relive-snapshot-") as scratch:
        copy = Path(scratch) / "state"
        snapshots.restore(snapshot, copy)()
        try:
            store = open_store(copy, cast(Backend, manifest.store))
            try:
                if last_committed(store) != manifest.state:
                    raise SnapshotUnsound("its state is not the one that its manifest names")
                check_state(store, manifest.state)
            finally:
                store.close()
        except StoreError as error:
            raise SnapshotUnsound(f"its state is damaged: {error}") from error
