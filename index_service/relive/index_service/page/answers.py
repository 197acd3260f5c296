"""The answers of the page, as objects for JSON. docs/page.md describes each.

No more than one of them is computed at a time, and those that everybody asks for are kept for a
moment: however many look, searches over RPC compete with one thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from relive.core.experience import Experience, checked_id, experience_from
from relive.core.filter import Filter
from relive.core.partition import partition_of
from relive.core.row import Row
from relive.errors import (
    ConsumerStopped,
    InvalidQuery,
    Overloaded,
    ServiceUnavailable,
    UnknownExperience,
    UnknownRetrieval,
)
from relive.index_service.engine import Engine
from relive.index_service.page import past
from relive.index_service.page.charts import histogram, success_by_time, within
from relive.index_service.page.kept import Kept
from relive.index_service.page.messages import Request
from relive.index_service.page.observed import Observer
from relive.index_service.page.plane import plane_of
from relive.index_service.page.requests import Answer
from relive.index_service.page.rows import newest, spread
from relive.index_service.page.shown import (
    MAX_LONG,
    MAX_SHORT,
    document_text,
    event_shown,
    progress,
    short,
)
from relive.log import EventLog
from relive.schemas import ExperiencesRetrieved, OutcomeReported

MAX_K = 100
# Experiences whose questions are read for words, newest first, and for how long.
_READ, _READ_S, _READ_AT_ONCE = 5_000, 0.5, 100
# Of a retrieval.
_MAX_ITEMS = 200

_STATE_S, _CHARTS_S, _MAP_S = 1.0, 5.0, 5.0
# A request waits so long for those before it.
_TURN_S = 5.0

_SEARCH_FIELDS = ("like", "visual", "text", "words", "k", "filter", "min_score", "record")
_FILTER_FIELDS = tuple(Filter.__dataclass_fields__)


class Answers:
    """Makes the answers.

    Args:
        engine: the engine, once it serves.
        phase: of the server.
        calls_shed: calls over RPC that were refused because there were too many.
        log: the engine's.
        observer: knows how far the engine is behind.
        clock_us: microseconds since the epoch.
    """

    def __init__(
        self,
        engine: Callable[[], Engine | None],
        phase: Callable[[], str],
        calls_shed: Callable[[], int],
        log: EventLog,
        observer: Observer,
        clock_us: Callable[[], int],
    ) -> None:
        self._engine = engine
        self._phase = phase
        self._calls_shed = calls_shed
        self._event_log = log
        self._observer = observer
        self._clock_us = clock_us
        self._turn = threading.Lock()
        self._state = Kept(self._state_now, _STATE_S)
        self._charts = Kept(self._charts_now, _CHARTS_S)
        self._map = Kept(self._map_now, _MAP_S)

    def routes(self) -> Mapping[tuple[str, str], Answer]:
        """What is answered where."""
        return {
            ("GET", "/api/state"): lambda request: self._state.value(),
            ("GET", "/api/charts"): lambda request: self._charts.value(),
            ("GET", "/api/map"): lambda request: self._map.value(),
            ("POST", "/api/search"): self._search,
            ("GET", "/api/experience"): self._experience,
            ("GET", "/api/history"): self._history,
            ("GET", "/api/retrieval"): self._retrieval,
        }

    @contextmanager
    def _computing(self) -> Iterator[Engine]:
        """A turn, and the engine, which is not left behind.

        Raises:
            ServiceUnavailable, ConsumerStopped: there is none such.
            Overloaded: others take their turns.
        """
        engine = self._engine()
        if engine is None:
            raise ServiceUnavailable(f"the service is {self._phase()}")
        if engine.stopped is not None:
            raise ConsumerStopped(f"folding has stopped: {engine.stopped}")
        if not self._turn.acquire(timeout=_TURN_S):
            raise Overloaded("others look at the page; try again")
        try:
            yield engine
        finally:
            self._turn.release()

    # At a glance

    def _state_now(self) -> dict[str, Any]:
        engine = self._engine()
        if engine is None:
            return {"phase": self._phase(), "now_us": self._clock_us()}
        stats = replace(engine.stats(), calls_shed=self._calls_shed())
        lag = self._observer.lag or self._observer.look(engine)
        known, rate = engine.success_rate()
        settings = engine.settings
        fresh = engine.looks.freshness()
        return {
            "phase": self._phase(),
            "now_us": self._clock_us(),
            "stopped": None if engine.stopped is None else str(engine.stopped),
            "stats": asdict(stats),
            "lag": {
                "events": sum(lag.events.values()),
                "behind_s": lag.behind_s,
                "partitions": lag.events,
                "problem": lag.problem,
            },
            "freshness": {
                "events": fresh.count,
                "half_within_s": within(fresh, 0.5),
                "most_within_s": within(fresh, 0.99),
            },
            "success": {"known": known, "rate": rate if known else None},
            "settings": {
                "eviction_policy": settings.eviction_policy.value,
                "visual_dim": settings.visual_dim,
                "text_dim": settings.text_dim,
                "similarity_metric": engine.options.metric.value,
                "hybrid_mode": engine.options.mode.value,
                "record_retrievals": engine.options.record_retrievals,
            },
            "partitions": {"all": engine.partitions, "answered": engine.readable},
            "trend": [point._asdict() for point in self._observer.points],
        }

    def _charts_now(self) -> dict[str, Any]:
        with self._computing() as engine:
            priorities = engine.looks.priorities(self._clock_us())
            outcomes = engine.looks.outcomes()
        return {
            "priorities": {
                "bars": histogram(priorities.values),
                "shown": len(priorities.values),
                "of": priorities.live,
            },
            "success": {
                "bars": success_by_time(outcomes.event_time_us, outcomes.success_rate),
                "shown": len(outcomes.event_time_us),
                "of": len(engine),
            },
        }

    def _map_now(self) -> dict[str, Any]:
        with self._computing() as engine:
            view = engine.looks.view()
            keys, embeddings = spread(view)
            rows = engine.looks.rows(keys)
            there = [at for at, row in enumerate(rows) if row is not None]
            plane = plane_of(embeddings[there])
            greatest = float(np.abs(plane.points).max(initial=0.0)) or 1.0
            points = np.round(plane.points / greatest, 4)
        live = [row for row in rows if row is not None]
        return {
            "ids": [row.experience_id for row in live],
            "x": points[:, 0].tolist(),
            "y": points[:, 1].tolist(),
            "success_rate": [row.success_rate if row.outcome_count else None for row in live],
            "retrievals": [row.retrieval_count for row in live],
            "shares": plane.shares,
            "shown": len(live),
            "of": view.size,
            "width": view.space.width,
            "epoch": view.epoch,
        }

    # Search

    def _search(self, request: Request) -> dict[str, Any]:
        asked = request.json()
        _check_fields("request", asked, _SEARCH_FIELDS)
        k = asked.get("k", 10)
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MAX_K:
            raise InvalidQuery("k", k, f"must be a whole number from 1 to {MAX_K}")
        record = asked.get("record", False)
        if not isinstance(record, bool):
            raise InvalidQuery("record", record, "must be true or false")
        wanted = _filter(asked.get("filter"))
        ways = [name for name in ("like", "words") if asked.get(name) is not None]
        if asked.get("visual") is not None or asked.get("text") is not None:
            ways.append("visual, text")
        if len(ways) != 1:
            raise InvalidQuery("like, words, visual, text", ways or None, "give one of these")
        if ways == ["words"]:
            if record or asked.get("min_score") is not None:
                raise InvalidQuery("record, min_score", None, "are for searches by similarity")
            return self._search_words(asked["words"], k, wanted)
        with self._computing() as engine:
            if ways == ["like"]:
                known = engine.get(checked_id("like", asked["like"]))
                if known is None:
                    raise UnknownExperience(asked["like"])
                visual, text = known.visual, known.text
            else:
                visual, text = asked.get("visual"), asked.get("text")
            result = engine.search(
                visual=visual,
                text=text,
                k=k,
                filter=wanted,
                min_score=asked.get("min_score"),
                recorded=record,
            )
            hits = [{"score": hit.score, **short(hit.experience)} for hit in result]
        return {
            "retrieval_id": result.retrieval_id if record else None,
            "recorded": record and engine.options.record_retrievals,
            "epoch": result.epoch,
            "approximate": result.approximate,
            "degraded": result.degraded,
            "hits": hits,
            "looked_at": None,
        }

    def _search_words(self, words: object, k: int, wanted: Filter | None) -> dict[str, Any]:
        """The newest experiences whose question has some words as they are."""
        if not isinstance(words, str) or len(words) > MAX_SHORT:
            raise InvalidQuery("words", words, f"must be text of at most {MAX_SHORT} characters")
        needle = words.casefold()
        hits: list[dict[str, Any]] = []
        looked_at = 0
        with self._computing() as engine:
            view = engine.looks.view(wanted)
            keys = newest(view, _READ)
            stops = time.monotonic() + _READ_S
            now_us = self._clock_us()
            for start in range(0, len(keys), _READ_AT_ONCE):
                some = keys[start : start + _READ_AT_ONCE]
                found = engine.looks.records(some)
                found.sort(key=lambda each: (-each[0].position, each[0].partition))
                for row, event in found:
                    looked_at += 1
                    if needle in event.question.casefold():
                        experience = _experience_of(engine, row, event, now_us)
                        hits.append({"score": None, **short(experience)})
                        if len(hits) == k:
                            break
                if len(hits) == k or time.monotonic() >= stops:
                    break
        return {
            "retrieval_id": None,
            "recorded": False,
            "epoch": view.epoch,
            "approximate": looked_at < view.size,
            "degraded": False,
            "hits": hits,
            "looked_at": {"experiences": looked_at, "of": view.size},
        }

    # One experience, one retrieval

    def _experience(self, request: Request) -> dict[str, Any]:
        experience_id = _id(request, "id")
        with self._computing() as engine:
            experience, row = engine.get(experience_id), engine.row(experience_id)
            if experience is None or row is None:
                raise UnknownExperience(experience_id)
            now_us = self._clock_us()
            factors = engine.looks.factors(row, now_us)
            priorities = engine.looks.priorities(now_us)
        mean = float(priorities.values.mean()) if len(priorities.values) else 0.0
        share = factors.priority / (mean * priorities.live) if mean > 0 else None
        return {
            **short(experience, MAX_LONG),
            "trajectory": document_text(experience.trajectory, MAX_LONG),
            "metadata": document_text(experience.metadata, MAX_LONG),
            "final_answer": document_text(experience.final_answer, MAX_LONG),
            "input_uri": experience.input_uri,
            "input_sha256": experience.input_sha256 and experience.input_sha256.hex(),
            "initial_priority": experience.initial_priority,
            "episode_id": experience.episode_id,
            "step": experience.step,
            "visual_dim": None if experience.visual is None else np.size(experience.visual),
            "text_dim": None if experience.text is None else np.size(experience.text),
            "partition": row.partition,
            "position": row.position,
            "version": row.version,
            "outcome_count": row.outcome_count,
            "factors": asdict(factors),
            "share": share,
            "share_is_exact": len(priorities.values) == priorities.live,
        }

    def _history(self, request: Request) -> dict[str, Any]:
        experience_id = _id(request, "id")
        before = _positions(request)
        with self._computing() as engine:
            row = engine.row(experience_id)
            partition = partition_of(experience_id, engine.partitions)
            if partition not in engine.readable:
                engine.get(experience_id)  # says so
            look = past.history(
                self._event_log,
                experience_id,
                partition,
                before.get(partition),
                0 if row is None else row.position,
            )
        return {
            "events": [
                {
                    "partition": each.record.partition,
                    "position": each.record.position,
                    "time_us": each.record.time_us,
                    **event_shown(each.event, experience_id),
                }
                for each in look.events
            ],
            **progress(look),
        }

    def _retrieval(self, request: Request) -> dict[str, Any]:
        retrieval_id = _id(request, "id")
        before = _positions(request)
        with self._computing() as engine:
            look = past.retrieval(self._event_log, retrieval_id, before, engine.readable)
            if not look.events and look.complete and not before:
                raise UnknownRetrieval(retrieval_id)
            events = [each.event for each in look.events]
            returned = [e for e in events if isinstance(e, ExperiencesRetrieved)]
            scores = {
                experience_id: score
                for event in returned
                for experience_id, score in zip(event.experience_ids, event.scores, strict=True)
            }
            outcomes: dict[str, OutcomeReported] = {}
            for event in events:
                if isinstance(event, OutcomeReported):
                    known = outcomes.get(event.experience_id)
                    if known is None or _order(event) > _order(known):
                        outcomes[event.experience_id] = event
            first = returned[0] if returned else None
            at_us = self._clock_us() if first is None else first.event_time_us
            ids = sorted({*scores, *outcomes}, key=lambda i: (-scores.get(i, -np.inf), i))
            items = [
                _item(engine, i, scores.get(i), outcomes.get(i), at_us) for i in ids[:_MAX_ITEMS]
            ]
        return {
            "retrieval_id": retrieval_id,
            "kind": first and first.kind,
            "seed": None if first is None or first.seed is None else str(first.seed),
            "time_us": first and first.event_time_us,
            "source": first and first.source,
            "positions": dict(enumerate(first.positions)) if first else None,
            "items": items,
            "of": len(ids),
            **progress(look),
        }


def _positions(request: Request) -> dict[int, int]:
    """`before`, as `progress` wrote it."""
    text = request.parameters.get("before", "")
    found = {}
    for pair in filter(None, text.split(",")):
        partition, _, position = pair.partition(":")
        if not all(n.isascii() and n.isdigit() and len(n) < 19 for n in (partition, position)):
            raise InvalidQuery("before", text, "must be PARTITION:POSITION,…")
        found[int(partition)] = int(position)
    return found


def _id(request: Request, name: str) -> str:
    if name not in request.parameters:
        raise InvalidQuery(name, None, "is missing")
    return checked_id(name, request.parameters[name])


def _filter(given: object) -> Filter | None:
    if given is None:
        return None
    if not isinstance(given, dict):
        raise InvalidQuery("filter", given, "must be an object")
    _check_fields("filter", given, _FILTER_FIELDS)
    return Filter(**given)


def _check_fields(name: str, given: Mapping[str, object], known: Sequence[str]) -> None:
    for field in given:
        if field not in known:
            raise InvalidQuery(name, field, f"no such field; known: {', '.join(known)}")


def _item(
    engine: Engine,
    experience_id: str,
    score: float | None,
    outcome: OutcomeReported | None,
    at_us: int,
) -> dict[str, Any]:
    row = engine.row(experience_id)
    return {
        "id": experience_id,
        "score": score,
        "factors": None if row is None else asdict(engine.looks.factors(row, at_us)),
        "outcome": None
        if outcome is None
        else {"success": outcome.success, "reward": outcome.reward, "revision": outcome.revision},
        "now": None
        if row is None
        else {"retrieval_count": row.retrieval_count, "success_count": row.success_count},
    }


def _order(outcome: OutcomeReported) -> tuple[int, bool, float]:
    """The order of the fold's registers."""
    reward = float("-inf") if outcome.reward is None else outcome.reward
    return outcome.revision, outcome.success, reward


def _experience_of(engine: Engine, row: Row, event: Any, now_us: int) -> Experience:
    return experience_from(
        event,
        retrieval_count=row.retrieval_count,
        success_count=row.success_count,
        success_rate=row.success_rate,
        priority=engine.looks.factors(row, now_us).priority,
    )
