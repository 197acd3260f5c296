"""Commands that look at what happened: explain, top, diff."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from relive.cli.moment import parsed_moment
from relive.cli.options import AsJson, At, ConfigFile, Flags, OtherLog, Target, way_in
from relive.cli.output import print_result
from relive.cli.reads import content, table
from relive.cli.target import (
    Place,
    parsed_target,
    place_of_log,
    reading,
    replay_shown,
    snapshot_state,
)
from relive.consumers import Materializer, StateStore, log_at
from relive.consumers.difference import StateDifference, difference
from relive.consumers.explanation import ExplainedItem, FoundRetrieval, explained, find_retrieval
from relive.core.sampling import Strategy
from relive.errors import InvalidConfig, LogGap, UnknownRetrieval
from relive.log import EventLog, LogPrefix, log_now, open_log


def explain(
    target: Target,
    retrieval_id: Annotated[str, typer.Argument(metavar="RETRIEVAL_ID")],
    log: OtherLog = None,
    as_json: AsJson = False,
) -> None:
    """Why a search or a sample returned what it did, and what has come of it.

    It reads the whole log. Exit code 1 if nothing in it cites the retrieval.

    Example: relive explain ./buffer 0f8a5be1c6c74d0b9c1f1e0f7a6d3c21
    """
    with _log_of(target, log) as (place, event_log):
        present = log_now(event_log)
        found = find_retrieval(present, retrieval_id)
        if not found.found:
            raise UnknownRetrieval(retrieval_id)
        then = _state_then(place, event_log, found)
        now = replay_shown(present, _start(place, present))
        try:
            items = explained(found, then.states if then else None, now.states)
        finally:
            now.close()
            if then is not None:
                then.close()
    print_result(as_json, _explanation(found, items), _explanation_text(found, items))


@way_in
def top(
    target: Target,
    n: Annotated[int, typer.Option("-n", help="how many")] = 10,
    at: At = None,
    log: OtherLog = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
    *,
    flags: Flags,
) -> None:
    """The experiences of highest priority. A service counts it as a retrieval, a look doesn't.

    Example: relive top ./buffer -n 20
    """
    with reading(target, log, at, config, flags) as reads:
        batch = reads.sample(n, strategy=Strategy.HIGHEST_PRIORITY.value)
    items = [content(item.experience) for item in batch]
    columns = ("priority", "retrieval_count", "success_rate", "id", "question", "final_answer")
    print_result(
        as_json,
        {"positions": batch.positions, "now": batch.now, "items": items},
        table(columns, items),
    )


def diff(
    target: Target,
    before: Annotated[str, typer.Argument(metavar="POSITION|TIME")],
    after: Annotated[str, typer.Argument(metavar="POSITION|TIME")],
    log: OtherLog = None,
    as_json: AsJson = False,
) -> None:
    """What changed in a buffer between two positions or times.

    Example: relive diff ./buffer 120 180
    """
    with _log_of(target, log) as (place, event_log):
        states = []
        try:
            for field, text in (("before", before), ("after", after)):
                past = log_at(event_log, parsed_moment(field, text))
                states.append(replay_shown(past, _start(place, past)))
            found = difference(states[0].states, states[1].states)
            positions = [state.positions() for state in states]
        finally:
            for state in states:
                state.close()
    print_result(
        as_json,
        {"before": positions[0], "after": positions[1], **asdict(found)},
        _difference_text(found),
    )


@contextmanager
def _log_of(target: str, log: str | None) -> Iterator[tuple[Place, EventLog]]:
    place = parsed_target(target, log)
    if isinstance(place, str):
        if log is None:
            raise InvalidConfig("log", None, f"name the log that {place} follows")
        place = place_of_log(log)
    event_log = open_log(place.log)
    try:
        yield place, event_log
    finally:
        event_log.close()


def _start(place: Place, past: LogPrefix) -> StateStore:
    return snapshot_state(place, past)


def _state_then(place: Place, log: EventLog, found: FoundRetrieval) -> Materializer | None:
    """The state at the positions of a retrieval; None where the log no longer gives it."""
    if found.kind is None:
        return None
    try:
        past = log_at(log, found.positions)
        return replay_shown(past, _start(place, past))
    except LogGap:
        return None


def _explanation(found: FoundRetrieval, items: list[ExplainedItem]) -> dict[str, Any]:
    return {
        "retrieval_id": found.retrieval_id,
        "kind": found.kind,
        "seed": found.seed,
        "now": found.time_us / 1e6,
        "positions": found.positions,
        "items": [
            {
                "id": item.id,
                "score": item.score,
                "then": asdict(item.then) if item.then else None,
                "outcome": asdict(item.outcome) if item.outcome else None,
                "now": {
                    "position": f"{item.now.partition}:{item.now.position}",
                    "retrieval_count": item.now.retrieval_count,
                    "success_count": item.now.success_count,
                    "success_rate": item.now.success_rate,
                }
                if item.now
                else None,
            }
            for item in items
        ],
    }


def _explanation_text(found: FoundRetrieval, items: list[ExplainedItem]) -> str:
    if found.kind is None:
        head = "retrieval not recorded; outcomes cite it"
    else:
        when = datetime.fromtimestamp(found.time_us / 1e6, UTC).isoformat()
        seed = "" if found.seed is None else f", seed {found.seed}"
        head = f"{found.kind} at {when}, positions {found.positions}{seed}"
    rows = []
    for item in items:
        then = asdict(item.then) if item.then else {}
        outcome = item.outcome
        rows.append(
            {
                "id": item.id,
                "score": _shown(item.score),
                **{name: _shown(then.get(name)) for name in _FACTORS},
                "outcome": "pending" if outcome is None else _said(outcome.success),
                "now": "gone"
                if item.now is None
                else f"{item.now.success_count}/{item.now.retrieval_count}",
            }
        )
    return f"{head}\n" + table(("id", "score", *_FACTORS, "outcome", "now"), rows)


_FACTORS = ("given", "confidence", "reward", "age", "floored", "value", "priority")


def _shown(value: object) -> object:
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else value


def _said(success: bool) -> str:
    return "success" if success else "failure"


def _difference_text(found: StateDifference) -> str:
    lines = [f"+ {i}" for i in found.added] + [f"- {i}" for i in found.removed]
    for experience_id, fields in found.changed.items():
        lines.append(f"~ {experience_id} " + _changes_text(fields))
    for what, changes in (("counters", found.counters), ("settings", found.settings)):
        if changes:
            lines.append(f"{what}: " + _changes_text(changes))
    return "\n".join(lines) or "nothing differs"


def _changes_text(changes: dict[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{name} {old} → {new}" for name, (old, new) in changes.items())
