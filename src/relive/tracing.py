"""Traces for OpenTelemetry: of every experience from `publish` to the fold, and of every read.

On where a collector is configured by the standard environment (`OTEL_EXPORTER_OTLP_ENDPOINT` or
`…_TRACES_ENDPOINT`; `OTEL_TRACES_SAMPLER` says how many), and `relive[tracing]` is installed.

Nothing of it travels in the log. An event's id is 16 random bytes, as a trace's is: so the id of
the event **is** the id of its trace, and its last 8 bytes are the id of the span of publishing it.
Whoever folds the event, on whatever machine, from whatever log, continues its trace. The sampler's
decision depends on the trace's id alone, so that all processes with the same one take the same.

    trace EVENT_ID     relive publish (publisher or buffer)
                       └── relive fold (each process that makes it searchable)
    trace of a reader  relive client search ── relive search (index service) ── relive read
                       with links to the traces of the experiences found
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeAlias

_log = logging.getLogger(__name__)

# Links to what a read found: enough to go on from, and each costs the decoding of a record.
MAX_LINKS = 10

P = ParamSpec("P")
Attributes: TypeAlias = Mapping[str, str | int | float | bool]


def tracing() -> Tracing | None:
    """The traces of this process, or None where no collector is configured.

    Looked up once: a process has one exporter, whatever is open in it.
    """
    wanted = any(os.environ.get(f"OTEL_EXPORTER_OTLP_{name}ENDPOINT") for name in ("", "TRACES_"))
    off = (
        os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or os.environ.get("OTEL_TRACES_EXPORTER", "otlp").lower() != "otlp"
    )
    return _made() if wanted and not off else None


@functools.cache
def _made() -> Tracing | None:
    try:
        return Tracing()
    except ImportError as error:
        # The environment is shared with other programs, and a trace is not worth failing for.
        _log.warning(
            "a collector is configured, and no traces are sent: %s; pip install 'relive[tracing]'",
            error,
        )
        return None


def _span_id(event_id: bytes) -> int:
    """Of publishing an event; never 0, which is none."""
    return int.from_bytes(event_id[8:], "big") or 1


def _harmless(told: Callable[P, None]) -> Callable[P, None]:
    """What is told here of an event must not end the thread that sends or folds it."""

    @functools.wraps(told)
    def tell(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            told(*args, **kwargs)
        except Exception:  # noqa: BLE001 - nothing of it is worth that
            _log.warning("a span was lost", exc_info=True)

    return tell


class Tracing:
    """Makes spans and exports them over OTLP (HTTP), in the background.

    Raises:
        ImportError: the packages are not installed.
    """

    def __init__(self) -> None:
        from opentelemetry import context, propagate, trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

        named = "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        named = named or bool(os.environ.get("OTEL_SERVICE_NAME"))
        self._context, self._propagate, self._trace = context, propagate, trace
        self._ids = _given_ids(RandomIdGenerator)
        # Its own, not the program's: ids are given, and it must not depend on who came first.
        self._provider = TracerProvider(
            resource=Resource.create({} if named else {"service.name": "relive"}),
            id_generator=self._ids,
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("relive")

    # An experience

    @_harmless
    def published(
        self,
        event_id: bytes,
        took_s: float,
        attributes: Attributes,
        error: Exception | None = None,
        caller: Any = None,
    ) -> None:
        """An event was acknowledged, or given up.

        Args:
            event_id: of the event.
            took_s: seconds since it was published.
            attributes: of the span.
            error: why it was given up.
            caller: `here()` of whoever published it; linked to.
        """
        self._ids.give(int.from_bytes(event_id, "big"), _span_id(event_id))
        span = self._tracer.start_span(
            "relive publish",
            self._context.Context(),
            self._trace.SpanKind.PRODUCER,
            dict(attributes),
            [] if caller is None else [self._trace.Link(caller)],
            time.time_ns() - int(took_s * 1e9),
        )
        if error is not None:
            span.record_exception(error)
            span.set_status(self._trace.StatusCode.ERROR, type(error).__name__)
        span.end()

    @_harmless
    def folded(self, events: Iterable[tuple[bytes, Attributes]], took_s: float) -> None:
        """Events were folded together, and can be found.

        Args:
            events: the id of each, and attributes.
            took_s: seconds since the batch was begun.
        """
        ended_ns = time.time_ns()
        started_ns = ended_ns - int(took_s * 1e9)
        for event_id, said in events:
            parent = self._publishing(event_id)
            if not parent.trace_flags.sampled:
                continue
            around = self._trace.set_span_in_context(
                self._trace.NonRecordingSpan(parent), self._context.Context()
            )
            kind = self._trace.SpanKind.CONSUMER
            self._tracer.start_span(
                "relive fold", around, kind, dict(said), start_time=started_ns
            ).end(ended_ns)

    def here(self) -> Any:
        """The caller's span, for `published`; None if it has none."""
        found = self._trace.get_current_span().get_span_context()
        return found if found.is_valid else None

    # A read

    @contextmanager
    def span(self, name: str, attributes: Attributes | None = None) -> Iterator[Any]:
        """A span of work in this process, below the current one. Errors are noted on it."""
        with self._tracer.start_as_current_span(name, attributes=attributes) as span:
            yield span

    @contextmanager
    def calling(self, name: str) -> Iterator[tuple[tuple[str, str], ...]]:
        """A span of a call to a service; gives the headers that carry it there."""
        kind = self._trace.SpanKind.CLIENT
        with self._tracer.start_as_current_span(f"relive client {name}", kind=kind):
            headers: dict[str, str] = {}
            self._propagate.inject(headers)
            yield tuple((key.lower(), value) for key, value in headers.items())

    @contextmanager
    def called(self, name: str, headers: Iterable[tuple[str, Any]]) -> Iterator[None]:
        """A span of a call that is answered, below that of the caller whose headers these are."""
        carried = {key: value for key, value in headers if isinstance(value, str)}
        around = self._propagate.extract(carried, self._context.Context())
        kind = self._trace.SpanKind.SERVER
        with self._tracer.start_as_current_span(f"relive {name}", around, kind):
            yield

    def link(self, span: Any, event_ids: Iterable[bytes]) -> None:
        """Link a span to the traces of some experiences."""
        for event_id in event_ids:
            span.add_link(self._publishing(event_id))

    def _publishing(self, event_id: bytes) -> Any:
        """The span of publishing an event, as the process that did so has it."""
        trace_id = int.from_bytes(event_id, "big")
        sampler: Any = self._provider.sampler
        found = sampler.should_sample(
            self._context.Context(), trace_id, "relive publish", self._trace.SpanKind.PRODUCER
        )
        sampled = self._trace.TraceFlags.SAMPLED if found.decision.is_sampled() else 0
        return self._trace.SpanContext(
            trace_id,
            _span_id(event_id),
            is_remote=True,
            trace_flags=self._trace.TraceFlags(sampled),
        )

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Export what is waiting; whether that was done in time. Also happens at exit."""
        return bool(self._provider.force_flush(int(timeout_s * 1_000)))


def _given_ids(random_ids: Any) -> Any:
    """A generator of ids that are random, but for a next span whose ids are given."""

    class GivenIds(random_ids):  # type: ignore[misc]
        def __init__(self) -> None:
            self._next = threading.local()

        def give(self, trace_id: int, span_id: int) -> None:
            """The next span that this thread starts has these."""
            self._next.ids = trace_id, span_id

        def generate_trace_id(self) -> int:
            given = getattr(self._next, "ids", None)
            return int(super().generate_trace_id() if given is None else given[0])

        def generate_span_id(self) -> int:
            given = getattr(self._next, "ids", None)
            self._next.ids = None
            return int(super().generate_span_id() if given is None else given[1])

    return GivenIds()
