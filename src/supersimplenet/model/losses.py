"""The training loss, computed from logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from supersimplenet.model.heads import HeadOutput
from supersimplenet.model.ops import AllReduce, identity

_MARGIN = 0.5
_GAMMA = 4.0


def supersimplenet_loss(
    output: HeadOutput,
    mask: Tensor,
    label: Tensor,
    *,
    counted: Tensor | None = None,
    weight: Tensor | None = None,
    all_reduce: AllReduce = identity,
) -> Tensor:
    """Compute the sum of truncated L1 on the map, focal loss on the map and focal loss on the score, all with weight 1.

    Args:
        output: logits of N images.
        mask: (N, h, w) bool, True on defective (and noised) pixels.
        label: (N,) bool, True for a bad (or noised) image.
        counted: (N, h, w) bool, the pixels that count in the map's terms; None for all. Ignored pixels do not count,
            nor does any pixel of an image whose pixel labels are unknown.
        weight: (N, h, w) float, factor of each pixel's terms (a mean still divides by the number of pixels); None for
            1.
        all_reduce: sums over the processes that share the batch. The mean of the processes' losses is then the loss of
            the batch, as the mean of their gradients is its gradient.

    Returns:
        () float32, or float64 where the logits are float64.

    Source: JIMS section 3.4. Differs: computed from logits, which saves the rounding of the sigmoid. A mean over no
    pixel is 0.
    """
    precision = torch.promote_types(output.map_logit.dtype, torch.float32)
    map_logit, score_logit = output.map_logit.to(precision), output.score_logit.to(precision)
    on_map = _focal(map_logit, mask)
    normal, defective = (map_logit + _MARGIN).clamp_min(0), (_MARGIN - map_logit).clamp_min(0)
    if weight is not None:
        on_map, normal, defective = on_map * weight, normal * weight, defective * weight
    everywhere = torch.ones_like(mask) if counted is None else counted
    terms = [
        (normal, ~mask & everywhere),
        (defective, mask & everywhere),
        (on_map, everywhere),
        (_focal(score_logit, label), torch.ones_like(label)),
    ]
    counts = torch.stack([chosen.sum() for _, chosen in terms] + [label.new_ones((), dtype=torch.int64)])
    *of_terms, processes = all_reduce(counts).unbind()
    # A mean over nothing is 0.
    means = [
        (values * chosen).sum() * processes / count.clamp_min(1)
        for (values, chosen), count in zip(terms, of_terms, strict=True)
    ]
    return torch.stack(means).sum()


def _focal(logit: Tensor, target: Tensor) -> Tensor:
    """Compute ``-(1 - p)^4 log p``, p the probability given to the true class; Lin et al. 2017, without alpha."""
    true_logit = torch.where(target, logit, -logit)
    return torch.sigmoid(-true_logit) ** _GAMMA * -F.logsigmoid(true_logit)
