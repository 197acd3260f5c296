"""A progress bar on standard error, for what takes longer than a second."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

SHOWN_AFTER_S = 1.0
_LOOK_S = 0.1


@contextmanager
def progress(what: str, total: int | None, done: Callable[[], int]) -> Iterator[None]:
    """Show how far the body is, with rate and time left. Only on a terminal.

    Args:
        what: is going on.
        total: how much there is to do; None where nobody can tell, so that the time that it has
            taken is shown instead.
        done: says how much of it is done; called from another thread.
    """
    console = Console(stderr=True)
    # A terminal that cannot go back would be filled with bars.
    if not console.file.isatty() or console.is_dumb_terminal:
        yield
        return
    over = threading.Event()
    shown = threading.Thread(target=_show, args=(console, what, total, done, over), daemon=True)
    shown.start()
    try:
        yield
    finally:
        over.set()
        shown.join()


def _show(
    console: Console, what: str, total: int | None, done: Callable[[], int], over: threading.Event
) -> None:
    if over.wait(SHOWN_AFTER_S):
        return
    columns: tuple[ProgressColumn, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        *((_Done(),) if total is None else (MofNCompleteColumn(),)),
        _Rate(),
        TimeElapsedColumn() if total is None else TimeRemainingColumn(),
    )

    def so_far() -> int:
        return done() if total is None else min(done(), total)

    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total, completed=so_far())
        while True:
            bar.update(task, completed=so_far())
            if over.wait(_LOOK_S):
                return


class _Done(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.completed:,.0f}" if task.completed else "")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.speed
        return Text("" if not speed else f"{speed:,.0f}/s")
