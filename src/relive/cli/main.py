"""The command line. Results go to stdout, progress and problems to stderr."""

from __future__ import annotations

import logging
import sys
from typing import NoReturn, cast

import typer

from relive.cli import doctor, events, looking_back, reads, replays, services
from relive.cli.logs import log_app
from relive.cli.output import end_with, end_with_usage
from relive.cli.quarantine import quarantine_app
from relive.cli.snapshots import snapshot_app, trim_log
from relive.errors import ReliveError

app = typer.Typer(
    help="Relive: an event-sourced experience buffer for agents that learn online.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
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
    doctor.doctor,
):
    app.command()(_command)
log_app.command("trim")(trim_log)
app.add_typer(log_app, name="log")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(snapshot_app, name="snapshot")

# What typer raises for a command line that makes no sense; its base class has no public name.
_UsageProblem = cast(type[Exception], typer.BadParameter.__mro__[2])


def main() -> NoReturn:
    """The entry point: errors of ours become a line and an exit code.

    0 done, 1 failed, 2 a bad command line or field, 130 interrupted.
    """
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
        code = app(standalone_mode=not as_json)
    except ReliveError as error:
        end_with(error)
    except _UsageProblem as problem:
        end_with_usage(problem)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
