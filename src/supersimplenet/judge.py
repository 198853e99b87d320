"""Where map and score become a prediction: verdict, p-value and defects, whichever engine computed. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from supersimplenet.calibration import UNCALIBRATED_LOGIT, Calibration, verdict
from supersimplenet.data.views import Layout
from supersimplenet.defects import find_defects
from supersimplenet.errors import ConfigError
from supersimplenet.records import Prediction, ScoreName, ScoreScale


@dataclass(frozen=True, kw_only=True)
class Judge:
    """What is decided from the network's outputs.

    Attributes:
        calibration: the thresholds and what they promise; None for none, then an image is ``bad`` from logit 0 on.
        image_score: which score decides.
        score_scale: puts the scores on one scale.

    Raises:
        ConfigError: the calibration is of another score.
    """

    calibration: Calibration | None = None
    image_score: ScoreName = "head"
    score_scale: ScoreScale = field(default_factory=ScoreScale)

    def __post_init__(self) -> None:
        if self.calibration is not None and self.calibration.image_score != self.image_score:
            raise ConfigError(
                f"calibration: of the {self.calibration.image_score} score, but the {self.image_score} score decides "
                "here; calibrate again"
            )

    @property
    def threshold_logit(self) -> float:
        """From this score on an image is ``bad``."""
        return UNCALIBRATED_LOGIT if self.calibration is None else self.calibration.threshold_logit

    def predictions(
        self,
        maps: Sequence[NDArray[np.float32]],
        heads: Sequence[float],
        *,
        layouts: Sequence[Layout],
        paths: Sequence[str | None],
    ) -> list[Prediction]:
        """What the network's outputs say of each image.

        Args:
            maps: (H, W) smoothed map of each, logits.
            heads: the classification head's score of each, logits.
            layouts: how each image was laid out.
            paths: where each came from, None for an array.
        """
        return [
            self._prediction(path, head, map_logit, layout)
            for path, head, map_logit, layout in zip(paths, heads, maps, layouts, strict=True)
        ]

    def _prediction(
        self,
        path: str | None,
        head_logit: float,
        map_logit: NDArray[np.float32],
        layout: Layout,
    ) -> Prediction:
        counted = map_logit if layout.ignored is None else np.where(layout.ignored, np.float32(-np.inf), map_logit)
        map_max_logit = float(counted.max())
        fused_logit = self.score_scale.fuse(head_logit, map_max_logit)
        calibration = self.calibration
        score_logit = {"head": head_logit, "map": map_max_logit, "fused": fused_logit}[self.image_score]
        return Prediction(
            path=path,
            head_logit=head_logit,
            map_max_logit=map_max_logit,
            fused_logit=fused_logit,
            decides=self.image_score,
            verdict=verdict(score_logit, calibration),
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
            alignment=layout.alignment,
        )
