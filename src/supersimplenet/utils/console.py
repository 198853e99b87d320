"""What the package says to a person: one console, one style of progress bar."""

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
    """Say nothing more: this process is one of several that do the same, and another one speaks for all."""
    global _silent
    _silent = True


def console() -> Console:
    """Where progress goes: standard error, so that standard output stays free for results."""
    return _literal(stderr=True)


def results() -> Console:
    """Where results go: standard output."""
    return _literal(stderr=False)


def progress_bar() -> Progress:
    """The package's one style of progress bar."""
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
    """A path is printed as it is: its brackets are no markup, and no line is broken inside it."""
    return Console(stderr=stderr, quiet=_silent, highlight=False, markup=False, soft_wrap=True)
