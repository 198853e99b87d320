"""Output for the user: one console, one style of progress bar."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

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

from supersimplenet.utils.formatting import printable

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
    """A progress bar that disappears after an error, so that the message is the last line."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.transient = kind is not None
        super().__exit__(kind, error, trace)


class _Literal(Console):
    r"""A console that prints text as it is: ``[red]`` and ``:100:`` in a name are no markup, and no line is wrapped.

    Each text that is printed is one line: see `printable`. ``sep="\n"`` puts several below each other.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(printable(item) if isinstance(item, str) else item for item in objects), **options)


def _literal(*, stderr: bool) -> Console:
    return _Literal(stderr=stderr, quiet=_silent, highlight=False, markup=False, emoji=False, soft_wrap=True)
