"""The dimensions that a log's embeddings have, so that a publisher can refuse others."""

from __future__ import annotations

from relive.core.experience import check_recorded, embedding_dims
from relive.errors import FieldError, InvalidExperience, UndecodableEvent
from relive.log import EventLog
from relive.schemas import ExperienceRecorded, SettingsChanged, decode

# Settings are the first records of a log, and fix the dimensions or leave it to the first
# experience of each kind, which in a log of any length are near its beginning.
_FIRST_RECORDS = 200
_FIRST_WAIT_S = 5.0

_FIELDS = ("visual", "text")


class Dimensions:
    """What is known of a log's dimensions.

    Knows what the beginning of the log says, and then what is told to `fix`. It can know
    less than the fold, which has the last word, but never anything else.
    """

    def __init__(self, log: EventLog) -> None:
        self._known: dict[str, int] = {}
        bounds = log.bounds(0)
        if bounds.first == bounds.end:
            return
        for record in log.read({0: bounds.first}, _FIRST_RECORDS, _FIRST_WAIT_S):
            try:
                event = decode(record.value)
                if isinstance(event, ExperienceRecorded):
                    check_recorded(event)
            except (UndecodableEvent, FieldError):
                continue  # the fold sets it aside
            if isinstance(event, SettingsChanged):
                for field, dim in (("visual", event.visual_dim), ("text", event.text_dim)):
                    if dim is not None:
                        self._known.setdefault(field, dim)
            elif isinstance(event, ExperienceRecorded):
                for field, dim in embedding_dims(event).items():
                    self._known.setdefault(field, dim)

    def check(self, event: ExperienceRecorded) -> None:
        """Refuse an embedding of another dimension.

        Raises:
            InvalidExperience: names the embedding.
        """
        dims = embedding_dims(event)
        if dims.items() <= self._known.items():
            return
        for field, dim in dims.items():
            known = self._known.get(field, dim)
            if dim != known:
                raise InvalidExperience(field, f"{dim} dimensions", f"this log has {known}")

    def fix(self, event: ExperienceRecorded) -> None:
        """An event that was checked is on its way."""
        if len(self._known) < len(_FIELDS):
            self._known.update(embedding_dims(event))
