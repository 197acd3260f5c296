from __future__ import annotations

import sys
import threading
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.consumers import Materializer, MemoryStore
from relive.errors import InvalidConfig, LogUnavailable, MissingExtra
from relive.log import Bounds
from relive.log.memory import MemoryLog
from relive.metrics import MetricsCollector, MetricsServer, metrics_text
from relive.producers import Publisher

CPU = BufferConfig(faiss_backend="cpu")


def registry_of(collector: MetricsCollector) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


def test_a_program_can_add_its_buffer_and_its_publisher_to_its_own_registry(
    tmp_path: Path,
) -> None:
    with ExperienceBuffer.open(tmp_path, CPU) as buffer, Publisher(MemoryLog()) as publisher:
        registry = registry_of(MetricsCollector(buffer, publisher))
        buffer.add(Experience(id="x", visual=[1.0, 2.0]))
        found = buffer.search(visual=[1.0, 2.0], k=1)
        buffer.report_outcome(found.retrieval_id, "x", success=True)
        buffer.flush()
        publisher.publish(Experience(visual=[1.0])).result(30)
        publisher.flush()
        for name, value in {
            "relive_experiences": 1,
            "relive_outcomes_total": 1,
            "relive_success_rate": 1,
            "relive_append_seconds_count": 2,
            "relive_search_seconds_count": 1,
            "relive_freshness_seconds_count": 4,  # with the settings, and the search
            "relive_publisher_acknowledged_total": 1,
            "relive_publisher_queue_events": 0,
        }.items():
            assert registry.get_sample_value(name) == value, name
        assert registry.get_sample_value("relive_lag_events", {"partition": "0"}) == 0


def test_two_of_a_kind_are_told_from_each_other_by_name(tmp_path: Path) -> None:
    with (
        ExperienceBuffer.open(tmp_path / "a", CPU) as train,
        ExperienceBuffer.open(tmp_path / "b", CPU) as test,
    ):
        train.add(Experience(visual=[1.0]))
        registry = registry_of(MetricsCollector(train=train, test=test))
        assert registry.get_sample_value("relive_experiences", {"name": "train"}) == 1
        assert registry.get_sample_value("relive_experiences", {"name": "test"}) == 0
        with pytest.raises(InvalidConfig, match="need names"):
            MetricsCollector(train, test)


def test_a_closed_buffer_says_nothing_more(tmp_path: Path) -> None:
    with ExperienceBuffer.open(tmp_path, CPU) as buffer:
        collector = MetricsCollector(buffer)
        assert "relive_folding 1.0" in metrics_text(collector)
    assert metrics_text(collector) == ""


def test_what_has_no_metrics_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="nothing that has metrics"):
        MetricsCollector(object())


class SilentLog(MemoryLog):
    """Its end cannot be looked up: each try waits, then fails."""

    def __init__(self) -> None:
        super().__init__()
        self.silent = False
        self.again = threading.Event()

    def bounds(self, partition: int) -> Bounds:
        if self.silent:
            self.again.wait(60)
            raise LogUnavailable("no answer")
        return super().bounds(partition)


def test_a_log_that_does_not_answer_holds_no_scrape_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relive.metrics.log_bounds.WAIT_S", 0.01)
    log = SilentLog()
    materializer = Materializer(log, MemoryStore())
    registry = registry_of(MetricsCollector(materializer))
    end = {"partition": "0"}
    assert registry.get_sample_value("relive_log_reachable") == 1
    log.silent = True
    for _ in range(3):
        assert registry.get_sample_value("relive_log_reachable") == 0
        assert registry.get_sample_value("relive_log_end_position", end) == 0
    assert sum(t.name == "relive-metrics-log" for t in threading.enumerate()) == 1
    log.silent = False
    log.again.set()
    monkeypatch.setattr("relive.metrics.log_bounds.WAIT_S", 60.0)
    registry.get_sample_value("relive_log_reachable")  # ends the look that hung
    assert registry.get_sample_value("relive_log_reachable") == 1
    materializer.close()


def test_metrics_are_served_over_http_until_closed(tmp_path: Path) -> None:
    with ExperienceBuffer.open(tmp_path, CPU) as buffer:
        with MetricsServer(MetricsCollector(buffer), "127.0.0.1:0") as server:
            url = f"http://{server.address}/metrics"
            with urllib.request.urlopen(url, timeout=30) as reply:
                text = reply.read().decode()
        assert "relive_experiences 0.0" in text
        assert "process_resident_memory_bytes" in text
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(url, timeout=30)


def test_metrics_stay_on_this_machine_unless_told_otherwise() -> None:
    collector = MetricsCollector()
    for listen in ("0.0.0.0:0", "example.org:0"):
        with pytest.raises(InvalidConfig, match="metrics_insecure_listen"):
            MetricsServer(collector, listen)
        with pytest.raises(InvalidConfig, match="metrics_insecure_listen"):
            BufferConfig(metrics_listen=listen)
    MetricsServer(collector, "0.0.0.0:0", insecure_listen=True).close()
    with pytest.raises(InvalidConfig, match="HOST:PORT"):
        BufferConfig(metrics_listen="9464")


def test_an_address_in_use_is_named() -> None:
    collector = MetricsCollector()
    with (
        MetricsServer(collector, "127.0.0.1:0") as server,
        pytest.raises(InvalidConfig, match="metrics_listen: cannot be listened on"),
    ):
        MetricsServer(collector, server.address)


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingExtra, match=r"relive\[metrics\]") as raised:
        MetricsCollector()
    assert raised.value.extra == "metrics"
