"""From settings to sources. What a kind of source needs is imported where one is set up."""

from __future__ import annotations

from collections.abc import Callable

from supersimplenet.station.setup import FolderSource
from supersimplenet.station.sources.folder import Folder
from supersimplenet.station.sources.source import Send, Source


def make_source(settings: FolderSource, *, send: Send, say: Callable[[str], None]) -> Source:
    """Return the source of its settings, not started yet."""
    return Folder(settings, send=send, say=say)
