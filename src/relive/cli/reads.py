"""Commands that read a buffer: get, stats, search, sample."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from relive.cli.experience_json import experience_to_json
from relive.cli.filters import parsed_filter
from relive.cli.options import (
    AsJson,
    At,
    ConfigFile,
    Flags,
    MaxConfidence,
    MaxReward,
    MaxSuccessRate,
    MinConfidence,
    MinReward,
    MinSuccessRate,
    OtherLog,
    Since,
    Target,
    Until,
    Where,
    way_in,
)
from relive.cli.output import print_result, to_json
from relive.cli.target import reading
from relive.core.experience import Experience
from relive.core.sampling import Strategy
from relive.errors import InvalidQuery, UnknownExperience


@way_in
def get(
    target: Target,
    experience_id: Annotated[str, typer.Argument(metavar="ID", help="of the experience")],
    at: At = None,
    log: OtherLog = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
    *,
    flags: Flags,
) -> None:
    """One experience with what has come of it; exit code 1 if it is not live.

    Example: relive get ./buffer x1 --at 2026-11-24T10:00
    """
    with reading(target, log, at, config, flags) as reads:
        experience = reads.get(experience_id)
    if experience is None:
        raise UnknownExperience(experience_id)
    shown = experience_to_json(experience)
    lines = []
    for name, value in shown.items():
        if name in ("visual", "text") and value is not None:
            value = f"{len(value)} dimensions"
        if value is not None:
            lines.append(f"{name:18}{value if isinstance(value, str) else to_json(value)}")
    print_result(as_json, shown, "\n".join(lines))


@way_in
def stats(
    target: Target,
    at: At = None,
    log: OtherLog = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
    *,
    flags: Flags,
) -> None:
    """What is in a buffer and what happened to it.

    Example: relive stats localhost:50051 --json
    """
    with reading(target, log, at, config, flags) as reads:
        report = asdict(reads.stats())
    print_result(as_json, report, "\n".join(f"{n:18}{value}" for n, value in report.items()))


@way_in
def search(
    target: Target,
    like: Annotated[
        str | None, typer.Option("--id", help="search for what is like this experience")
    ] = None,
    visual: Annotated[
        Path | None, typer.Option(help="FILE.npy with a visual embedding of shape (dim,)")
    ] = None,
    text: Annotated[
        Path | None, typer.Option(help="FILE.npy with a text embedding of shape (dim,)")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="how many")] = 10,
    min_score: Annotated[float | None, typer.Option(help="leave out lower scores")] = None,
    where: Where = None,
    since: Since = None,
    until: Until = None,
    min_reward: MinReward = None,
    max_reward: MaxReward = None,
    min_confidence: MinConfidence = None,
    max_confidence: MaxConfidence = None,
    min_success_rate: MinSuccessRate = None,
    max_success_rate: MaxSuccessRate = None,
    at: At = None,
    log: OtherLog = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
    *,
    flags: Flags,
) -> None:
    """The nearest experiences. A service counts it as a retrieval, a look at a buffer doesn't.

    Example: relive search ./buffer --id x1 -k 5 --where room=3 --min-reward 0.5
    """
    wanted = parsed_filter(
        where,
        since,
        until,
        min_reward=min_reward,
        max_reward=max_reward,
        min_confidence=min_confidence,
        max_confidence=max_confidence,
        min_success_rate=min_success_rate,
        max_success_rate=max_success_rate,
    )
    if (like is None) == (visual is None and text is None):
        raise InvalidQuery("id, visual, text", None, "give --id, or --visual or --text or both")
    query: dict[str, Any] = {"visual": _vector("visual", visual), "text": _vector("text", text)}
    with reading(target, log, at, config, flags) as reads:
        if like is not None:
            known = reads.get(like)
            if known is None:
                raise UnknownExperience(like)
            query = {"visual": known.visual, "text": known.text}
        result = reads.search(**query, k=k, filter=wanted, min_score=min_score)
    hits = [{"score": hit.score, **content(hit.experience)} for hit in result]
    print_result(
        as_json,
        {
            "retrieval_id": result.retrieval_id,
            "positions": result.positions,
            "epoch": result.epoch,
            "approximate": result.approximate,
            "degraded": result.degraded,
            "hits": hits,
        },
        table(("score", "id", "question", "final_answer"), hits),
    )


@way_in
def sample(
    target: Target,
    n: Annotated[int, typer.Option("-n", help="how many")] = 10,
    seed: Annotated[int | None, typer.Option(help="repeats a sample")] = None,
    now: Annotated[
        float | None,
        typer.Option(help="time of the priorities, seconds since the epoch; default: the present"),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="one may come several times")] = False,
    alpha: Annotated[float, typer.Option(help="exponent of the priorities")] = 1.0,
    beta: Annotated[float, typer.Option(help="exponent of the importance weights")] = 0.0,
    strategy: Annotated[
        Strategy,
        typer.Option(metavar="|".join(Strategy), help="how they are drawn, or which are taken"),
    ] = Strategy.PRIORITIZED,
    where: Where = None,
    since: Since = None,
    until: Until = None,
    min_reward: MinReward = None,
    max_reward: MaxReward = None,
    min_confidence: MinConfidence = None,
    max_confidence: MaxConfidence = None,
    min_success_rate: MinSuccessRate = None,
    max_success_rate: MaxSuccessRate = None,
    at: At = None,
    log: OtherLog = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
    *,
    flags: Flags,
) -> None:
    """Experiences drawn by priority. A service counts it as a retrieval, a look doesn't.

    The same seed and time (--now) give the same sample of the same state (--at).

    Example: relive sample ./buffer -n 5 --seed 7 --now 1800000000 --at 120 --where room=3
    """
    wanted = parsed_filter(
        where,
        since,
        until,
        min_reward=min_reward,
        max_reward=max_reward,
        min_confidence=min_confidence,
        max_confidence=max_confidence,
        min_success_rate=min_success_rate,
        max_success_rate=max_success_rate,
    )
    with reading(target, log, at, config, flags) as reads:
        batch = reads.sample(
            n,
            seed=seed,
            now=now,
            replace=replace,
            alpha=alpha,
            beta=beta,
            strategy=strategy.value,
            filter=wanted,
        )
    items = [
        {"probability": item.probability, "weight": item.weight, **content(item.experience)}
        for item in batch
    ]
    print_result(
        as_json,
        {
            "retrieval_id": batch.retrieval_id,
            "positions": batch.positions,
            "seed": batch.seed,
            "now": batch.now,
            "epoch": batch.epoch,
            "degraded": batch.degraded,
            "items": items,
        },
        table(("probability", "weight", "id", "question", "final_answer"), items),
    )


def content(experience: Experience) -> dict[str, Any]:
    """An experience as JSON, without its vectors."""
    return experience_to_json(experience, vectors=False)


def table(columns: tuple[str, ...], rows: Iterable[dict[str, Any]]) -> str:
    """Columns of dicts as text, one line each, separated by tabs."""
    lines = ["\t".join(columns)]
    for row in rows:
        cells = (row[column] for column in columns)
        lines.append("\t".join(f"{c:.6g}" if isinstance(c, float) else _cell(c) for c in cells))
    return "\n".join(lines)


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else to_json(value)
    return text.translate({9: " ", 10: " ", 13: " "})


def _vector(field: str, file: Path | None) -> Any:
    if file is None:
        return None
    try:
        return np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InvalidQuery(field, str(file), f"cannot be read: {error}") from error
