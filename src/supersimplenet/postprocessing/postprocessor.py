"""The postprocessor: from map and score to a prediction (verdict, p-value, defects), for every engine. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from supersimplenet.errors import ConfigError, ImageError
from supersimplenet.postprocessing.calibration import UNCALIBRATED_LOGIT, Calibration, verdict
from supersimplenet.postprocessing.defects import counted_map, find_defects, find_peak, listed_defects
from supersimplenet.postprocessing.score_scale import ScoreScale
from supersimplenet.postprocessing.zones import Zones, level_of_zones, zones_on_map
from supersimplenet.preprocessing.prepared_image import Layout
from supersimplenet.types import Prediction, ScoreName, Verdict, ZonesOnMap
from supersimplenet.utils.formatting import listed


@dataclass(frozen=True, kw_only=True)
class PostProcessor:
    """Makes a prediction from the network's outputs.

    Attributes:
        calibration: the thresholds and what they guarantee; without one (None), an image is ``bad`` from logit 0 on.
        image_score: the score that decides the verdict.
        score_scale: puts the scores on one scale.
        list_all: also list the regions of the map in images that are good; see `listed_defects`.
        zones: the zones whose score is computed, too; those of the calibration, where there is one.

    Raises:
        ConfigError: there is no such score, the calibration is for another score, or zones decide and there are none.
    """

    calibration: Calibration | None = None
    image_score: ScoreName = "head"
    score_scale: ScoreScale = field(default_factory=ScoreScale)
    list_all: bool = False
    zones: Zones | None = None

    def __post_init__(self) -> None:
        if self.image_score not in get_args(ScoreName):
            raise ConfigError(f"image_score: '{self.image_score}'; wanted one of {', '.join(get_args(ScoreName))}")
        if self.calibration is not None and self.calibration.image_score != self.image_score:
            raise ConfigError(
                f"image_score: {self.image_score}, but the calibration is of the {self.calibration.image_score} score; "
                "leave image_score out, or calibrate by this score"
            )
        if self.calibration is not None:
            object.__setattr__(self, "zones", self.calibration.zones)
        if self.image_score == "zones" and self.zones is None:
            raise ConfigError("image_score: 'zones', and there are no zones; calibrate with --zones zones.json")

    @property
    def threshold_logit(self) -> float:
        """The threshold: an image is ``bad`` from this score on."""
        return UNCALIBRATED_LOGIT if self.calibration is None else self.calibration.threshold_logit

    def __call__(
        self,
        map_logit: NDArray[np.float32] | None,
        head_logit: float | None,
        subspace_map: NDArray[np.float32] | None = None,
        subspace_logit: float | None = None,
        *,
        layout: Layout,
        path: str | None,
    ) -> Prediction:
        """Return the prediction for an image from the network's outputs.

        Args:
            map_logit: (H, W) the network's smoothed map, logits; None where its heads are not trained.
            head_logit: the classification head's score; likewise.
            subspace_map: (H, W) smoothed distance from the subspace of good images; None for a model without one.
            subspace_logit: its score; likewise.
            layout: how the image was laid out.
            path: path of the image, None for an array.

        Raises:
            ImageError: the image's proportions are not those of the zones, or a score is not finite, which no threshold
                tells from a good one.
            ConfigError: the model does not have the score that decides.
        """
        map_max_logit = None if map_logit is None else float(counted_map(map_logit, layout.ignored).max())
        scores = self.score_scale.scores(head_logit, map_max_logit, subspace_logit)
        shown = self.score_scale.shown_map(map_logit, subspace_map)
        counted = counted_map(shown, layout.ignored)
        zones = None if self.zones is None else zones_on_map(self.zones, layout.placement, path or "array")
        if zones is not None:
            scores["zones"] = level_of_zones(counted, zones)
        for name, value in scores.items():
            if not math.isfinite(value):
                raise ImageError(
                    f"{path or 'array'}: the {name} score is {value}, which is no verdict; the model is damaged, or "
                    "its precision is too low for it: use the model folder in float32, or train again"
                )
        score_logit = self._deciding(scores)
        found = verdict(score_logit, self.calibration)
        return Prediction(
            path=path,
            head_logit=head_logit,
            map_max_logit=map_max_logit,
            fused_logit=scores.get("fused"),
            subspace_logit=subspace_logit,
            joint_logit=scores.get("joint"),
            zones_logit=scores.get("zones"),
            decides=self.image_score,
            verdict=found,
            **self._calibrated(score_logit, found, counted, layout, zones),
            map_logit=shown,
            placement=layout.placement,
            ignored=layout.ignored,
            reading=layout.reading,
            alignment=layout.alignment,
            zones=zones,
        )

    def _deciding(self, scores: Mapping[ScoreName, float]) -> float:
        if self.image_score not in scores:
            has = listed(list(scores), "and")
            raise ConfigError(f"image_score: '{self.image_score}'; this model gives {has}; choose one, or train again")
        return scores[self.image_score]

    def _calibrated(
        self,
        score_logit: float,
        found: Verdict,
        counted: NDArray[np.float32],
        layout: Layout,
        zones: ZonesOnMap | None,
    ) -> dict[str, Any]:
        """Return what a prediction has of a calibrated model alone."""
        calibration = self.calibration
        if calibration is None:
            return {}
        placement = layout.placement
        regions = find_defects(
            counted,
            pixel_logit=calibration.pixel_logit,
            min_area_px=calibration.min_area_px,
            placement=placement,
            zones=zones,
        )
        return {
            "threshold_logit": calibration.threshold_logit,
            "accept_logit": calibration.accept_logit,
            "pixel_logit": calibration.pixel_logit,
            "min_area_px": calibration.min_area_px,
            "p_value": calibration.p_value(score_logit),
            "defects": listed_defects(
                found, regions, lambda: find_peak(counted, placement=placement, zones=zones), list_all=self.list_all
            ),
            "regions": regions,
        }
