"""What is not as it should be, for the page, the log and Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from supersimplenet.station.metrics import Gauge
from supersimplenet.station.storage.recorder import REFUSED
from supersimplenet.utils.formatting import counted

if TYPE_CHECKING:
    from supersimplenet.station.station import Station


@dataclass(frozen=True, kw_only=True)
class Sign:
    """Something that is not as it should be.

    Attributes:
        code: short name.
        text: what it is, and what to do.
        values: what the text names, for the page's texts in other languages.
        reason_code: short name of the reason that is among them; empty for none, or words of a library.
        reason_values: what the reason names.
    """

    code: str
    text: str
    values: Mapping[str, str | int] = field(default_factory=dict)
    reason_code: str = ""
    reason_values: Mapping[str, str] = field(default_factory=dict)


def signs_of(station: Station) -> Iterator[Sign]:
    """Yield what is not as it should be; the page shows it large."""
    yield from _of_storage(station)
    yield from _of_ways(station)
    for state in station.drift.states:
        if state.drifted_at is not None:
            text = f"Pictures of {state.product} are not like those before them any more. See the page Health."
            yield Sign(code="drift", text=text, values={"product": state.product})
    for product, reason in station.registry.failed.items():
        text = f"The model that was promoted for {product} cannot be used ({reason}). The one before it stays."
        yield Sign(code="model", text=text, values={"product": product, "reason": reason})
    for model in station.models:
        if not model.predictor.is_calibrated:
            text = f"The model of {model.product} has no valid guarantee. Run supersimplenet calibrate."
            yield Sign(code="calibration", text=text, values={"product": model.product})


def _of_storage(station: Station) -> Iterator[Sign]:
    recorder, free = station.recorder, station.store.free_bytes >> 20
    if recorder.away:
        text = f"The database is away ({recorder.reason}). Inspection goes on; results follow later."
        yield Sign(code="database", text=text, values={"reason": recorder.reason})
    if recorder.lost:
        text = f"{counted(recorder.lost, 'result')} lost: neither database nor disk can be written. Free the disk."
        yield Sign(code="lost", text=text, values={"count": recorder.lost})
    if (station.config.folder / REFUSED).is_file():
        text = f"The database refused results; they are in {REFUSED} in the station's folder. Move it away when read."
        yield Sign(code="refused", text=text, values={"file": REFUSED})
    if free < station.config.reserve_mib:
        text = f"{free} MiB of the disk are free. Pictures of good parts are not kept. Free the disk."
        yield Sign(code="disk", text=text, values={"mib": free})


def _of_ways(station: Station) -> Iterator[Sign]:
    """Yield what is wrong on the ways of pictures into the station, and of results out of it."""
    for source in (each.state for each in station.sources):
        if source.state == "away":
            text = f"Source '{source.name}' is away ({source.reason}). It is tried again."
            yield Sign(code="source", text=text, values={"name": source.name, "reason": source.reason})
    for sink in (each.state for each in station.deliveries):
        if sink.away:
            text = f"Sink '{sink.name}' is away ({sink.reason}). Inspection goes on; results follow later."
            yield Sign(
                code="sink",
                text=text,
                values={"name": sink.name, "reason": sink.reason},
                reason_code=sink.reason_code,
                reason_values=sink.reason_values,
            )
    for delivery in station.deliveries:
        if delivery.set_aside.is_file():
            name, file = delivery.name, delivery.set_aside.name
            text = f"Sink '{name}' refused results; they are in {file} in the station's folder. Move it away when read."
            yield Sign(code="sink_refused", text=text, values={"name": name, "file": file})
    set_up = {each.name for each in station.deliveries}
    for name, number in station.waiting.items():
        if name not in set_up:
            text = (
                f"Results wait for the sink '{name}' ({number}), which is not in the setup. Put it back, or run "
                f"supersimplenet station outbox --drop {name} with the station's --folder and --database."
            )
            yield Sign(code="outbox", text=text, values={"name": name, "count": number})


def gauges_of(station: Station) -> Iterator[Gauge]:
    """Yield the values of the moment that Prometheus reads."""
    counts = station.inspections.counts
    for name, text, value in (
        ("in_work", "Pictures in work or waiting", counts.in_work),
        ("queue_size", "Pictures that may be in work or waiting", station.config.queue),
        ("pictures_not_kept", "Pictures not kept for want of room, since the start", counts.unkept),
        ("results_lost", "Results lost, since the start", station.recorder.lost),
        ("database_away", "1 while results wait for the database", station.recorder.away),
        ("disk_free_bytes", "Free space of the disk", station.store.free_bytes),
    ):
        yield Gauge(name, text, {"": float(value)})
    sources, sinks = [each.state for each in station.sources], [each.state for each in station.deliveries]
    away = {each.name: float(each.state == "away") for each in sources}
    missed = {each.name: float(each.missed) for each in sources}
    capital = {state.product: state.capital for state in station.drift.states}
    yield Gauge("drift_capital", "Of the test of drift; from 1000 on pictures have changed", capital, "product")
    yield Gauge("source_away", "1 while a source is away", away, "source")
    yield Gauge(
        "source_missed",
        "Pictures missed, as the queue was full or the camera away, since the start",
        missed,
        "source",
    )
    yield Gauge("sink_away", "1 while a sink is away", {each.name: float(each.away) for each in sinks}, "sink")
    late = {each.name: float(each.late) for each in sinks}
    refused = {each.name: float(each.refused) for each in sinks}
    yield Gauge("sink_refused", "Results that a sink refused, since the start", refused, "sink")
    yield Gauge("sink_late", "Results that came too late for a sink to act on, since the start", late, "sink")
    waiting = {name: float(number) for name, number in station.waiting.items()}
    yield Gauge("sink_waiting", "Results that a sink has not got yet", waiting, "sink")
