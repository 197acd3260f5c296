"""Publishes an experience to a log and searches for it at a service, within a span of its own.

publishing_and_searching.py LOG SERVICE
"""

import sys

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from relive.buffer import BufferConfig, Experience
from relive.client import Client
from relive.producers import Publisher

log, service = sys.argv[1:]
mine = TracerProvider().get_tracer("an agent")
with (
    Publisher(log) as publisher,
    Client(service, BufferConfig()) as client,
    Client(service, BufferConfig(), monotonic_reads=True) as client_of_replicas,
):
    with mine.start_as_current_span("acting") as acting:
        token = publisher.publish(Experience(id="traced", visual=[-1.0, 0.5, 0.0])).result(30)
        client.search(visual=[-1.0, 0.5, 0.0], k=1, min_positions=token)
        client_of_replicas.sample(1)
    assert trace.get_current_span() is trace.INVALID_SPAN
sys.stdout.write(f"{acting.get_span_context().trace_id:032x}\n")
