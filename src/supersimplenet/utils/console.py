"""Output for the user: one console, one style of progress bar."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from supersimplenet.utils.formatting import printable, shown_duration

LINE_EVERY_S = 30.0  # of progress, where there is no terminal
_silent = False


def silence() -> None:
    """Disable all output: this process is one of several that do the same work, and another process prints."""
    global _silent
    _silent = True


def console() -> Console:
    """Return the console for progress: standard error, so that standard output stays free for results."""
    return _literal(stderr=True)


def results() -> Console:
    """Return the console for results: standard output."""
    return _literal(stderr=False)


def progress_bar() -> Progress:
    """Return a progress bar in the package's one style."""
    return _Bar(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
        console=console(),
        transient=False,
    )


def write_in_any_encoding() -> None:
    """Let standard output and error escape what the terminal's encoding lacks, instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


class _Bar(Progress):
    """A progress bar that disappears after an error, so that the message is the last line.

    Without a terminal nothing moves: there it prints a line every half minute.
    """

    _said = 0.0

    def start(self) -> None:
        """Show the bar."""
        self._said = time.monotonic()
        super().start()

    def update(self, task_id: TaskID, **fields: Any) -> None:
        """Change a task; see `rich.progress.Progress.update`."""
        super().update(task_id, **fields)
        self._say(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Advance a task."""
        super().advance(task_id, advance)
        self._say(task_id)

    def _say(self, task_id: TaskID) -> None:
        if self.console.is_terminal or time.monotonic() - self._said < LINE_EVERY_S:
            return
        self._said = time.monotonic()
        self.console.print(_line_of(next(task for task in self.tasks if task.id == task_id)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.transient = kind is not None
        super().__exit__(kind, error, trace)


def _line_of(task: Task) -> str:
    """Return a task in a line: what is done, how much of it, the time that is left, and its own detail."""
    total = "" if task.total is None else f" of {task.total:,.0f}"
    left = "" if task.time_remaining is None else f", about {shown_duration(task.time_remaining)} left"
    detail = f", {task.fields['detail']}" if task.fields.get("detail") else ""
    return f"{task.description}: {task.completed:,.0f}{total}{left}{detail}"


class _Literal(Console):
    r"""A console that prints text as it is: ``[red]`` and ``:100:`` in a name are no markup, and no line is wrapped.

    Each text that is printed is one line: see `printable`. ``sep="\n"`` puts several below each other.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(printable(item) if isinstance(item, str) else item for item in objects), **options)


def _literal(*, stderr: bool) -> Console:
    # A notebook gets plain lines too: rich would make a box of HTML of each, and ask for ipywidgets.
    return _Literal(
        stderr=stderr, quiet=_silent, highlight=False, markup=False, emoji=False, soft_wrap=True, force_jupyter=False
    )
