"""Commands that run, and go on until they are stopped: demo, serve, materialize; and health."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from relive.cli.demo import run_demo
from relive.cli.kept_state import kept_state
from relive.cli.log_format import use_log_format
from relive.cli.options import (
    AsJson,
    ConfigFile,
    Flags,
    LogFormat,
    LogUrl,
    MetricsListen,
    StatePath,
    way_in,
)
from relive.cli.output import print_result, print_state
from relive.cli.stopping import stop_signal
from relive.cli.watching import metrics_served
from relive.config import BufferConfig
from relive.environment import check_environment
from relive.errors import DeadlineExceeded, ServiceUnavailable
from relive.log import open_log, parsed_partitions
from relive.replicas import addresses


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
    print_result(
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


def serve(
    log: LogUrl,
    path: StatePath = None,
    listen: Annotated[str, typer.Option(help="HOST:PORT; port 0 for any")] = "127.0.0.1:50051",
    partitions: Annotated[
        str | None,
        typer.Option(metavar="0-3", help="answer for these only: 0-3 or 0,2,5; default: all"),
    ] = None,
    page: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="serve a page for browsers there; port 0 for any"),
    ] = None,
    insecure_listen: Annotated[
        bool,
        typer.Option(
            "--insecure-listen", help="beyond this machine in plaintext, or open to anyone"
        ),
    ] = False,
    tls_certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="use TLS, and show this certificate (PEM)")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="of that certificate (PEM)")
    ] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="take only clients that these CAs signed (PEM)"),
    ] = None,
    tokens_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="take only calls with one of its tokens; ROLE TOKEN"),
    ] = None,
    metrics_listen: MetricsListen = None,
    log_format: LogFormat = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Answer searches and samples over RPC until stopped.

    Example: relive serve --log kafka://localhost:9092/experiences --path ./index
    --page 127.0.0.1:8080
    """
    from relive.index_service.server import serve as serve_until_stopped

    use_log_format(log_format)
    flags = {
        "metrics_listen": metrics_listen,
        "log_format": log_format,
        "tls_certificate": tls_certificate,
        "tls_key": tls_key,
        "tls_client_ca": tls_client_ca,
        "tokens_file": tokens_file,
        "page_listen": page,
    }
    settings = BufferConfig.load(config, **{n: v for n, v in flags.items() if v is not None})
    use_log_format(settings.log_format)
    check_environment(os.environ)
    code = serve_until_stopped(
        path or settings.persistence_path,
        settings,
        log=log,
        listen=listen,
        partitions=None if partitions is None else parsed_partitions(partitions),
        insecure_listen=insecure_listen,
        beside=partial(metrics_served, settings),
        on_listening=lambda address, page_url: print_result(
            as_json,
            {"listening": address, **({"page": page_url} if page_url else {})},
            f"listening on {address}" + (f", page at {page_url}" if page_url else ""),
        ),
    )
    raise typer.Exit(code)


def materialize(
    log: LogUrl,
    path: StatePath = None,
    config: ConfigFile = None,
    once: Annotated[bool, typer.Option("--once", help="stop at the log's present end")] = False,
    metrics_listen: MetricsListen = None,
    log_format: LogFormat = None,
    as_json: AsJson = False,
) -> None:
    """Fold the log into durable state, until stopped.

    Example: relive materialize --log kafka://localhost:9092/experiences --path ./state
    """
    use_log_format(log_format)
    flags = {"metrics_listen": metrics_listen, "log_format": log_format}
    settings = BufferConfig.load(config, **{n: v for n, v in flags.items() if v is not None})
    use_log_format(settings.log_format)
    check_environment(os.environ)
    directory = path or settings.persistence_path
    stop = stop_signal(signal.SIGTERM, signal.SIGINT)
    event_log = open_log(log, kafka=settings.kafka)
    try:
        metrics = partial(metrics_served, settings)
        with kept_state(event_log, directory, settings, metrics) as (materializer, snapshotter):
            print_state(materializer, "caught up", as_json)
            if not once:
                materializer.start()
                snapshotter.start()
                while not stop.wait(0.5) and materializer.stopped is None:
                    pass
            if materializer.stopped is not None:
                raise materializer.stopped
            materializer.commit()
            print_state(materializer, "stopped", as_json)
    finally:
        event_log.close()


@way_in
def health(
    target: Annotated[
        str, typer.Argument(help="HOST:PORT of an index service, or several with commas between")
    ],
    timeout_s: Annotated[float, typer.Option("--timeout", help="seconds to wait for each")] = 3.0,
    config: ConfigFile = None,
    as_json: AsJson = False,
    *,
    flags: Flags,
) -> None:
    """Whether an index service is serving; exit code 0 if it is. It needs no token.

    Of several, whether all are.

    Example: relive health localhost:50051
    """
    from relive.client import health as ask

    settings = BufferConfig.load(config, **flags)
    places = addresses(target)
    if len(places) == 1:
        status = ask(target, timeout_s, settings)
        print_result(as_json, {"status": status}, status)
    else:
        found = {place: _asked(ask, place, timeout_s, settings) for place in places}
        status = "SERVING" if set(found.values()) == {"SERVING"} else "NOT_SERVING"
        lines = [f"{place}  {each}" for place, each in found.items()]
        print_result(as_json, {"status": status, "services": found}, "\n".join(lines))
    if status != "SERVING":
        raise typer.Exit(1)


def _asked(
    ask: Callable[[str, float, BufferConfig], str],
    place: str,
    timeout_s: float,
    settings: BufferConfig,
) -> str:
    try:
        return ask(place, timeout_s, settings)
    except (ServiceUnavailable, DeadlineExceeded):
        return "UNREACHABLE"
