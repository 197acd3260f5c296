"""The events of the log, their Avro schemas, and the codec between the two."""

from relive.schemas.codec import decode, encode, single_object_schema
from relive.schemas.events import (
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

__all__ = [
    "BufferCleared",
    "Event",
    "ExperienceRecorded",
    "ExperienceRetired",
    "ExperiencesRetrieved",
    "OutcomeReported",
    "PrioritiesUpdated",
    "PriorityUpdated",
    "SettingsChanged",
    "decode",
    "encode",
    "single_object_schema",
]
