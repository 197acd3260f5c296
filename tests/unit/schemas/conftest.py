from pathlib import Path

import pytest

from relive.schemas import (
    BufferCleared,
    Event,
    ExperienceRecorded,
    ExperienceRetired,
    ExperiencesRetrieved,
    OutcomeReported,
    PrioritiesUpdated,
    PriorityUpdated,
    SettingsChanged,
)

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture(scope="session")
def golden_events() -> dict[str, Event]:
    """What the golden bytes of each released schema say, as the current events.

    A new version of a schema adds an entry here and a file there; neither is ever changed.
    """
    return {
        "ExperienceRecorded.v1": ExperienceRecorded(
            event_id=bytes(range(16)),
            source="node-7:42:00c0ffee",
            event_time_us=1_700_000_000_123_456,
            experience_id="x/ü-1",
            visual=b"\x00\x00\x80\x3f\x00\x00\x00\xbf",
            text=None,
            question="what is 2 + 2?",
            input_uri="s3://inputs/1.png",
            input_sha256=bytes(range(32)),
            trajectory='[{"action":"add","reward":0.5}]',
            total_reward=-0.5,
            final_answer='{"ok":true,"n":4}',
            model_confidence=0.875,
            initial_priority=None,
            episode_id="e1",
            step=3,
            metadata="{}",
        ),
        "OutcomeReported.v1": OutcomeReported(
            event_id=b"\xff" * 16,
            source="s",
            event_time_us=0,
            experience_id="x",
            retrieval_id="r",
            success=True,
            reward=1.5,
            revision=-1,
        ),
        "ExperiencesRetrieved.v1": ExperiencesRetrieved(
            event_id=b"\x01" * 16,
            source="s",
            event_time_us=1,
            retrieval_id="r",
            kind="sample",
            experience_ids=("a", "b"),
            scores=(0.25, 0.75),
            seed=2**62,
            positions=(7, 0),
        ),
        "PriorityUpdated.v1": PriorityUpdated(
            event_id=b"\x02" * 16,
            source="s",
            event_time_us=2,
            experience_id="x",
            priority=0.125,
            expected_version=9,
        ),
        "PrioritiesUpdated.v1": PrioritiesUpdated(
            event_id=b"\x07" * 16,
            source="s",
            event_time_us=2,
            experience_ids=("x", "y"),
            priorities=(0.125, 3.0),
            expected_versions=(9, 0),
        ),
        "ExperienceRetired.v1": ExperienceRetired(
            event_id=b"\x03" * 16,
            source="s",
            event_time_us=3,
            experience_id="x",
            reason="wrong label",
        ),
        "BufferCleared.v1": BufferCleared(
            event_id=b"\x04" * 16, source="s", event_time_us=4, reason=""
        ),
        "SettingsChanged.v1": SettingsChanged(
            event_id=b"\x05" * 16,
            source="s",
            event_time_us=5,
            reason="created",
            capacity=10_000,
            eviction_policy="oldest",
            visual_dim=512,
            text_dim=None,
            confidence_weight=0.5,
            reward_weight=0.25,
            age_weight=0.125,
            priority_floor=0.0625,
            half_life_s=604_800.0,
        ),
    }


@pytest.fixture(scope="session")
def golden_bytes() -> dict[str, bytes]:
    """The bytes of each released schema, as once written."""
    return {file.stem: bytes.fromhex(file.read_text()) for file in GOLDEN.glob("*.hex")}
