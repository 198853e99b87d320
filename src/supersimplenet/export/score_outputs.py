"""The last nodes of an exported graph: from anomaly map and head's score to the deciding score and the verdict.

They are traced apart from the network, so that a quantiser never changes them, and that they can get their thresholds
after the network has been calibrated in its final precision.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from supersimplenet.postprocessing.postprocessor import PostProcessor
from supersimplenet.types import SCORE_FIELDS

_BELOW_HALF = float(np.nextafter(np.float32(0.5), np.float32(0)))


class ScoreOutputs(nn.Module):
    """Computes the outputs of a graph beside anomaly map and head's score.

    Args:
        postprocessor: the scale of the scores, the score that decides, and the thresholds.
        gives_verdict: the graph sees whole images at the size of the thresholds, so that it can also output score,
            verdict and defects.
    """

    def __init__(self, postprocessor: PostProcessor, *, gives_verdict: bool) -> None:
        super().__init__()
        self.scale = postprocessor.score_scale
        self.decides = SCORE_FIELDS[postprocessor.image_score]
        self.calibration = postprocessor.calibration if gives_verdict else None

    def forward(self, smoothed: Tensor, head: Tensor, ignored: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the outputs.

        Args:
            smoothed: (B, H, W) float32, the anomaly map in logits.
            head: (B,) float32, the classification head's score in logits.
            ignored: (B, H, W) uint8, not 0 on pixels that count in no score.

        Returns:
            Outputs by name, as `supersimplenet.runtime.bundle.describe_outputs` describes them.
        """
        counted = smoothed if ignored is None else smoothed.masked_fill(ignored > 0, -torch.inf)
        map_max = counted.amax((1, 2))
        fused: Tensor = self.scale.fuse(head, map_max)  # type: ignore[arg-type, assignment]  # fuses tensors, too
        decides = {"head_logit": head, "map_max_logit": map_max, "fused_logit": fused}[self.decides]
        score = decides + 0.0  # a tensor of its own, because a tensor has one name in some engines
        outputs = {"map_max_logit": map_max, "fused_logit": fused, "score_logit": score}
        if self.calibration is None:
            return outputs
        bad, accept = _float32_from(self.calibration.threshold_logit), self.calibration.accept_logit
        is_bad = score >= bad
        is_flagged = is_bad if accept is None else score >= _float32_from(accept)
        normalised = torch.sigmoid(score - bad)
        return outputs | {
            "score": torch.where(is_bad, normalised, normalised.clamp(max=_BELOW_HALF)),  # below, also when rounded
            "verdict": is_flagged.to(torch.uint8) + is_bad.to(torch.uint8),
            "defects": (counted >= self.calibration.pixel_logit).to(torch.uint8),
        }


def _float32_from(threshold: float) -> float:
    """Return the lowest float32 that is at least the threshold: float32 scores reach both or neither."""
    rounded = np.float32(threshold)
    return float(rounded if float(rounded) >= threshold else np.nextafter(rounded, np.float32(np.inf)))
