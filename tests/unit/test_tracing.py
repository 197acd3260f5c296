from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import pytest

from relive import tracing as module
from relive.tracing import tracing

CONFIGURED = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED", CONFIGURED):
        monkeypatch.delenv(name, raising=False)
    module._made.cache_clear()
    yield
    module._made.cache_clear()


def test_there_are_no_traces_without_a_collector() -> None:
    assert tracing() is None


def test_the_standard_variables_turn_traces_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONFIGURED, "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert tracing() is None
    monkeypatch.delenv("OTEL_SDK_DISABLED")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert tracing() is None


def test_without_the_extra_it_is_said_once_and_all_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(CONFIGURED, "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with caplog.at_level(logging.WARNING):
        assert tracing() is None
        assert tracing() is None
    (said,) = [r.message for r in caplog.records if r.name == "relive.tracing"]
    assert "relive[tracing]" in said


def test_a_span_that_cannot_be_made_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(CONFIGURED, "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")  # so that nothing is sent
    traces = tracing()
    assert traces is not None
    with caplog.at_level(logging.WARNING):
        traces.published(b"\1" * 16, 0.1, {"a": 1})
        traces.folded([(b"\1" * 16, {"a": 1})], 0.1)
        assert not caplog.records
        traces.published(None, 0.1, {})  # type: ignore[arg-type]
        traces.folded([(b"\1" * 16,)], 0.1)  # type: ignore[list-item]
    assert [r.message for r in caplog.records] == ["a span was lost"] * 2
