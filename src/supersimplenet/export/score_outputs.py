"""The last nodes of an exported graph: from the network's maps and scores to the deciding score and the verdict.

They are traced apart from the network, so that a quantiser never changes them, and that they can get their thresholds
after the network has been calibrated in its final precision.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from supersimplenet.postprocessing.postprocessor import PostProcessor
from supersimplenet.types import SCORE_FIELDS

_BELOW_HALF = float(np.nextafter(np.float32(0.5), np.float32(0)))


class ScoreOutputs(nn.Module):
    """Computes the outputs of a graph beside those of the network.

    Args:
        postprocessor: the scale of the scores, the score that decides, and the thresholds.
        inputs: names of what `forward` is given: outputs of the network, see `supersimplenet.runtime.tiles.Outputs`,
            and ``ignored`` where the graph has such an input.
        gives_verdict: the graph sees whole images at the size of the thresholds, so that it can also output score,
            verdict and defects; not where zones decide, whose score the runtime computes from the map.
    """

    def __init__(self, postprocessor: PostProcessor, *, inputs: Sequence[str], gives_verdict: bool) -> None:
        super().__init__()
        self.inputs = tuple(inputs)
        self.scale = postprocessor.score_scale
        self.decides = postprocessor.image_score
        self.calibration = postprocessor.calibration if gives_verdict else None

    def forward(self, *given: Tensor) -> dict[str, Tensor]:
        """Compute the outputs.

        Args:
            given: the values of ``inputs``; maps (B, H, W) and scores (B,) are float32, ``ignored`` (B, H, W) is uint8,
                not 0 on pixels that count in no score.

        Returns:
            Outputs by name, as `supersimplenet.runtime.bundle.describe_outputs` describes them.
        """
        found = dict(zip(self.inputs, given, strict=True))
        ignored = found.get("ignored")

        def counted(plane: Tensor) -> Tensor:
            return plane if ignored is None else plane.masked_fill(ignored > 0, -torch.inf)

        own, subspace_map = found.get("map"), found.get("subspace_map")
        map_max = None if own is None else counted(own).amax((1, 2))
        scores = self.scale.scores(found.get("head_logit"), map_max, found.get("subspace_logit"))
        outputs = {SCORE_FIELDS[name]: score for name, score in scores.items() if name in ("map", "fused", "joint")}
        shown = self.scale.shown_map(own, subspace_map)
        if shown is not own:
            outputs["shown_map"] = shown
        if self.decides == "zones":
            return outputs
        decides = scores[self.decides]
        score = decides + 0.0  # a tensor of its own, because a tensor has one name in some engines
        outputs["score_logit"] = score
        if self.calibration is None:
            return outputs
        bad, accept = _float32_from(self.calibration.threshold_logit), self.calibration.accept_logit
        is_bad = score >= bad
        is_flagged = is_bad if accept is None else score >= _float32_from(accept)
        normalised = torch.sigmoid(score - bad)
        return outputs | {
            "score": torch.where(is_bad, normalised, normalised.clamp(max=_BELOW_HALF)),  # below, also when rounded
            "verdict": is_flagged.to(torch.uint8) + is_bad.to(torch.uint8),
            "defects": (counted(shown) >= self.calibration.pixel_logit).to(torch.uint8),
        }


def _float32_from(threshold: float) -> float:
    """Return the lowest float32 that is at least the threshold: float32 scores reach both or neither."""
    rounded = np.float32(threshold)
    return float(rounded if float(rounded) >= threshold else np.nextafter(rounded, np.float32(np.inf)))
