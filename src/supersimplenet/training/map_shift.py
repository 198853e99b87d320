"""The shift of the anomaly map against the image, measured on defects painted on good images that were trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from supersimplenet.datasets.masks import MaskReader
from supersimplenet.datasets.painted import Painted, painted_images
from supersimplenet.inference.model_folder import move_to
from supersimplenet.metrics.ranking import average_precision
from supersimplenet.model.config import LARGEST_SHIFT_PX, NO_SHIFT, Recipe, is_shift
from supersimplenet.model.folded import FoldedNetwork
from supersimplenet.model.network import SuperSimpleNet, anomaly_map
from supersimplenet.preprocessing.preprocessor import Preprocessor
from supersimplenet.types import Sample
from supersimplenet.utils.console import console

Shift = tuple[int, int]
_PAINTED = 48  # at most; and at most two on each good image
_FEWEST = 8  # fewer painted images tell nothing
_ERRORS = 2.5  # a gain of so many standard errors is no chance; more than the usual two: it is the best of several
_GRID_PX = 128  # every pixel of an input of this side is compared, every second one of an input of twice the side


@dataclass(frozen=True, kw_only=True)
class MapShift:
    """The shift of a model's map, and what it was measured on.

    Attributes:
        shift_px: (down, right) in pixels of the network's input; (0, 0) where no shift helps beyond chance.
        painted_images: number of painted images.
        precision: mean over them of the average precision of their pixels, without a shift.
        gain: mean gain of this precision by the best shift, whether it is applied or not.
        gain_error: standard error of the gain.
    """

    shift_px: Shift = NO_SHIFT
    painted_images: int = 0
    precision: float = 0.0
    gain: float = 0.0
    gain_error: float = 0.0

    def describe(self) -> str | None:
        """Return a sentence about the shift; None where there is none."""
        if self.shift_px == NO_SHIFT:
            return None
        down, right = self.shift_px
        return (
            f"the anomaly map is moved up by {down} px and left by {right} px: on {self.painted_images} painted "
            f"defects the average precision of its pixels rises from {self.precision:.3f} by {self.gain:.3f} "
            f"± {self.gain_error:.3f}"
        )


@torch.inference_mode()
def choose_map_shift(
    recipe: Recipe,
    network: SuperSimpleNet,
    samples: Sequence[Sample],
    *,
    preprocessor: Preprocessor,
    masks: MaskReader,
    seed: int,
) -> MapShift:
    """Return the recipe's shift, or find the one by which the map fits painted defects best.

    Each painted image is compared with itself, so that its own difficulty does not count. First both axes are moved
    alike, then each alone as long as it helps.

    Args:
        recipe: gives the shift, unless it is ``auto``.
        network: the trained network, on its device; its own shift has no influence.
        samples: good images that were trained on, never held-out ones.
        preprocessor: prepares the images.
        masks: reads their ignore masks.
        seed: seed of the painted defects.

    Raises:
        ImageError: an image can no longer be read.
    """
    if recipe.map_shift_px != "auto":
        return MapShift(shift_px=recipe.map_shift_px)
    if not samples:
        return MapShift()
    device = network.trained_heads.map.weight.device
    folded = move_to(FoldedNetwork(network), device).eval()
    painted = painted_images(
        [sample.image for sample in samples],
        min(_PAINTED, 2 * len(samples)),
        preprocessor=preprocessor,
        seed=seed,
        ignored=lambda index: masks.ignored(samples[index]),
    )
    cases = [case for case in (_look(folded, item, device) for item in painted) if case.mask[case.compared].any()]
    if len(cases) < _FEWEST:
        return MapShift(painted_images=len(cases))
    measured = best_shift(cases)
    if (line := measured.describe()) is not None:
        console().print(line)
    return measured


@dataclass(frozen=True, kw_only=True)
class Case:
    """What the network makes of a painted image.

    Attributes:
        map_logit: (1, h, w) map, not upscaled.
        ignored: (1, h, w) bool, positions that are left out; None for none.
        counted: (H, W) bool, pixels of the input that count.
        mask: (H, W) bool, pixels of the painted defect.
    """

    map_logit: Tensor
    ignored: Tensor | None
    counted: NDArray[np.bool_]
    mask: NDArray[np.bool_]

    @property
    def compared(self) -> NDArray[np.bool_]:
        """(H, W) bool, the counted pixels that are compared."""
        step = max(1, min(self.mask.shape) // _GRID_PX)
        compared = np.zeros_like(self.counted)
        compared[::step, ::step] = self.counted[::step, ::step]
        return compared

    def precision(self, shift_px: Shift) -> float:
        """Return the average precision of the pixels of the map that is moved back by a shift."""
        moved = anomaly_map(self.map_logit, self.mask.shape, self.ignored, shift_px=shift_px)
        return average_precision(moved[0].cpu().numpy()[self.compared], self.mask[self.compared])


def best_shift(cases: Sequence[Case]) -> MapShift:
    """Return the shift that helps most, or none where it does not help beyond chance."""
    without = np.array([case.precision(NO_SHIFT) for case in cases])
    known: dict[Shift, NDArray[np.float64]] = {NO_SHIFT: np.zeros(len(cases))}

    def gain(shift: Shift) -> float:
        if shift not in known:
            known[shift] = np.array([case.precision(shift) for case in cases]) - without
        return float(known[shift].mean())

    best = max(((pixels, pixels) for pixels in range(LARGEST_SHIFT_PX + 1)), key=gain)
    while True:
        down, right = best
        beside = ((down - 1, right), (down + 1, right), (down, right - 1), (down, right + 1))
        better = max((shift for shift in beside if is_shift(shift)), key=gain)
        if gain(better) <= gain(best):
            break
        best = better
    error = float(known[best].std(ddof=1)) / math.sqrt(len(cases))
    return MapShift(
        shift_px=best if gain(best) > _ERRORS * error else NO_SHIFT,
        painted_images=len(cases),
        precision=float(without.mean()),
        gain=gain(best),
        gain_error=error,
    )


def _look(network: FoldedNetwork, painted: Painted, device: torch.device) -> Case:
    """Return what the network makes of the tile on which a defect was painted."""
    layout = painted.prepared.layout
    pixels = torch.from_numpy(np.ascontiguousarray(painted.prepared.tile_pixels(painted.tile)))[None].to(device)
    ignored = layout.ignored_in(painted.tile)
    masked = None if ignored is None else torch.from_numpy(ignored)[None].to(device)
    output, touched = network.raw(pixels, masked)
    mask = layout.grid.plane(painted.mask, painted.tile, beyond=False)
    counted = np.ones_like(mask) if ignored is None else ~ignored
    return Case(map_logit=output.map_logit, ignored=touched, counted=counted, mask=mask)
