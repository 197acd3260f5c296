"""A damaged store is refused: never read wrongly, never the end of the process that reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

READING_DAMAGED = Path(__file__).parent / "processes" / "reading_damaged.py"
LOCKS = {"owner.lock", "lock.mdb"}


def come_of(directory: Path, kind: str, closed: str) -> list[dict[str, str]]:
    """What came of each damage."""
    finished = subprocess.run(
        [sys.executable, str(READING_DAMAGED), kind, str(directory), closed, "40"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    said = [json.loads(line) for line in finished.stdout.splitlines()]
    assert finished.returncode == 0, (finished.returncode, said[-1:], finished.stderr[-2_000:])
    return said


@pytest.mark.parametrize("kind", ["file", "lmdb"])
def test_a_damaged_file_of_a_closed_store_is_refused(tmp_path: Path, kind: str) -> None:
    said = come_of(tmp_path, kind, "closed")
    for line in said:
        assert line["outcome"] in {"last", "StoreDamaged", "StoreIncompatible"}, line
        if line["file"] in LOCKS:
            assert line["outcome"] == "last", line
        elif not line["file"].startswith(("payloads", "closed", "store")):
            # Payloads may have what nobody refers to; the others, white space.
            assert line["outcome"] != "last", line
    refused = [line for line in said if line["outcome"] != "last"]
    assert {line["file"].split("-")[0] for line in refused} >= {"payloads", "store"}


@pytest.mark.parametrize("kind", ["file", "lmdb"])
def test_a_damaged_file_of_a_store_whose_process_died_is_never_read_wrongly(
    tmp_path: Path, kind: str
) -> None:
    """How the files of a dead process should end nobody knows: a bad last record of a journal, and
    a bad newest root of LMDB, are taken for a commit that was not made."""
    said = come_of(tmp_path, kind, "open")
    for line in said:
        if line["outcome"] == "earlier":
            assert line["file"].startswith(("journal", "data.mdb")), line
        else:
            assert line["outcome"] in {"last", "StoreDamaged", "StoreIncompatible"}, line
    assert {line["outcome"] for line in said} >= {"last", "StoreDamaged"}
