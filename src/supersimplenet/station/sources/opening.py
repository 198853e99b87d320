"""From settings to sources. What a kind of source needs is imported where one is set up."""

from __future__ import annotations

from collections.abc import Callable

from supersimplenet.station.setup import FolderSource, ReplaySource, SourceSettings
from supersimplenet.station.sources.source import Send, Source


def make_source(settings: SourceSettings, *, send: Send, say: Callable[[str], None]) -> Source:
    """Return the source of its settings, not started yet."""
    match settings:
        case FolderSource():
            from supersimplenet.station.sources.folder import Folder

            return Folder(settings, send=send, say=say)
        case ReplaySource():
            from supersimplenet.station.sources.replay import Replay

            return Replay(settings, send=send, say=say)
