"""From settings to sources. What a kind of source needs is imported where one is set up."""

from __future__ import annotations

from collections.abc import Callable

from supersimplenet.station.setup import (
    CameraSource,
    FolderSource,
    IntervalTrigger,
    MotionTrigger,
    SourceSettings,
    TriggerSettings,
)
from supersimplenet.station.sources.folder import Folder
from supersimplenet.station.sources.source import Send, Source
from supersimplenet.station.sources.triggers import Trigger


def make_source(settings: SourceSettings, *, send: Send, say: Callable[[str], None]) -> Source:
    """Return the source of its settings, not started yet.

    Raises:
        ConfigError: what the settings name cannot be used.
    """
    match settings:
        case FolderSource():
            return Folder(settings, send=send, say=say)
        case CameraSource():
            from supersimplenet.station.sources.camera import Camera

            return Camera(settings, trigger=make_trigger(settings.trigger), send=send, say=say)


def make_trigger(settings: TriggerSettings) -> Trigger:
    """Return the trigger of its settings, not started yet.

    Raises:
        ConfigError: what the settings name cannot be used.
    """
    match settings:
        case IntervalTrigger():
            from supersimplenet.station.sources.frame_triggers import Interval

            return Interval(settings)
        case MotionTrigger():
            from supersimplenet.station.sources.frame_triggers import Motion

            return Motion(settings)
