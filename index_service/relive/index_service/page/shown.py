"""The forms that experiences and events have in JSON."""

from __future__ import annotations

from typing import Any

import orjson

from relive.core.experience import Experience
from relive.index_service.page.past import Look
from relive.schemas import (
    Event,
    ExperiencesRetrieved,
    OutcomeReported,
    PrioritiesUpdated,
    PriorityUpdated,
)
from relive.schemas.events import ExperienceRetired

# What is shown of long texts.
MAX_SHORT, MAX_LONG = 300, 20_000


def short(experience: Experience, most: int = MAX_SHORT) -> dict[str, Any]:
    return {
        "id": experience.id,
        "question": cut(experience.question, most),
        "final_answer": document_text(experience.final_answer, most),
        "total_reward": experience.total_reward,
        "model_confidence": experience.model_confidence,
        "time_us": experience.timestamp,
        "retrieval_count": experience.retrieval_count,
        "success_count": experience.success_count,
        "success_rate": experience.success_rate,
        "priority": experience.priority,
    }


def document_text(document: Any, most: int) -> str:
    """A document as text: the browser's numbers are not exact above 2**53."""
    if isinstance(document, str):
        return cut(document, most)
    option = orjson.OPT_INDENT_2 if most > MAX_SHORT else None
    return cut(orjson.dumps(document, option=option).decode("utf-8"), most)


def cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def event_shown(event: Event, experience_id: str) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "type": type(event).__name__,
        "event_time_us": event.event_time_us,
        "source": event.source,
    }
    if isinstance(event, ExperiencesRetrieved):
        shown |= {
            "retrieval_id": event.retrieval_id,
            "kind": event.kind,
            "score": event.scores[event.experience_ids.index(experience_id)],
            "seed": None if event.seed is None else str(event.seed),
        }
    elif isinstance(event, OutcomeReported):
        shown |= {
            "retrieval_id": event.retrieval_id,
            "success": event.success,
            "reward": event.reward,
            "revision": event.revision,
        }
    elif isinstance(event, PriorityUpdated):
        shown |= {"priority": event.priority, "expected_version": event.expected_version}
    elif isinstance(event, PrioritiesUpdated):
        # Of several of one experience, the last.
        at = len(event.experience_ids) - 1 - event.experience_ids[::-1].index(experience_id)
        shown |= {
            "priority": event.priorities[at],
            "expected_version": event.expected_versions[at],
        }
    elif isinstance(event, ExperienceRetired):
        shown |= {"reason": event.reason}
    return shown


def progress(look: Look) -> dict[str, Any]:
    """Whether there is more to look at, and from where."""
    before = ",".join(f"{partition}:{at}" for partition, at in sorted(look.positions.items()))
    return {
        "complete": look.complete,
        "trimmed": look.trimmed,
        "before": None if look.complete else before,
    }
