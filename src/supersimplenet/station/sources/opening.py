"""From settings to sources and triggers. What a kind needs is imported where one is set up."""

from __future__ import annotations

from collections.abc import Callable

from supersimplenet.station.sources.settings import (
    CameraSource,
    FolderSource,
    IntervalTrigger,
    MotionTrigger,
    MqttTrigger,
    OpcUaTrigger,
    ReplaySource,
    SourceSettings,
    TriggerSettings,
)
from supersimplenet.station.sources.source import Send, Source
from supersimplenet.station.sources.triggers import Trigger


def make_source(settings: SourceSettings, *, send: Send, say: Callable[[str], None]) -> Source:
    """Return the source of its settings, not started yet.

    Raises:
        ConfigError: what the settings name cannot be used.
    """
    match settings:
        case FolderSource():
            from supersimplenet.station.sources.folder import Folder

            return Folder(settings, send=send, say=say)
        case ReplaySource():
            from supersimplenet.station.sources.replay import Replay

            return Replay(settings, send=send, say=say)
        case CameraSource():
            from supersimplenet.station.sources.camera import Camera

            trigger = make_trigger(settings.trigger, name=settings.name, say=say)
            return Camera(settings, trigger=trigger, send=send, say=say)


def make_trigger(settings: TriggerSettings, *, name: str, say: Callable[[str], None]) -> Trigger:
    """Return the trigger of its settings, not started yet.

    Args:
        settings: the settings.
        name: name of the camera that it is for.
        say: called with a line for the log.

    Raises:
        ConfigError: a setting, or a file that the settings name, cannot be used.
    """
    match settings:
        case MqttTrigger():
            from supersimplenet.station.sources.mqtt_trigger import MqttMessages

            return MqttMessages(settings, name=name, say=say)
        case OpcUaTrigger():
            from supersimplenet.station.sources.opcua_trigger import OpcUaChanges

            return OpcUaChanges(settings, name=name, say=say)
        case IntervalTrigger():
            from supersimplenet.station.sources.frame_triggers import Interval

            return Interval(settings)
        case MotionTrigger():
            from supersimplenet.station.sources.frame_triggers import Motion

            return Motion(settings)
