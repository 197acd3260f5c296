"""A process that dies, wherever it does, leaves its last commit whole."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from relive.core.tail import Table

if TYPE_CHECKING:
    from tests.contract.store.conftest import StoreCase

CRASHING = Path(__file__).parent / "processes" / "crashing.py"


# Looking at what an LMDB store left costs a process each time, so not every call is tried.
@pytest.mark.parametrize(("kind", "every"), [("file", 2), ("lmdb", 4)])
def test_a_death_at_any_call_leaves_the_commit_before_or_after_it(
    tmp_path: Path, kind: str, every: int
) -> None:
    """Before, within and after each write, sync, rename and removal of four commits: between the
    payloads and the commit that refers to them, above all."""
    finished = subprocess.run(
        [sys.executable, str(CRASHING), kind, str(tmp_path / "state"), str(every)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    said = [json.loads(line) for line in finished.stdout.splitlines()]
    assert finished.returncode == 0, (said[-1:], finished.stderr[-2_000:])
    deaths = [line for line in said if "call" in line]
    for death in deaths:
        assert death["acknowledged"] <= death["found"] <= death["acknowledged"] + 1, death
        # What the dead process wrote for nothing is gone.
        assert death["files"] <= 1.2 * death["live"] + 512 * 1024, death
    assert {death["found"] for death in deaths} >= {0, 1, 2, 3}


def test_a_death_at_any_moment_leaves_the_last_commit_whole(case: StoreCase) -> None:
    code = """
from relive.core.tail import Table
store = Store(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    value = b"%d" % number * 500
    changes = {b"%d" % (number % 50): value}
    store.commit({Table.META: {b"n": b"%d" % number}, Table.ROWS: changes, Table.PAYLOADS: changes})
    print(number, flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", case.script(code), str(case.directory)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = iter(process.stdout)
    for _ in range(100):
        next(lines)
    process.send_signal(signal.SIGKILL)
    acknowledged = 100 + sum(1 for _ in lines)
    process.wait()
    process.stdout.close()

    contents = case.contents(case.open())
    number = int(contents[Table.META][b"n"])
    assert acknowledged <= number <= acknowledged + 1
    assert contents[Table.PAYLOADS] == contents[Table.ROWS]
    assert contents[Table.ROWS] == {
        b"%d" % (n % 50): b"%d" % n * 500 for n in range(number - 49, number + 1)
    }
