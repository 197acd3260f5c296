"""A disk without room: whoever wants to write is told so, and all goes on once there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from relive.testing.plugin import skip_at_a_desk
from tests.faults.history import Fate
from tests.faults.place import StoreName
from tests.faults.sizes import Size
from tests.faults.trial import make
from tests.faults.worker import Ended, Failed, Message, Plan

STORES: tuple[StoreName, ...] = ("lmdb",)
MIB = 1024 * 1024
FULL = ("full", "No space left", "no room")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m,mode=0700", "relive-test", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        skip_at_a_desk(f"no file system can be mounted here: {mounted.stderr}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(disk: Path, leave_bytes: int) -> Path:
    """A file that leaves only so much room."""
    ballast = disk / "ballast"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    ballast.write_bytes(bytes(max(0, free - leave_bytes)))
    return ballast


@pytest.mark.parametrize("store", STORES)
def test_a_full_disk(
    small_disk: Path, store: StoreName, size: Size, chance: Random
) -> None:
    for _ in range(3):
        trial = make(small_disk, chance.randrange(2**32), store=store)
        trial.use(Plan(trial.seed, "before", 20))
        ballast = fill(small_disk, chance.randrange(8 * 4096, 2 * MIB))
        fates: list[Fate] = []
        errors = []

        def watch(message: Message) -> None:
            if isinstance(message, Ended):
                fates.append(message.fate)
                if message.fate is Fate.UNKNOWN:
                    errors.append(message.error)
                    if len(errors) == 5:
                        ballast.unlink()
            if isinstance(message, Failed):
                errors.append(message)
        u=trial.use(Plan(trial.seed, "during", 150, patient=True), watch=watch)
        print(len(fates), [f.value[0] for f in fates].__str__().replace("', '",''), *dict.fromkeys(str(e)[:260] for e in errors), u.code, sep='\n')
        trial.check(trial.look(close=True))
        trial.delete()
        if ballast.exists():
          ballast.unlink()
