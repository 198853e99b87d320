"""The postprocessor: from map and score to a prediction (verdict, p-value, defects), for every engine. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from supersimplenet.errors import ConfigError, ImageError
from supersimplenet.postprocessing.calibration import UNCALIBRATED_LOGIT, Calibration, verdict
from supersimplenet.postprocessing.defects import counted_map, find_defects, find_peak, listed_defects
from supersimplenet.preprocessing.prepared_image import Layout
from supersimplenet.types import Prediction, ScoreName, ScoreScale, Verdict


@dataclass(frozen=True, kw_only=True)
class PostProcessor:
    """Makes a prediction from the network's outputs.

    Attributes:
        calibration: the thresholds and what they guarantee; without one (None), an image is ``bad`` from logit 0 on.
        image_score: the score that decides the verdict.
        score_scale: puts the scores on one scale.
        list_all: also list the regions of the map in images that are good; see `listed_defects`.

    Raises:
        ConfigError: there is no such score, or the calibration is for another score.
    """

    calibration: Calibration | None = None
    image_score: ScoreName = "head"
    score_scale: ScoreScale = field(default_factory=ScoreScale)
    list_all: bool = False

    def __post_init__(self) -> None:
        if self.image_score not in get_args(ScoreName):
            raise ConfigError(f"image_score: '{self.image_score}'; wanted one of {', '.join(get_args(ScoreName))}")
        if self.calibration is not None and self.calibration.image_score != self.image_score:
            raise ConfigError(
                f"image_score: {self.image_score}, but the calibration is of the {self.calibration.image_score} score; "
                "leave image_score out, or calibrate by this score"
            )

    @property
    def threshold_logit(self) -> float:
        """The threshold: an image is ``bad`` from this score on."""
        return UNCALIBRATED_LOGIT if self.calibration is None else self.calibration.threshold_logit

    def __call__(
        self, map_logit: NDArray[np.float32], head_logit: float, *, layout: Layout, path: str | None
    ) -> Prediction:
        """Return the prediction for an image from the network's outputs.

        Args:
            map_logit: (H, W) smoothed map, logits.
            head_logit: the classification head's score.
            layout: how the image was laid out.
            path: path of the image, None for an array.

        Raises:
            ImageError: a score is not finite. No threshold tells such a score from a good one.
        """
        counted = counted_map(map_logit, layout.ignored)
        map_max_logit = float(counted.max())
        fused_logit = self.score_scale.fuse(head_logit, map_max_logit)
        scores: dict[ScoreName, float] = {"head": head_logit, "map": map_max_logit, "fused": fused_logit}
        for name, value in scores.items():
            if not math.isfinite(value):
                raise ImageError(
                    f"{path or 'array'}: the {name} score is {value}, which is no verdict; the model is damaged, or "
                    "its precision is too low for it: use the model folder in float32, or train again"
                )
        score_logit = scores[self.image_score]
        found = verdict(score_logit, self.calibration)
        return Prediction(
            path=path,
            head_logit=head_logit,
            map_max_logit=map_max_logit,
            fused_logit=fused_logit,
            decides=self.image_score,
            verdict=found,
            **self._calibrated(score_logit, found, counted, layout),
            map_logit=map_logit,
            placement=layout.placement,
            ignored=layout.ignored,
            reading=layout.reading,
            alignment=layout.alignment,
        )

    def _calibrated(
        self, score_logit: float, found: Verdict, counted: NDArray[np.float32], layout: Layout
    ) -> dict[str, Any]:
        """Return what a prediction has of a calibrated model alone."""
        calibration = self.calibration
        if calibration is None:
            return {}
        placement = layout.placement
        regions = find_defects(
            counted, pixel_logit=calibration.pixel_logit, min_area_px=calibration.min_area_px, placement=placement
        )
        return {
            "threshold_logit": calibration.threshold_logit,
            "accept_logit": calibration.accept_logit,
            "pixel_logit": calibration.pixel_logit,
            "p_value": calibration.p_value(score_logit),
            "defects": listed_defects(
                found, regions, lambda: find_peak(counted, placement=placement), list_all=self.list_all
            ),
            "regions": regions,
        }
