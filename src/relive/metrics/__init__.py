"""Metrics for Prometheus: of buffers, publishers, materializers and index services.

    from prometheus_client import CollectorRegistry
    from relive.metrics import MetricsCollector

    registry = CollectorRegistry()
    registry.register(MetricsCollector(buffer, publisher))

docs/metrics.md lists them. Needs `relive[metrics]`.
"""

from relive.metrics.exposition import MetricsCollector, MetricsServer, metrics_text

__all__ = ["MetricsCollector", "MetricsServer", "metrics_text"]
