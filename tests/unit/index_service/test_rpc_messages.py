from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from relive.core.experience import Experience
from relive.core.results import SampleBatch, SampledItem
from relive.core.stored_experience import StoredExperience
from relive.index_service.rpc_messages import DECODED, sample_batch, sample_reply
from relive.producers.compose import Composer
from relive.schemas import encode

RECORDED = Experience(
    id="x",
    visual=[0.5, 1.5],
    question="why?",
    trajectory=[{"action": 1}],
    final_answer={"a": None},
    metadata={"k": [1, 2.5]},
    initial_priority=0.0,
    step=3,
    episode_id="e",
    timestamp=7,
)


@pytest.fixture
def batch() -> SampleBatch:
    record = encode(Composer("test").experience(RECORDED))
    stored = StoredExperience("x", record, 4, 3, 0.75, 1.25)
    return SampleBatch("r", (SampledItem("x", 0.5, 1.0, stored, 2, 9),), {0: 10}, 1, 2.0, ids=["x"])


def told(experience: Experience) -> dict[str, Any]:
    return {**asdict(experience), "visual": None}


@pytest.mark.parametrize("schemas", [DECODED, (), (12345,)], ids=["known", "none", "others"])
def test_experiences_come_as_records_only_where_the_client_decodes_them(
    batch: SampleBatch, schemas: tuple[int, ...]
) -> None:
    reply = sample_reply(batch, schemas)

    (sent,) = reply.items
    assert sent.experience.HasField("record") is (schemas == DECODED)
    assert sent.experience.HasField("visual") is (schemas != DECODED)
    assert (sent.experience.id, sent.experience.priority) == ("x", 1.25)
    (item,) = sample_batch(reply, True)
    (expected,) = batch
    assert (item.id, item.version, item.position) == ("x", 2, 9)
    assert np.array_equal(np.asarray(item.experience.visual), [0.5, 1.5])
    assert told(item.experience) == told(expected.experience)
    assert item.experience.metadata == RECORDED.metadata


def test_what_was_looked_at_is_stored_no_longer(batch: SampleBatch) -> None:
    (item,) = batch
    assert item.stored is not None
    assert item.experience.retrieval_count == 4
    assert item.stored is None
    (sent,) = sample_reply(batch, DECODED).items
    assert not sent.experience.HasField("record")
