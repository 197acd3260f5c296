"""How far something is, for another thread to look at."""

from __future__ import annotations

from pathlib import Path

from relive.consumers.progress import Progress, Stage


def test_each_stage_begins_at_nothing() -> None:
    progress = Progress("waiting")
    assert progress.now == Stage("waiting")
    progress.begin("copying", 30, "bytes")
    progress.add(10)
    progress.add(15)
    assert progress.now == Stage("copying", 25, 30, "bytes")
    progress.begin("looking")
    assert progress.now == Stage("looking", 0, None)


def test_a_file_that_grows_counts_while_it_does(tmp_path: Path) -> None:
    progress = Progress()
    progress.begin("copying", 30, "bytes")
    progress.add(5)
    with progress.growing(tmp_path / "copy"):
        assert progress.now.done == 5
        with (tmp_path / "copy").open("wb", buffering=0) as copy:
            for written in (8, 16):
                copy.write(bytes(8))
                assert progress.now.done == 5 + written
    assert progress.now.done == 21
    (tmp_path / "copy").unlink()
    assert progress.now == Stage("copying", 21, 30, "bytes")
