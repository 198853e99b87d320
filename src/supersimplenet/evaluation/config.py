"""Settings of a calibration. No torch here: the command line checks the settings before it imports anything slow."""

from __future__ import annotations

from dataclasses import dataclass

from supersimplenet.errors import ConfigError
from supersimplenet.metrics.thresholds import Costs

_LISTED_AREA_PX = 25


@dataclass(frozen=True, kw_only=True)
class ThresholdConfig:
    """The guarantees that the thresholds must give.

    Args:
        max_false_alarms: largest share of the good parts that may be called bad.
        confidence: probability with which each guarantee holds, over the random choice of the calibration parts.
        max_escapes: largest share of the bad parts that may be called good; needs bad parts. Where one threshold cannot
            give both guarantees, there are two thresholds, and parts that score between them are ``unsure``.
        costs: choose the threshold with the lowest expected cost instead; needs bad parts.
        bad_share: share of bad parts in production, for the costs; by default their share among the given parts.
        min_area_px: area of the smallest defect that is listed, in pixels at the network's input size; None for 25 or,
            with zones, for the area of each zone.
        lenient: if the parts are too few to guarantee ``max_false_alarms``, guarantee the lowest rate that they can.
    """

    max_false_alarms: float = 0.05
    confidence: float = 0.95
    max_escapes: float | None = None
    costs: Costs | None = None
    bad_share: float | None = None
    min_area_px: int | None = None
    lenient: bool = False

    def __post_init__(self) -> None:
        for name in ("max_false_alarms", "confidence", "max_escapes", "bad_share"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise ConfigError(f"{name}: {value}; wanted above 0 and below 1")
        if self.min_area_px is not None and self.min_area_px < 1:
            raise ConfigError(f"min_area_px: {self.min_area_px}; wanted at least 1")
        if self.costs is not None and self.max_escapes is not None:
            raise ConfigError("costs and max_escapes: costs choose one threshold; give one of the two")
        if self.costs is None and self.bad_share is not None:
            raise ConfigError("bad_share: counts for costs alone, and there are none; give costs, or leave it out")

    @property
    def listed_area_px(self) -> int:
        """Area of the smallest defect that is listed without zones, in pixels at the network's input size."""
        return _LISTED_AREA_PX if self.min_area_px is None else self.min_area_px
