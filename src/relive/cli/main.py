"""The commands. Results go to stdout, progress and problems to stderr."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from relive.cli.demo import run_demo
from relive.config import BufferConfig
from relive.consumers import Materializer, MemoryStore, open_store
from relive.core.settings import EvictionPolicy
from relive.errors import FieldError, InvalidConfig, ReliveError
from relive.log import open_log
from relive.producers.compose import Composer

app = typer.Typer(
    help="Relive: an event-sourced experience buffer for agents that learn online.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
log_app = typer.Typer(help="Make and look at event logs.", no_args_is_help=True)
app.add_typer(log_app, name="log")

LogUrl = Annotated[
    str, typer.Option("--log", help="file:DIRECTORY or kafka://HOST:PORT[,HOST:PORT…]/TOPIC")
]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object")]
StatePath = Annotated[
    Path | None, typer.Option("--path", help="directory of the state; default: persistence_path")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML file; RELIVE_… variables come before it")
]


@app.command()
def demo(
    log: Annotated[str | None, typer.Option("--log", help="a log URL; default: embedded")] = None,
    path: Annotated[Path | None, typer.Option(help="keep the buffer in this directory")] = None,
    picture: Annotated[Path, typer.Option(help="where to draw the learning curve")] = Path(
        "relive-demo.png"
    ),
    as_json: AsJson = False,
) -> None:
    """An agent learns to read digits online; then it is killed, and nothing is lost.

    Example: relive demo --json
    """
    report = run_demo(Console(stderr=True, quiet=as_json), log, path, picture)
    lost = report.experiences - report.recovered
    _print(
        as_json,
        asdict(report),
        f"{report.experiences} images, answers right with the buffer "
        f"{report.accuracy_with_buffer:.1%} (last 500: {report.accuracy_last_500:.1%}), "
        f"without {report.accuracy_without_buffer:.1%}\n"
        f"killed with kill -9 and reopened: {report.recovered} of {report.experiences} "
        f"experiences are there, the state is {'equal' if report.digest_equal else 'NOT equal'}\n"
        f"search p50 {report.search_ms_p50} ms, p99 {report.search_ms_p99} ms; "
        f"durable add p50 {report.add_ms_p50} ms\n"
        f"learning curve: {report.picture}",
    )
    if lost or not report.digest_equal:
        raise typer.Exit(1)


@app.command()
def serve(
    log: LogUrl,
    path: StatePath = None,
    listen: Annotated[str, typer.Option(help="HOST:PORT; port 0 for any")] = "127.0.0.1:50051",
    insecure_listen: Annotated[
        bool, typer.Option("--insecure-listen", help="plaintext beyond this machine")
    ] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Answer searches and samples over RPC until stopped.

    Example: relive serve --log kafka://localhost:9092/experiences --path ./index
    """
    from relive.index_service.server import serve as serve_until_stopped

    settings = BufferConfig.load(config)
    code = serve_until_stopped(
        path or settings.persistence_path,
        settings,
        log=log,
        listen=listen,
        insecure_listen=insecure_listen,
        on_listening=lambda address: _print(
            as_json, {"listening": address}, f"listening on {address}"
        ),
    )
    raise typer.Exit(code)


@app.command()
def materialize(
    log: LogUrl,
    path: StatePath = None,
    config: ConfigFile = None,
    once: Annotated[bool, typer.Option("--once", help="stop at the log's present end")] = False,
    as_json: AsJson = False,
) -> None:
    """Fold the log into durable state, until stopped.

    Example: relive materialize --log kafka://localhost:9092/experiences --path ./state
    """
    settings = BufferConfig.load(config)
    directory = path or settings.persistence_path
    stop = _stop_signal()
    event_log = open_log(log)
    try:
        store = open_store(directory / "state", settings.persistence_backend)
        materializer = Materializer(event_log, store)
        try:
            materializer.catch_up(timeout_s=3_600.0)
            _report_state(materializer, "caught up", as_json)
            if not once:
                materializer.start()
                while not stop.wait(0.5) and materializer.stopped is None:
                    pass
            if materializer.stopped is not None:
                raise materializer.stopped
            materializer.commit()
            _report_state(materializer, "stopped", as_json)
        finally:
            materializer.close()
    finally:
        event_log.close()


@app.command()
def replay(log: LogUrl, as_json: AsJson = False) -> None:
    """Fold the log from its beginning in memory, and print the state's digest.

    Two states are equal if and only if their digests are.

    Example: relive replay --log file:./buffer --json
    """
    event_log = open_log(log)
    try:
        materializer = Materializer(event_log, MemoryStore())
        materializer.catch_up(timeout_s=3_600.0)
        _report_state(materializer, "replayed", as_json)
        materializer.close()
    finally:
        event_log.close()


@app.command()
def stats(
    target: Annotated[str, typer.Argument(help="HOST:PORT of an index service")],
    as_json: AsJson = False,
) -> None:
    """What is in the buffer of an index service.

    Example: relive stats localhost:50051 --json
    """
    from relive.client import Client

    with Client(target) as client:
        report = asdict(client.stats())
    _print(as_json, report, "\n".join(f"{name:18}{value}" for name, value in report.items()))


@app.command()
def health(
    target: Annotated[str, typer.Argument(help="HOST:PORT of an index service")],
    timeout_s: Annotated[float, typer.Option("--timeout")] = 3.0,
    as_json: AsJson = False,
) -> None:
    """Whether an index service is serving; exit code 0 if it is.

    Example: relive health localhost:50051
    """
    from relive.index_service.rpc_health import health as ask

    status = ask(target, timeout_s)
    _print(as_json, {"status": status}, status)
    if status != "SERVING":
        raise typer.Exit(1)


@log_app.command("create")
def create_log(
    url: Annotated[str, typer.Argument(help="file:DIRECTORY or kafka://HOST:PORT/TOPIC")],
    partitions: Annotated[int, typer.Option(min=1, help="fixed for ever")] = 1,
    replication: Annotated[int, typer.Option(min=1, help="copies of each record (Kafka)")] = 1,
    capacity: Annotated[int | None, typer.Option(help="experiences kept")] = None,
    visual_dim: Annotated[int | None, typer.Option(help="dimension of visual embeddings")] = None,
    text_dim: Annotated[int | None, typer.Option(help="dimension of text embeddings")] = None,
    eviction_policy: Annotated[EvictionPolicy | None, typer.Option()] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a log and put settings in force. Safe to run again.

    Example: relive log create kafka://localhost:9092/experiences --partitions 4 --visual-dim 512
    """
    flags = {
        "capacity": capacity,
        "visual_dim": visual_dim,
        "text_dim": text_dim,
        "eviction_policy": eviction_policy,
    }
    settings = BufferConfig.load(config, **{n: v for n, v in flags.items() if v is not None})
    if partitions > 1 and settings.visual_dim is None and settings.text_dim is None:
        raise InvalidConfig(
            "visual_dim, text_dim",
            None,
            "a log of several partitions needs at least one: each partition would let its own "
            "first experience decide",
        )
    event_log = open_log(url, create=True, partitions=partitions, replication=replication)
    try:
        materializer = Materializer(event_log, MemoryStore())
        materializer.catch_up()
        known = materializer.states[0].settings if any(materializer.positions().values()) else None
        wanted = settings.settings(event_log.partitions, known)
        if wanted != known:
            reason = "relive log create"
            event_log.append(Composer().settings_records(wanted, event_log.partitions, reason))
        materializer.close()
        result = {
            "log": url,
            "identity": event_log.identity(),
            "partitions": event_log.partitions,
            "changed": wanted != known,
        }
    finally:
        event_log.close()
    _print(as_json, result, f"{url}: {result['partitions']} partitions, {result['identity']}")


def main() -> NoReturn:
    """The entry point: errors of ours become a line and an exit code."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("relive").setLevel(logging.INFO)
    # librdkafka reports every attempt to connect, hundreds of times while a broker is down.
    logging.getLogger("relive.log.kafka").setLevel(logging.WARNING)
    try:
        app()
    except FieldError as error:
        _fail(error, 2)
    except ReliveError as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def _fail(error: ReliveError, code: int) -> NoReturn:
    if "--json" in sys.argv:
        problem = {"type": type(error).__name__, "message": str(error)}
        if isinstance(error, FieldError):
            problem |= {"field": error.field, "value": error.value}
        sys.stdout.write(json.dumps({"error": problem}) + "\n")
    else:
        sys.stderr.write(f"relive: {type(error).__name__}: {error}\n")
    sys.exit(code)


def _print(as_json: bool, result: dict[str, Any], text: str) -> None:
    sys.stdout.write((json.dumps(result, default=str) if as_json else text) + "\n")
    sys.stdout.flush()


def _report_state(materializer: Materializer, what: str, as_json: bool) -> None:
    with materializer.locked() as states:
        result = {
            "event": what,
            "positions": materializer.positions(),
            "size": sum(state.counters.size for state in states),
            "additions": sum(state.counters.additions for state in states),
            "quarantined": sum(state.counters.quarantined for state in states),
            "digest": materializer.digest(),
        }
    _print(
        as_json,
        result,
        f"{what}: {result['size']} experiences, digest {result['digest']}, "
        f"positions {result['positions']}",
    )


def _stop_signal() -> threading.Event:
    """Set when the process is asked to end."""
    stop = threading.Event()

    def ask(*_: object) -> None:
        stop.set()

    handler: Callable[..., None] = ask
    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGINT, handler)
    return stop


if __name__ == "__main__":
    main()
