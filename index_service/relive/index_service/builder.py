"""The builder: makes an index of rows in files, in a process of its own.

    python -m relive.index_service.builder DIRECTORY

The directory holds the rows, their keys and what to do (see `Job`); the lists, the checksums and
the manifest are added. It ends when its standard input does: nobody waits for the result then.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from relive.consumers.durable_files import sync_directory, sync_file, write_atomically
from relive.core.checksum import crc32
from relive.core.framed import framed, unframed
from relive.index_service.build_progress import Phase, ProgressFile, Told
from relive.index_service.index_files import (
    CHECKS,
    KEYS,
    LISTS,
    ROWS,
    IndexManifest,
    ListsMade,
    fingerprint,
    space_of,
    write_manifest,
)
from relive.index_service.scan import Float32Array
from relive.index_service.training import Trained, blocks, train

# Below, scanning all rows takes well under a millisecond.
FEWEST_ROWS = 4_096

_JOB = "job.json"
_LOWEST_PRIORITY = 19


@dataclass(frozen=True, slots=True)
class Job:
    """What to build.

    Attributes:
        log, space, positions, epoch, rows: see `IndexManifest`.
        n_probes: lists looked at for a query of both embeddings.
        recall_floor: lists that find less are not made; 1 asks for none.
    """

    log: str
    space: Mapping[str, Any]
    positions: Mapping[str, int]
    epoch: int
    rows: int
    n_probes: int
    recall_floor: float

    def write(self, directory: Path) -> None:
        """Leave the job in a directory."""
        write_atomically(directory / _JOB, framed("job", asdict(self)))


def build(directory: Path) -> IndexManifest:
    """Do the job in a directory.

    Raises:
        OSError, ValueError: what is in it is no job, or there is no room.
    """
    started = time.monotonic()
    progress = ProgressFile(directory)
    job = Job(**unframed("job", (directory / _JOB).read_bytes()))
    space = space_of(job.space)
    rows: Float32Array = np.memmap(
        directory / ROWS, dtype="<f4", mode="r", shape=(job.rows, space.width)
    )
    trained = None
    if job.rows >= FEWEST_ROWS and job.recall_floor < 1.0:
        trained = train(
            rows, space, n_probes=job.n_probes, floor=job.recall_floor, told=progress.tell
        )
    made = None if trained is None else _write_lists(directory, trained)
    norm = _write_checks(directory, rows, progress.tell)
    names = [KEYS, CHECKS] + ([] if made is None else [LISTS])
    for name in [ROWS, *names]:
        sync_file(directory / name)
    manifest = IndexManifest(
        job.log,
        job.space,
        job.positions,
        job.epoch,
        job.rows,
        norm,
        made,
        round(time.monotonic() - started, 3),
        {name: fingerprint(directory / name) for name in names},
    )
    (directory / _JOB).unlink()
    progress.remove()
    write_manifest(directory, manifest)
    sync_directory(directory)
    return manifest


def _write_lists(directory: Path, trained: Trained) -> ListsMade:
    model = trained.lists.model
    trained.lists.write(directory / LISTS)
    (directory / LISTS).chmod(0o600)
    return ListsMade(
        model.lists, model.probes._asdict(), model.candidates, trained.recall._asdict()
    )


def _write_checks(directory: Path, rows: Float32Array, told: Told) -> float:
    """Write the checksum of each row; returns the greatest length of a row."""
    crcs = np.empty(len(rows), dtype="<u4")
    norm = 0.0
    for start, block in blocks(rows):
        crcs[start : start + len(block)] = [crc32(row.data.cast("B")) for row in block]
        told(Phase.CHECKS, start + len(block), len(rows))
        norm = max(norm, float(np.einsum("ij,ij->i", block, block).max()) ** 0.5)
    write_atomically(directory / CHECKS, crcs.tobytes())
    return norm


def _end_with_standard_input() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def main() -> None:
    """Run the builder."""
    os.nice(_LOWEST_PRIORITY)
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    status = 0
    try:
        build(Path(sys.argv[1]))
    except Exception:  # noqa: BLE001 - whatever it is, its last line says why the build failed
        traceback.print_exc()
        status = 1
    # Reading standard input holds a lock that the interpreter's own end would wait for.
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
