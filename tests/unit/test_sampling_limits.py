"""Limits on what is sampled, through an embedded buffer and a service."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.client import Client
from relive.consumers import MemoryStore
from relive.errors import InvalidConfig, SampleTimeout
from relive.index_service import Engine, sampling_limits
from relive.index_service.server import IndexServer
from relive.log import open_log


def opened(path: Path, **limits: Any) -> ExperienceBuffer:
    limits = {"sample_timeout_s": 0.05, **limits}
    return ExperienceBuffer.open(path, BufferConfig(capacity=100, faiss_backend="cpu", **limits))


def add(buffer: ExperienceBuffer, count: int) -> None:
    buffer.add_many(Experience(visual=[1.0, float(n)]) for n in range(count))


def test_too_early_a_sample_says_what_it_waited_for(tmp_path: Path) -> None:
    with opened(tmp_path, sample_min_size=10) as buffer:
        add(buffer, 4)
        with pytest.raises(SampleTimeout, match="waited for min_size 10, have 4") as refused:
            buffer.sample(2)
        assert (refused.value.wanted, refused.value.have) == (10, 4)
        assert len(buffer.sample(0)) == 0
        add(buffer, 6)
        assert len(buffer.sample(2)) == 2


def test_a_sample_goes_on_as_soon_as_it_may(tmp_path: Path) -> None:
    with opened(tmp_path, sample_min_size=10, sample_timeout_s=60.0) as buffer:
        add(buffer, 9)
        drawn: list[int] = []
        waiting = threading.Thread(target=lambda: drawn.append(len(buffer.sample(3))))
        waiting.start()
        add(buffer, 1)
        waiting.join(30)
        assert drawn == [3]


def test_a_sample_waits_as_long_as_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s, asked = [0.0], threading.Event()

    def monotonic() -> float:
        asked.set()
        return now_s[0]

    monkeypatch.setattr(sampling_limits, "time", SimpleNamespace(monotonic=monotonic))
    with opened(tmp_path, sample_min_size=10, sample_timeout_s=120.0) as buffer:
        add(buffer, 8)
        drawn: list[int] = []
        waiting = threading.Thread(target=lambda: drawn.append(len(buffer.sample(3))))
        waiting.start()
        assert asked.wait(30)
        now_s[0] = 100.0
        add(buffer, 1)
        add(buffer, 1)
        waiting.join(30)
        assert drawn == [3]


def test_no_more_is_sampled_per_insert_than_is_allowed(tmp_path: Path) -> None:
    with opened(tmp_path, samples_per_insert=2.0) as buffer:
        add(buffer, 5)
        assert len(buffer.sample(7, replace=True)) == 7
        with pytest.raises(SampleTimeout, match=r"inserts for samples_per_insert 5\.5, have 5"):
            buffer.sample(4)
        assert len(buffer.sample(3)) == 3
        add(buffer, 1)
        assert len(buffer.sample(2)) == 2


def test_what_was_not_drawn_is_not_counted(tmp_path: Path) -> None:
    with opened(tmp_path, samples_per_insert=4.0) as buffer:
        add(buffer, 2)
        assert [len(buffer.sample(6)) for _ in range(2)] == [2, 2]
        assert len(buffer.sample(4, replace=True)) == 4
        with pytest.raises(SampleTimeout):
            buffer.sample(1)


def test_what_is_there_on_opening_counts_as_inserted(tmp_path: Path) -> None:
    with opened(tmp_path) as buffer:
        add(buffer, 5)
    with opened(tmp_path, samples_per_insert=1.0) as buffer:
        assert len(buffer.sample(5)) == 5
        with pytest.raises(SampleTimeout):
            buffer.sample(1)


def test_an_experience_is_drawn_as_often_as_it_may_be_and_found_still(tmp_path: Path) -> None:
    with opened(tmp_path, max_times_sampled=2) as buffer:
        add(buffer, 5)
        drawn = [i for n in range(5) for i in buffer.sample(3, seed=n, content=False).ids]
        assert len(drawn) == 10
        assert {drawn.count(i) for i in drawn} == {2}
        assert len(buffer.sample(5)) == 0
        assert len(buffer.search(visual=[1.0, 1.0], k=9)) == len(buffer) == 5
        # Outcomes and priorities of one that is drawn no more do not bring it back.
        buffer.report_outcome("r", drawn[0], success=True)
        assert buffer.update_priorities([drawn[1]], [9.0], [0]).updated == 1
        assert len(buffer.sample(5)) == 0
        add(buffer, 95)
        assert buffer.remove(drawn[0])
        add(buffer, 20)  # the oldest, drawn or not, give way
        assert len(buffer.sample(100, content=False)) == 100


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"sample_min_size": 101}, "sample_min_size"),
        ({"samples_per_insert": 5.0, "max_times_sampled": 4}, "samples_per_insert"),
        ({"samples_per_insert": 0.0}, "samples_per_insert"),
        ({"max_times_sampled": 0}, "max_times_sampled"),
        ({"sample_timeout_s": -1.0}, "sample_timeout_s"),
    ],
)
def test_limits_that_can_never_be_met_are_refused(
    tmp_path: Path, limits: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidConfig) as refused:
        opened(tmp_path, **limits)
    assert refused.value.field == field


def test_a_look_at_the_past_knows_no_limits(tmp_path: Path) -> None:
    with opened(tmp_path, sample_min_size=10) as buffer:
        add(buffer, 4)
        with buffer.at(buffer.stats().positions) as past:
            assert len(past.sample(2)) == 2


def test_a_client_is_told_too_within_its_own_deadline(tmp_path: Path) -> None:
    config = BufferConfig(sample_min_size=10, sample_timeout_s=60.0, faiss_backend="cpu")
    log = open_log(f"file:{tmp_path}", create=True)
    server = IndexServer(lambda: Engine(log, MemoryStore(), config.index_options()), log)
    try:
        server.start()
        server.recover()
        with Client(server.address) as client:
            started = time.monotonic()
            with pytest.raises(SampleTimeout, match="min_size 10, have 0") as refused:
                client.sample(3, timeout_s=2.0)
            assert refused.value.wanted == 10
            assert time.monotonic() - started < 30
    finally:
        server.close(1.0)
        log.close()
