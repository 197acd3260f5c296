"""Metrics of the services, where they are asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from relive.config import BufferConfig

_log = logging.getLogger("relive.metrics")


@contextmanager
def metrics_served(settings: BufferConfig, *sources: Any) -> Iterator[None]:
    """Serves the metrics of some sources meanwhile, if the settings say where.

    Raises:
        MissingExtra, InvalidConfig: see `MetricsServer`.
    """
    if settings.metrics_listen is None:
        yield
        return
    from relive.metrics import MetricsCollector, MetricsServer

    with MetricsServer(
        MetricsCollector(*sources),
        settings.metrics_listen,
        insecure_listen=settings.metrics_insecure_listen,
    ) as server:
        _log.info("metrics at http://%s/metrics", server.address)
        yield
