"""Output for the user: one console, one style of progress bar."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

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
    return Progress(
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


def _literal(*, stderr: bool) -> Console:
    """Return a console that prints text as it is: brackets in a path are no markup, and no line is wrapped."""
    return Console(stderr=stderr, quiet=_silent, highlight=False, markup=False, soft_wrap=True)
