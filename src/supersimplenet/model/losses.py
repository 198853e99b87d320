"""The training loss, from logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from supersimplenet.model.heads import HeadOutput

_MARGIN = 0.5
_GAMMA = 4.0


def supersimplenet_loss(output: HeadOutput, mask: Tensor, label: Tensor) -> Tensor:
    """Truncated L1 on the map, focal loss on the map, focal loss on the score; all with weight 1.

    Args:
        output: logits of N images.
        mask: (N, h, w) bool, True on defective (and noised) pixels.
        label: (N,) bool, True for a bad (or noised) image.

    Returns:
        () float32, or float64 where the logits are.

    Source: JIMS section 3.4. Differs: computed from logits, which saves the rounding of the sigmoid. A mean over no
    pixel is 0.
    """
    precision = torch.promote_types(output.map_logit.dtype, torch.float32)
    map_logit, score_logit = output.map_logit.to(precision), output.score_logit.to(precision)
    return _truncated_l1(map_logit, mask) + _focal(map_logit, mask) + _focal(score_logit, label)


def _focal(logit: Tensor, target: Tensor) -> Tensor:
    """Mean of ``-(1 - p)^4 log p``, p the probability given to the true class; Lin et al. 2017, without alpha."""
    true_logit = torch.where(target, logit, -logit)
    return (torch.sigmoid(-true_logit) ** _GAMMA * -F.logsigmoid(true_logit)).mean()


def _truncated_l1(map_logit: Tensor, mask: Tensor) -> Tensor:
    """Mean over normal pixels of ``max(0, s + 0.5)`` plus mean over defective pixels of ``max(0, 0.5 - s)``."""
    normal = (map_logit + _MARGIN).clamp_min(0) * ~mask
    defective = (_MARGIN - map_logit).clamp_min(0) * mask
    return normal.sum() / (~mask).sum().clamp_min(1) + defective.sum() / mask.sum().clamp_min(1)
