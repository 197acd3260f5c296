"""Commands that look at what happened: explain, top, diff."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import typer

from relive.cli.moment import parsed_moment
from relive.cli.options import AsJson, At, ConfigFile, Flags, OtherLog, Target, way_in
from relive.cli.output import print_result
from relive.cli.progress import progress
from relive.cli.reads import content, table
from relive.cli.target import (
    Place,
    parsed_target,
    place_of_log,
    reading,
    replay_shown,
    snapshot_state,
)
from relive.client import Client
from relive.config import BufferConfig
from relive.consumers import StateStore, log_at
from relive.consumers.difference import StateDifference, difference
from relive.consumers.explanation import explained, find_retrieval, row_of, state_then
from relive.core.explanation import Explanation
from relive.core.sampling import Strategy
from relive.errors import InvalidConfig
from relive.log import EventLog, LogPrefix, log_now, open_log


@way_in
def explain(
    target: Target,
    retrieval_id: Annotated[
        str, typer.Argument(metavar="RETRIEVAL_ID", help="of a search or a sample")
    ],
    log: OtherLog = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
    *,
    flags: Flags,
) -> None:
    """Why a search or a sample returned what it did, and what has come of it.

    It reads the whole log; a service does so for you, without --log. Exit code 3 if nothing in it
    cites the retrieval.

    Example: relive explain ./buffer 0f8a5be1c6c74d0b9c1f1e0f7a6d3c21
    """
    place = parsed_target(target, log)
    if isinstance(place, str) and log is None:
        with (
            Client(place, BufferConfig.load(config, **flags)) as client,
            progress("waiting for the service", None, lambda: 0),
        ):
            found = client.explain(retrieval_id)
    else:
        found = _explained(target, log, retrieval_id)
    print_result(as_json, _explanation(found), _explanation_text(found))


def _explained(target: str, log: str | None, retrieval_id: str) -> Explanation:
    with _log_of(target, log) as (place, event_log):
        present = log_now(event_log)
        found = find_retrieval(present, retrieval_id)
        then = state_then(
            event_log, found, lambda past: replay_shown(past, snapshot_state(place, past))
        )
        now = replay_shown(present, snapshot_state(place, present))
        try:
            states = now.states
            return explained(found, then.states if then else None, partial(row_of, states))
        finally:
            now.close()
            if then is not None:
                then.close()


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
    before: Annotated[
        str, typer.Argument(metavar="POSITION|TIME", help="as for --at of other commands")
    ],
    after: Annotated[str, typer.Argument(metavar="POSITION|TIME", help="a later one")],
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


def _explanation(found: Explanation) -> dict[str, Any]:
    items = []
    for item in found.items:
        shown = asdict(item)
        if item.now is not None:
            now = shown["now"]
            shown["now"] = {"position": f"{now.pop('partition')}:{now.pop('position')}", **now}
        items.append(shown)
    return {
        "retrieval_id": found.retrieval_id,
        "kind": found.kind,
        "seed": found.seed,
        "now": found.now,
        "positions": found.positions,
        "items": items,
    }


def _explanation_text(found: Explanation) -> str:
    if found.kind is None:
        head = "retrieval not recorded; outcomes cite it"
    else:
        when = datetime.fromtimestamp(found.now, UTC).isoformat()
        seed = "" if found.seed is None else f", seed {found.seed}"
        head = f"{found.kind} at {when}, positions {found.positions}{seed}"
    rows = []
    for item in found.items:
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
