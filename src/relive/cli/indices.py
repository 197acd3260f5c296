"""Commands about the index that searches look into: index status, rebuild, rollback."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from relive.cli.options import AsJson, ConfigFile, Flags, OtherLog, way_in
from relive.cli.output import print_result, to_json
from relive.cli.progress import build_stage, stages
from relive.cli.target import Place, parsed_target
from relive.client import Client
from relive.config import BufferConfig
from relive.consumers import Snapshots, StateDirectory, recovering
from relive.core.results import BufferStats, BuildProgress
from relive.errors import InvalidConfig
from relive.index_service import Engine
from relive.index_service.index_files import IndexDirectory, read_manifest
from relive.log import open_log

index_app = typer.Typer(
    help="Look at the index of a buffer or a service, build it anew, go back to the one before.",
    no_args_is_help=True,
)

Indexed = Annotated[
    str,
    typer.Argument(
        metavar="TARGET", help="HOST:PORT of an index service, or the directory of a buffer"
    ),
]


@index_app.command("status")
@way_in
def status(
    target: Indexed,
    config: ConfigFile = None,
    as_json: AsJson = False,
    *,
    flags: Flags,
) -> None:
    """What searches look into. Of a directory, the published indices; files are only named.

    Example: relive index status localhost:50051
    """
    place = parsed_target(target)
    if isinstance(place, str):
        with Client(place, BufferConfig.load(config, **flags)) as client:
            found = _of_service(client.stats())
    else:
        found = _published(_directory(target, place))
    print_result(as_json, found, _as_text(found))


@index_app.command("rebuild")
@way_in
def rebuild(
    target: Indexed,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="of a service: only ask for it")
    ] = False,
    log: OtherLog = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
    *,
    flags: Flags,
) -> None:
    """Build the index anew beside the one in service, and swap them. Reads and writes go on.

    A service needs a token of the role admin for it, where it has tokens. A directory must not be
    in use: ask the service, or the program, that has it.

    Example: relive index rebuild localhost:50051 --token-file token
    """
    place = parsed_target(target, log)
    settings = BufferConfig.load(config, **flags)
    if isinstance(place, str):
        with Client(place, settings) as client:
            told: deque[BuildProgress] = deque(maxlen=1)
            with stages(lambda: build_stage(told[0] if told else None)):
                client.rebuild_index(wait=not no_wait, told=told.append)
            found = _of_service(client.stats())
    else:
        directory = _directory(target, place)
        with _owned(directory, place, settings) as engine:
            with stages(lambda: build_stage(engine.build_progress)):
                engine.rebuild_index()
            found = _of_service(engine.stats()) | _published(directory)
    print_result(as_json, found, _as_text(found))


@index_app.command("rollback")
@way_in
def rollback(
    target: Indexed,
    log: OtherLog = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
    *,
    flags: Flags,
) -> None:
    """Put the index in service again that the current one took the place of.

    What came since is in it as well. The current one is removed, and for ten minutes no other is
    built unless asked for. Tokens and directories in use as for rebuild.

    Example: relive index rollback localhost:50051 --token-file token
    """
    place = parsed_target(target, log)
    settings = BufferConfig.load(config, **flags)
    if isinstance(place, str):
        with Client(place, settings) as client:
            client.roll_back_index()
            found = _of_service(client.stats())
    else:
        directory = _directory(target, place)
        with _owned(directory, place, settings) as engine:
            engine.roll_back_index()
            found = _of_service(engine.stats()) | _published(directory)
    print_result(as_json, found, _as_text(found))


def _directory(target: str, place: Place) -> Path:
    if place.state is None:
        raise InvalidConfig("target", target, "a log has no index; give a directory or a service")
    return place.state.parent


@contextmanager
def _owned(directory: Path, place: Place, settings: BufferConfig) -> Iterator[Engine]:
    """The engine of a directory that no other process has open.

    Raises:
        StoreInUse: one has.
        LogMissing, LogUnavailable, StateUnrecoverable: it cannot be recovered.
    """
    # Only its lists are wanted; nothing is searched here.
    settings = settings.model_copy(update={"faiss_backend": "cpu"})
    options, snapshots = settings.index_options(directory), settings.snapshot_options(directory)
    state = StateDirectory(directory, settings.persistence_backend, Snapshots(snapshots.directory))
    event_log = open_log(place.log)
    try:
        engine = recovering(
            lambda: state.recover(event_log),
            lambda found: Engine(
                event_log,
                found.store,
                options,
                poison_limit=settings.poison_limit,
                recovered=found,
            ),
        )
        try:
            engine.start()
            yield engine
        finally:
            engine.close()
    finally:
        event_log.close()


def _of_service(stats: BufferStats) -> dict[str, Any]:
    return {
        "epoch": stats.epoch,
        "rows": stats.index_size,
        "backend": stats.backend,
        "index": None if stats.index is None else asdict(stats.index),
    }


def _published(directory: Path) -> dict[str, Any]:
    files = IndexDirectory(directory / "index")
    return {
        "published": _described(files.current),
        "former": _described(files.former),
    }


def _described(found: Callable[[], Path | None]) -> dict[str, Any] | None:
    path = found()
    if path is None:
        return None
    manifest = read_manifest(path)
    lists = manifest.lists
    return {
        "path": str(path),
        "epoch": manifest.epoch,
        "rows": manifest.rows,
        "positions": dict(manifest.positions),
        "lists": None if lists is None else lists.count,
        "recall": None if lists is None else dict(lists.recall),
        "seconds": manifest.seconds,
    }


def _as_text(found: dict[str, Any]) -> str:
    lines = []
    for name, value in found.items():
        inner = {name: value}
        if isinstance(value, dict):
            inner = {f"{name} {key}": each for key, each in value.items()}
        for key, each in inner.items():
            shown = "-" if each is None else each if isinstance(each, str) else to_json(each)
            lines.append(f"{key:24}{shown}")
    return "\n".join(lines)
