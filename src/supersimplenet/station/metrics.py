"""What Prometheus reads of a station."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Gauge(NamedTuple):
    """A value of the moment, or one for each value of a label.

    Attributes:
        name: its name, without that of the package.
        text: what it is.
        values: the values by the label's value; with the key ``""`` alone where there is no label.
        label: name of the label.
    """

    name: str
    text: str
    values: Mapping[str, float]
    label: str | None = None


class Metrics:
    """Counters of a station, in a registry of its own.

    Args:
        gauges: returns values of the moment.
    """

    def __init__(self, gauges: Callable[[], Iterable[Gauge]]) -> None:
        self._registry = CollectorRegistry()
        self.inspected = Counter(
            "supersimplenet_inspected",
            "Pictures inspected, by product and verdict",
            ["product", "verdict"],
            registry=self._registry,
        )
        self.refused = Counter(
            "supersimplenet_refused", "Requests refused, by reason", ["reason"], registry=self._registry
        )
        self.seconds = Histogram(
            "supersimplenet_inspection_seconds",
            "Time from a request's last byte to its answer",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(_Gauges(gauges))

    def text(self) -> bytes:
        """Return all values in the text format."""
        return generate_latest(self._registry)


class _Gauges(Collector):
    def __init__(self, gauges: Callable[[], Iterable[Gauge]]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for gauge in self._gauges():
            family = GaugeMetricFamily(
                f"supersimplenet_{gauge.name}", gauge.text, labels=[] if gauge.label is None else [gauge.label]
            )
            for of, value in gauge.values.items():
                family.add_metric([] if gauge.label is None else [of], value)
            yield family
