"""What a GPU worker loads is what was published, and as much of it as fits."""

from pathlib import Path

import numpy as np
import pytest
from tests.unit.index_service.test_index_files import SPACE, built, flipped, view_of

from relive.core.embedding import EmbeddingSpace, Metric
from relive.errors import GpuFailed, IndexDamaged
from relive.index_service.gpu_index import LoadedRows, bytes_needed, find_device
from relive.index_service.index_files import CHECKS, ROWS, IndexDirectory, read_manifest


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return built(IndexDirectory(tmp_path / "index"), view_of(300), epoch=4)


def test_rows_are_found_best_first(made: Path) -> None:
    loaded = LoadedRows(made, read_manifest(made), "cpu")
    assert (loaded.count, loaded.width, loaded.epoch) == (300, SPACE.width, 4)
    rows = np.fromfile(made / ROWS, dtype="<f4").reshape(300, -1)
    scores, found = loaded.top(rows[[5, 9]], 300)
    assert scores.shape == found.shape == (2, 300)
    for query, row, score in zip(rows[[5, 9]], found, scores, strict=True):
        assert sorted(row.tolist()) == list(range(300))
        assert np.abs(score - rows[row] @ query).max() < 4e-3
        assert (np.diff(score) <= 0).all()


@pytest.mark.parametrize(("width", "m"), [(31, 5), (33, 5), (32, 0), (32, 301)])
def test_what_faiss_would_read_out_of_bounds_is_refused(made: Path, width: int, m: int) -> None:
    loaded = LoadedRows(made, read_manifest(made), "cpu")
    with pytest.raises(GpuFailed):
        loaded.top(np.zeros((1, width), dtype=np.float32), m)


@pytest.mark.parametrize("name", [ROWS, CHECKS])
def test_damaged_files_are_not_loaded(made: Path, name: str) -> None:
    flipped(made / name, 100)
    with pytest.raises(IndexDamaged, match="checksum"):
        LoadedRows(made, read_manifest(made), "cpu")


def test_euclidean_rows_need_twice_the_memory() -> None:
    def rows(space: EmbeddingSpace) -> int:
        return bytes_needed(space, 1_001_000) - bytes_needed(space, 1_000)

    cosine, euclidean = EmbeddingSpace(512, 256), EmbeddingSpace(512, 256, Metric.EUCLIDEAN)
    assert rows(cosine) == 1_000_000 * (2 * 768 + 4)
    assert rows(euclidean) == 1_000_000 * (4 * 770 + 4)


def test_the_cpu_says_what_is_free() -> None:
    device = find_device("cpu")
    assert device.name == "CPU"
    assert device.free is not None
    assert device.total is not None
    assert 0 < device.free < device.total
