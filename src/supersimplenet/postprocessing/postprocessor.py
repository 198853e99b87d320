"""The postprocessor: from map and score to a prediction (verdict, p-value, defects), for every engine. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from supersimplenet.errors import ConfigError, ImageError
from supersimplenet.postprocessing.calibration import UNCALIBRATED_LOGIT, Calibration, verdict
from supersimplenet.postprocessing.defects import find_defects
from supersimplenet.preprocessing.prepared_image import Layout
from supersimplenet.types import Prediction, ScoreName, ScoreScale


@dataclass(frozen=True, kw_only=True)
class PostProcessor:
    """Makes a prediction from the network's outputs.

    Attributes:
        calibration: the thresholds and what they guarantee; without one (None), an image is ``bad`` from logit 0 on.
        image_score: the score that decides the verdict.
        score_scale: puts the scores on one scale.

    Raises:
        ConfigError: there is no such score, or the calibration is for another score.
    """

    calibration: Calibration | None = None
    image_score: ScoreName = "head"
    score_scale: ScoreScale = field(default_factory=ScoreScale)

    def __post_init__(self) -> None:
        if self.image_score not in get_args(ScoreName):
            raise ConfigError(f"image_score: '{self.image_score}'; wanted one of {', '.join(get_args(ScoreName))}")
        if self.calibration is not None and self.calibration.image_score != self.image_score:
            raise ConfigError(
                f"calibration: of the {self.calibration.image_score} score, but the {self.image_score} score decides "
                "here; calibrate again"
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
        counted = map_logit if layout.ignored is None else np.where(layout.ignored, np.float32(-np.inf), map_logit)
        map_max_logit = float(counted.max())
        fused_logit = self.score_scale.fuse(head_logit, map_max_logit)
        scores: dict[ScoreName, float] = {"head": head_logit, "map": map_max_logit, "fused": fused_logit}
        for name, value in scores.items():
            if not math.isfinite(value):
                raise ImageError(
                    f"{path or 'array'}: the {name} score is {value}, which is no verdict; the model is damaged, or "
                    "its precision is too low for it: use the model folder in float32, or train again"
                )
        calibration = self.calibration
        score_logit = scores[self.image_score]
        return Prediction(
            path=path,
            head_logit=head_logit,
            map_max_logit=map_max_logit,
            fused_logit=fused_logit,
            decides=self.image_score,
            verdict=verdict(score_logit, calibration),
            threshold_logit=None if calibration is None else calibration.threshold_logit,
            accept_logit=None if calibration is None else calibration.accept_logit,
            p_value=None if calibration is None else calibration.p_value(score_logit),
            defects=None
            if calibration is None
            else find_defects(
                counted,
                pixel_logit=calibration.pixel_logit,
                min_area_px=calibration.min_area_px,
                placement=layout.placement,
            ),
            map_logit=map_logit,
            placement=layout.placement,
            ignored=layout.ignored,
            reading=layout.reading,
            alignment=layout.alignment,
        )
