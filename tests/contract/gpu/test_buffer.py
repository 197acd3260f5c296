"""A buffer whose index is searched by a GPU worker: the same answers, and it shows."""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tests.contract.gpu.conftest import ROWS, until, vectors

from relive import config as config_module
from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.core.results import GpuStats, SearchResult
from relive.errors import InvalidConfig
from relive.index_service import GpuOptions, accelerator
from relive.index_service.rpc_messages import buffer_stats, stats_reply


def opened(path: Path, backend: str) -> ExperienceBuffer:
    settings = {"capacity": 20_000, "snapshot_interval": 10**9, "record_retrievals": False}
    return ExperienceBuffer.open(path, BufferConfig(faiss_backend=backend, **settings))


def add(buffer: ExperienceBuffer, count: int, seed: int) -> None:
    buffer.add_many(
        Experience(id=f"{seed}-{at}", visual=vector[:24], text=vector[24:])
        for at, vector in enumerate(vectors(count, seed))
    )


def gpu_of(reads: ExperienceBuffer) -> GpuStats:
    index = reads.stats().index
    assert index is not None
    assert index.gpu is not None
    return index.gpu


def serving(reads: ExperienceBuffer) -> Callable[[], bool]:
    return lambda: gpu_of(reads).state == "serving"


def nearest(reads: ExperienceBuffer) -> list[SearchResult]:
    return [reads.search(visual=v[:24], text=v[24:], k=10) for v in vectors(30, 7)]


def test_a_buffer_is_searched_on_the_gpu_and_goes_on_without_it(
    tmp_path: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = partial(GpuOptions, device=device, deadline_s=5.0, pause_s=0.1)
    monkeypatch.setattr(config_module, "GpuOptions", options)
    with opened(tmp_path, "gpu") as buffer:
        assert gpu_of(buffer).state == "waiting"
        add(buffer, ROWS, 0)
        assert not nearest(buffer)[0].degraded
        until(serving(buffer), "the GPU does not serve")
        assert buffer.stats().backend == "faiss-gpu"
        truth = [
            [hit.id for hit in buffer.search(visual=v[:24], text=v[24:], k=3_000)][:10]
            for v in vectors(30, 7)
        ]
        results = nearest(buffer)
        assert [[hit.id for hit in result] for result in results] == truth
        assert not any(result.degraded for result in results)
        kill_worker(buffer)
        results = nearest(buffer)
        assert any(result.degraded for result in results)
        assert all(len(result) == 10 for result in results)
        until(serving(buffer), "no recovery")
        gpu = gpu_of(buffer)
        assert gpu.failures >= 1
        assert gpu.restarts >= 1
        assert gpu.last_failure
        # Over RPC the statistics are the same.
        stats = buffer.stats()
        assert buffer_stats(stats_reply(stats)) == stats
    with opened(tmp_path, "gpu") as buffer:
        until(serving(buffer), "the mapped index is not loaded")
        assert [[hit.id for hit in result] for result in nearest(buffer)] == truth
        assert buffer.remove(truth[0][0])
        add(buffer, 50, 1)
        found = buffer.search(visual=vectors(50, 1)[20][:24], text=vectors(50, 1)[20][24:], k=1)
        assert found[0].id == "1-20"
        assert truth[0][0] not in [hit.id for hit in nearest(buffer)[0]]
        assert gpu_of(buffer).failures == 0
    with opened(tmp_path, "cpu") as buffer:
        stats = buffer.stats()
        assert (stats.backend, stats.index and stats.index.gpu) == ("faiss", None)


def kill_worker(buffer: ExperienceBuffer) -> None:
    gpu = buffer._engine._indexing.gpu
    assert gpu is not None
    assert gpu.worker_pid is not None
    os.kill(gpu.worker_pid, signal.SIGKILL)


def test_where_faiss_has_no_gpus_the_fallback_is_taken_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accelerator, "gpu_build", lambda: False)
    monkeypatch.setattr("relive.index_service.scan._said", set())
    with caplog.at_level("INFO"):
        for name in ("a", "b"):
            with ExperienceBuffer.open(tmp_path / name, BufferConfig()) as buffer:
                assert gpu_of(buffer).state == "unavailable"
                assert buffer.stats().backend != "faiss-gpu"
        with ExperienceBuffer.open(tmp_path / "c", BufferConfig(faiss_backend="cpu")) as buffer:
            index = buffer.stats().index
            assert index is not None
            assert index.gpu is None
    said = [record for record in caplog.records if "faiss_backend gpu" in record.message]
    assert [record.levelname for record in said] == ["INFO"]
    alone = BufferConfig(faiss_use_gpu_fallback=False)
    with pytest.raises(InvalidConfig, match=r"relive\[gpu\].*faiss_use_gpu_fallback") as refused:
        ExperienceBuffer.open(tmp_path / "d", alone)
    assert refused.value.field == "faiss_backend"
    with ExperienceBuffer.open(tmp_path / "d", BufferConfig()) as buffer:
        assert len(buffer) == 0
