"""A published index is read as it was written, or refused; the one before it stays."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from relive.core.embedding import EmbeddingSpace
from relive.errors import IndexDamaged
from relive.index_service.builder import Job, build
from relive.index_service.building import write_rows
from relive.index_service.index import Index
from relive.index_service.index_files import (
    CHECKS,
    KEYS,
    LISTS,
    ROWS,
    IndexDirectory,
    described,
    open_base,
    read_manifest,
)
from relive.index_service.scan import FaissScanner
from relive.index_service.segments import RowKey
from relive.index_service.view import View

SPACE = EmbeddingSpace(24, 8)


def view_of(rows: int) -> View:
    random = np.random.default_rng(0)
    centres = random.standard_normal((40, 32))
    made = centres[np.arange(rows) % 40] + 0.2 * random.standard_normal((rows, 32))
    vectors = made.astype(np.float32)
    index = Index(SPACE)
    keys = [RowKey(at % 2, at) for at in range(rows)]
    index.apply(
        keys, SPACE.rows(list(vectors[:, :24]), list(vectors[:, 24:])), [], {0: rows, 1: rows}
    )
    return index.view


def built(files: IndexDirectory, view: View, epoch: int = 1) -> Path:
    building = files.new()
    count = write_rows(building, view)
    Job("log:1", described(SPACE), {"0": 1, "1": 2}, epoch, count, 10, 0.95).write(building)
    build(building)
    return building


@pytest.fixture(scope="module")
def view() -> View:
    return view_of(4_200)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, view: View) -> Path:
    """One index, for tests that leave it as it is."""
    return built(IndexDirectory(tmp_path_factory.mktemp("index")), view)


def test_what_was_built_is_read_back(made: Path, view: View) -> None:
    manifest = read_manifest(made)
    assert (manifest.log, manifest.epoch, manifest.rows) == ("log:1", 1, 4_200)
    assert manifest.positions == {"0": 1, "1": 2}
    assert manifest.lists is not None
    assert manifest.lists.recall["both"] >= 0.95  # type: ignore[operator]
    base = open_base(made, manifest)
    assert base.count == 4_200
    index = Index(SPACE, base=base)
    assert index.view.size == view.size
    found = 0
    for row in view.segments[0].chunk.matrix[:50]:
        query = SPACE.query(*SPACE.halves(row))
        theirs = view.search(FaissScanner(), query, 10)
        found += len(set(theirs) & set(index.view.search(FaissScanner(), query, 10)))
    assert found >= 0.93 * 500
    for name in os.listdir(made):
        assert (made / name).stat().st_mode & 0o777 == 0o600


def test_the_same_rows_give_the_same_files(tmp_path: Path, made: Path, view: View) -> None:
    again = built(IndexDirectory(tmp_path), view)
    assert read_manifest(again).files == read_manifest(made).files
    assert (again / ROWS).read_bytes() == (made / ROWS).read_bytes()


def copied(made: Path, target: Path) -> Path:
    target.mkdir()
    for path in made.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def flipped(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 4
    path.write_bytes(raw)


@pytest.mark.parametrize("name", [KEYS, CHECKS, LISTS, "manifest.json"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: flipped(path, path.stat().st_size // 2),
        lambda path: os.truncate(path, path.stat().st_size - 1),
        lambda path: os.truncate(path, 0),
        Path.unlink,
    ],
    ids=["flipped", "cut", "empty", "gone"],
)
def test_a_damaged_file_is_refused(
    made: Path, tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    index = copied(made, tmp_path / "index")
    damage(index / name)
    with pytest.raises(IndexDamaged, match=r"checksum|cannot be read|No such file"):
        open_base(index, read_manifest(index))


def test_damaged_rows_are_refused_when_they_are_looked_at(made: Path, tmp_path: Path) -> None:
    index = copied(made, tmp_path / "index")
    flipped(index / ROWS, 100 * 4 * SPACE.width + 3)
    base = open_base(index, read_manifest(index))
    base.chunk.rows(np.array([99, 101]))
    with pytest.raises(IndexDamaged, match="row 100"):
        base.chunk.rows(np.array([100]))
    for size in (0, (index / ROWS).stat().st_size - 1):
        os.truncate(index / ROWS, size)
        with pytest.raises(IndexDamaged, match="bytes, not those of"):
            open_base(index, read_manifest(index))


def test_the_current_index_and_the_one_before_stay(tmp_path: Path) -> None:
    files, view = IndexDirectory(tmp_path / "index"), view_of(10)
    assert files.current() is None
    assert files.former() is None
    files.tidy()
    published = [files.publish(built(files, view, epoch), epoch) for epoch in (1, 2, 3)]
    left = files.new()
    files.tidy()
    assert files.current() == published[2]
    assert files.former() == published[1]
    assert not published[0].exists()
    assert not left.exists()
    files.point_to(published[1])
    assert files.current() == published[1]
    assert read_manifest(published[1]).epoch == 2
    files.tidy()
    assert files.former() == published[2]


def test_what_names_the_current_index_is_checked(tmp_path: Path) -> None:
    files = IndexDirectory(tmp_path / "index")
    files.publish(built(files, view_of(10)), 1)
    flipped(files.path / "current", 15)
    with pytest.raises(IndexDamaged, match="current"):
        files.current()
