"""The commands, and how each of them ends. Results go to stdout, all else to stderr."""

from __future__ import annotations

import logging
import sys
from typing import NoReturn, cast

import typer

from relive.cli import bench, doctor, events, looking_back, reads, replays, services, settings
from relive.cli.completion import PROGRAM, answer_completion, completion
from relive.cli.exit_codes import ExitCode
from relive.cli.indices import index_app
from relive.cli.logs import log_app
from relive.cli.output import end_with, end_with_bug, end_with_usage
from relive.cli.quarantine import quarantine_app
from relive.cli.snapshots import snapshot_app, trim_log
from relive.errors import ReliveError

app = typer.Typer(
    help="Relive: an event-sourced experience buffer for agents that learn online.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for _command in (
    services.demo,
    services.serve,
    services.materialize,
    services.health,
    events.publish,
    events.tail,
    reads.get,
    reads.search,
    reads.sample,
    reads.stats,
    looking_back.explain,
    looking_back.top,
    looking_back.diff,
    replays.replay,
    replays.verify,
    settings.settings,
    doctor.doctor,
    bench.bench,
    completion,
):
    app.command()(_command)
log_app.command("trim")(trim_log)
app.add_typer(log_app, name="log")
app.add_typer(index_app, name="index")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(snapshot_app, name="snapshot")

# What typer raises for a command line that makes no sense; its base class has no public name.
_UsageProblem = cast(type[Exception], typer.BadParameter.__mro__[2])


def run() -> NoReturn:
    """Run the command of `sys.argv`; errors become a line, or with --json an object, and a code.

    Raises:
        SystemExit: with an `ExitCode`.
        KeyboardInterrupt: it was interrupted.
    """
    answer_completion()
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("relive").setLevel(logging.INFO)
    # librdkafka reports every attempt to connect, hundreds of times while a broker is down.
    logging.getLogger("relive.log.kafka").setLevel(logging.WARNING)
    as_json = "--json" in sys.argv
    try:
        # For a program, a bad command line is an object like any other problem.
        code = app(prog_name=PROGRAM, standalone_mode=not as_json)
    except (ReliveError, OSError) as error:
        end_with(error)
    except _UsageProblem as problem:
        end_with_usage(problem)
    except Exception as bug:  # noqa: BLE001 - a program that reads JSON gets some, and all is logged
        end_with_bug(bug)
    sys.exit(code if isinstance(code, int) else ExitCode.DONE)
