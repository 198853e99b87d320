"""What the package says to a person: one console, one style of progress bar."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def console() -> Console:
    """Where progress goes: standard error, so that standard output stays free for results."""
    return Console(stderr=True)


def results() -> Console:
    """Where results go: standard output."""
    return Console(highlight=False)


def progress_bar() -> Progress:
    """The package's one style of progress bar."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
        console=console(),
        transient=False,
    )
