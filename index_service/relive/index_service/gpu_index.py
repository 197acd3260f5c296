"""What the GPU worker searches: all rows of a published index, on a GPU or, in tests, on the CPU.

Rows are compared one by one, not in lists: on a GPU that is fast enough, and finds more. Cosine
rows are kept as float16, half the memory; euclidean ones end with squared lengths, which must not
be that coarse, and stay float32. Nothing is left out by the index: FAISS ignores filters on a GPU,
so rows that no longer count are found too, and dropped by whoever asked.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from relive.core.checksum import crc32
from relive.core.embedding import EmbeddingSpace, Metric
from relive.errors import GpuFailed, IndexDamaged
from relive.index_service.index_files import CHECKS, ROWS, IndexManifest, fingerprint, space_of
from relive.index_service.lists import one_thread_faiss
from relive.index_service.scan import Float32Array, IndexArray

# The most rows that FAISS finds on a GPU for one query.
MAX_FOUND = 2_048

# By how much a score may be off, for a query and a row of length 1: float16 rounds either by 1/2048
# at most, and so does what a GPU may multiply float32 in.
TOLERANCE = 4e-3

# What FAISS may use on a GPU beside the rows: for scores, and for making float16 of float32.
_TEMPORARY_BYTES = 256 * 1024 * 1024
_SPARE_BYTES = 2 * _TEMPORARY_BYTES

_CHECKED_AT_ONCE = 1_024


class Device(NamedTuple):
    """What a worker can search on.

    Attributes:
        name: of the device; empty where there is none.
        free, total: bytes of its memory; None where it does not say.
        reason: why there is none.
    """

    name: str
    free: int | None = None
    total: int | None = None
    reason: str = ""


def gpu_build() -> bool:
    """Whether the installed FAISS can use GPUs at all. Touches none: CUDA stays as it is."""
    try:
        import faiss
    except ImportError:
        return False
    return hasattr(faiss, "StandardGpuResources")


def bytes_needed(space: EmbeddingSpace, rows: int) -> int:
    """Memory that a device has to have free for so many rows."""
    number = 2 if _is_half(space) else 4
    return rows * (space.width * number + 4) + _SPARE_BYTES


def find_device(kind: str) -> Device:
    """The GPU, or the CPU as a device. Only for the worker: it initialises CUDA.

    Args:
        kind: `gpu` or `cpu`.
    """
    if kind == "cpu":
        free, total = _cpu_memory()
        return Device("CPU", free, total)
    if not gpu_build():
        return Device("", reason="the installed FAISS is built without GPUs; relive[gpu] has one")
    import faiss

    count = faiss.get_num_gpus()
    if count < 1:
        return Device("", reason="FAISS finds no GPU")
    return _first_gpu()


class LoadedRows:
    """All rows of a published index, ready to be searched.

    Args:
        directory: of the index.
        kind: see `find_device`.

    Raises:
        IndexDamaged: a row is not what was written.
        MemoryError, RuntimeError: there is no room on the device.
    """

    def __init__(self, directory: Path, manifest: IndexManifest, kind: str) -> None:
        space = space_of(manifest.space)
        self.count, self.width, self.epoch = manifest.rows, space.width, manifest.epoch
        rows = _checked_rows(directory, manifest, space)
        make = _cpu_index if kind == "cpu" else _gpu_index
        self._index = make(rows, space)

    def top(self, queries: Float32Array, m: int) -> tuple[Float32Array, IndexArray]:
        """The m best rows for each query, best first: scores and row numbers, each (n, m).

        Args:
            queries: float32 of shape (n, width).
            m: 1 to `MAX_FOUND`, and to the number of rows.

        Raises:
            MemoryError, RuntimeError: of FAISS.
        """
        one_thread_faiss()
        # FAISS reads out of bounds without a word.
        if queries.ndim != 2 or queries.shape[1] != self.width:
            raise GpuFailed(f"queries of shape {queries.shape} for rows of {self.width}")
        if not 1 <= m <= min(MAX_FOUND, self.count):
            raise GpuFailed(f"{m} rows of {self.count} asked for, {MAX_FOUND} at most")
        scores, rows = self._index.search(np.ascontiguousarray(queries), m)
        return scores, rows


def _is_half(space: EmbeddingSpace) -> bool:
    return space.metric is Metric.COSINE


def _checked_rows(directory: Path, manifest: IndexManifest, space: EmbeddingSpace) -> Float32Array:
    """The rows of an index, each compared with its checksum."""
    if fingerprint(directory / CHECKS) != manifest.files[CHECKS]:
        raise IndexDamaged(f"{directory / CHECKS} does not match its checksum")
    crcs = np.fromfile(directory / CHECKS, dtype="<u4")
    shape = (manifest.rows, space.width)
    rows: Float32Array = np.memmap(directory / ROWS, dtype="<f4", mode="r", shape=shape)
    for start in range(0, manifest.rows, _CHECKED_AT_ONCE):
        block = rows[start : start + _CHECKED_AT_ONCE]
        for at, expected in enumerate(crcs[start : start + len(block)].tolist()):
            if crc32(block[at].data.cast("B")) != expected:
                raise IndexDamaged(f"row {start + at} does not match its checksum")
    return rows


def _cpu_index(rows: npt.NDArray[np.float32], space: EmbeddingSpace) -> Any:
    """As coarse as the one on a GPU."""
    faiss = one_thread_faiss()
    if _is_half(space):
        kind = faiss.ScalarQuantizer.QT_fp16
        index = faiss.IndexScalarQuantizer(space.width, kind, faiss.METRIC_INNER_PRODUCT)
    else:
        index = faiss.IndexFlatIP(space.width)
    index.add(rows)
    return index


def _gpu_index(rows: npt.NDArray[np.float32], space: EmbeddingSpace) -> Any:
    import faiss

    resources = faiss.StandardGpuResources()
    resources.setTempMemory(_TEMPORARY_BYTES)
    config = faiss.GpuIndexFlatConfig()
    config.device = 0
    config.useFloat16 = _is_half(space)
    index = faiss.GpuIndexFlatIP(resources, space.width, config)
    # All at once: FAISS makes room for exactly these, where parts would be copied again and again.
    index.add(rows)
    return index


def _first_gpu() -> Device:
    """The GPU that FAISS calls 0. FAISS does not say how much is free on it, the driver does."""
    name = ctypes.create_string_buffer(128)
    device, context = ctypes.c_int(), ctypes.c_void_p()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
        steps = (
            cuda.cuInit(0),
            cuda.cuDeviceGet(ctypes.byref(device), 0),
            cuda.cuDeviceGetName(name, len(name), device),
            cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device),
            cuda.cuCtxSetCurrent(context),
            cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)),
        )
    except (OSError, AttributeError):
        return Device("GPU 0")
    if any(steps):
        return Device(name.value.decode("utf-8", "replace") or "GPU 0")
    return Device(name.value.decode("utf-8", "replace"), free.value, total.value)


def _cpu_memory() -> tuple[int | None, int | None]:
    said: dict[str, int] = {}
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, value = line.split(":")
            said[name] = int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return said.get("MemAvailable"), said.get("MemTotal")
