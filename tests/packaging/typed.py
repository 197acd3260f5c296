"""A user's code, checked by mypy against the installed wheel; it is not run."""

from __future__ import annotations

from relive.buffer import BufferConfig, Experience, ExperienceBuffer, Filter
from relive.client import Client
from relive.core.results import BufferStats, SampleBatch, SearchResult, Token
from relive.producers import Publisher


def use(buffer: ExperienceBuffer, client: Client, publisher: Publisher) -> BufferStats:
    token: Token = buffer.add(Experience(visual=[1.0, 2.0], metadata={"lamp": "on"}))
    found: SearchResult = client.search(visual=[1.0, 2.0], k=3, min_positions=token)
    drawn: SampleBatch = buffer.sample(8, seed=7, filter=Filter(min_reward=0.5))
    again: Token = publisher.publish(Experience(visual=[1.0, 2.0])).result(timeout=5.0)
    buffer.report_outcome(found.retrieval_id, drawn[0].id, success=again.position > 0)
    # An ignore that is needed: without types everything would be Any, and it would not be.
    BufferConfig(capacity=10).capacity.upper()  # type: ignore[attr-defined]
    return buffer.stats()
