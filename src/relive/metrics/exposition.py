"""From readings to what Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any

from relive.errors import InvalidConfig, MissingExtra
from relive.index_service.rpc_address import host_and_port
from relive.index_service.rpc_security import refuse_open_metrics
from relive.measures import Observed
from relive.metrics.catalogue import CATALOGUE, Kind, Metric
from relive.metrics.readings import Reader, Reading

_WITHOUT_NAME = ""


class MetricsCollector:
    """Collects metrics for a `prometheus_client.CollectorRegistry`, when it is scraped.

    One collector is for one registry. Sources that are closed say nothing more.

    Args:
        sources: an ExperienceBuffer, Publisher, IndexServer, Engine, Materializer or Snapshotter;
            of each kind one.
        named: more of them, told from each other by a label `name`.

    Raises:
        MissingExtra: prometheus_client is not installed.
        InvalidConfig: something else, or two of a kind without names.
    """

    def __init__(self, *sources: Any, **named: Any) -> None:
        _prometheus()
        kinds = [type(source) for source in sources]
        for kind in kinds:
            if kinds.count(kind) > 1:
                problem = f"several of {kind.__name__} need names: MetricsCollector(train=…, …)"
                raise InvalidConfig("sources", kinds.count(kind), problem)
        self._readers = [(_WITHOUT_NAME, Reader(source)) for source in sources]
        self._readers += [(name, Reader(source)) for name, source in named.items()]

    def describe(self) -> list[Any]:
        """Nothing: a registry that is told to check names would have to read everything twice."""
        return []

    def collect(self) -> Iterator[Any]:
        """The metric families, each once, as `prometheus_client` has them."""
        found: dict[Metric, list[tuple[str, Reading]]] = {}
        for name, reader in self._readers:
            for reading in reader.read():
                found.setdefault(reading.metric, []).append((name, reading))
        with_name = any(name for name, _ in self._readers)
        for metric in CATALOGUE:
            if metric in found:
                yield _family(metric, found[metric], with_name)


def metrics_text(collector: MetricsCollector) -> str:
    """The metrics as text, as a scrape would get them."""
    prometheus = _prometheus()
    registry = prometheus.CollectorRegistry()
    registry.register(collector)
    return str(prometheus.generate_latest(registry).decode())


class MetricsServer:
    """Serves `/metrics` over HTTP until closed: those of a collector, and of the process.

    Args:
        collector: of the sources.
        listen: HOST:PORT, port 0 for any that is free.
        insecure_listen: listen beyond this machine, though anyone may read there.

    Attributes:
        address: HOST:PORT that it listens on.

    Raises:
        MissingExtra: prometheus_client is not installed.
        InvalidConfig: `listen` makes no sense, cannot be listened on, or would be open to the
            network.
    """

    def __init__(
        self, collector: MetricsCollector, listen: str, *, insecure_listen: bool = False
    ) -> None:
        refuse_open_metrics(listen, insecure_listen)
        host, port = host_and_port("metrics_listen", listen)
        prometheus = _prometheus()
        registry = prometheus.CollectorRegistry()
        registry.register(collector)
        prometheus.ProcessCollector(registry=registry)
        try:
            self._http, self._thread = prometheus.start_http_server(
                port, host.strip("[]"), registry
            )
        except OSError as error:
            problem = f"cannot be listened on: {error}"
            raise InvalidConfig("metrics_listen", listen, problem) from error
        self.address = f"{host}:{self._http.server_port}"

    def close(self) -> None:
        """Stop. Safe to call twice."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _family(metric: Metric, found: list[tuple[str, Reading]], with_name: bool) -> Any:
    from prometheus_client import core

    made = {
        Kind.GAUGE: core.GaugeMetricFamily,
        Kind.COUNTER: core.CounterMetricFamily,
        Kind.HISTOGRAM: core.HistogramMetricFamily,
    }[metric.kind]
    labels = [*(["name"] if with_name else []), *metric.labels]
    family = made(metric.name, metric.meaning, labels=labels)
    for name, reading in found:
        values = [*([name] if with_name else []), *reading.labels]
        if isinstance(reading.value, Observed):
            family.add_metric(values, _buckets(reading.value), reading.value.total)
        else:
            family.add_metric(values, float(reading.value))
    return family


def _buckets(seen: Observed) -> list[tuple[str, float]]:
    """As Prometheus wants them: each counts those before it, too."""
    buckets, count = [], 0
    for bound, more in zip((*map(str, map(float, seen.bounds)), "+Inf"), seen.counts, strict=True):
        count += more
        buckets.append((bound, float(count)))
    return buckets


def _prometheus() -> Any:
    try:
        import prometheus_client
    except ImportError as error:
        raise MissingExtra("metrics", "prometheus_client") from error
    return prometheus_client
