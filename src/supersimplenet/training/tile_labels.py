"""Labels of one training image or of its tiles: its mask widened, weighted and brought to the map's resolution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from supersimplenet.datasets.masks import MaskReader
from supersimplenet.datasets.regions import Cover, Regions
from supersimplenet.model.config import LabelRecipe
from supersimplenet.preprocessing.geometry import HALF, TOUCHED, resize_mask, resize_plane, resize_weights
from supersimplenet.preprocessing.prepared_image import Layout
from supersimplenet.preprocessing.preprocessor import Preprocessor
from supersimplenet.preprocessing.resizing import Resize, bilinear_plane, nearest_plane
from supersimplenet.types import BAD, Sample

_AS_MUCH = 0.9  # share of a region from which on a tile shows as much of it as another: it may be cut off by a pixel


@dataclass(frozen=True)
class TileLabels:
    """Labels of one tile: the planes are (h, w), None where they are plain.

    Attributes:
        bad: whether the tile is bad.
        known: whether its pixel labels are known.
        defective: positions of the map that are defective.
        ignored: positions that count nowhere.
        weight: factor of each position in the loss.
        touched: positions that a region too small for the map merely touches; they count in no loss.
    """

    bad: bool
    known: bool = True
    defective: NDArray[np.bool_] | None = None
    ignored: NDArray[np.bool_] | None = None
    weight: NDArray[np.float32] | None = None
    touched: NDArray[np.bool_] | None = None

    def keeping(self, kept: Sequence[Cover], touching: Sequence[Cover]) -> TileLabels:
        """Return the labels with the best position of some regions defective, and the others touched not counted."""
        if self.defective is None or not (kept or touching):
            return self
        size = self.defective.shape
        best, touched = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
        for cover in kept:
            best[cover.best] = True
        for cover in touching:
            touched |= cover.touched((size[0], size[1]))
        defective = self.defective | best
        weight = None if self.weight is None else np.where(best, np.maximum(self.weight, 1), self.weight)
        return replace(self, defective=defective, weight=weight, touched=touched & ~defective)


_Plane = NDArray[np.float32]
_Resizer = Callable[[_Plane, tuple[int, int]], _Plane]
Tiles = list[tuple[int, tuple[slice, slice], TileLabels | str]]
_ALL = (slice(None), slice(None))
# How a mask comes to the size of the resized image, and from there to the network's map.
_STEPS: dict[Resize, tuple[_Resizer, _Resizer]] = {
    "antialiased": (resize_plane, resize_plane),
    "bilinear": (nearest_plane, bilinear_plane),
}


def label_tiles(
    sample: Sample, recipe: LabelRecipe, size: tuple[int, int], preprocessor: Preprocessor | None, masks: MaskReader
) -> tuple[Tiles, int]:
    """Return the tiles of a sample, and the number of its regions that are too small for the map.

    For each tile: number, own region, and labels or the reason why the tile is left out.
    """
    is_bad = sample.label == BAD
    if preprocessor is None or preprocessor.is_plain:
        if not is_bad and sample.ignore is None:
            return [(0, _ALL, TileLabels(bad=False))], 0
        mask, ignored = masks.defects(sample) if is_bad else None, masks.ignored(sample, size)
        if mask is None or not mask.any():
            return [(0, _ALL, TileLabels(is_bad, not is_bad, ignored=ignored))], 0
        through = None
        if preprocessor is not None and preprocessor.config.resize == "bilinear":
            through = preprocessor.size_px
        labels, small = _whole_image(widen(mask, recipe.mask_dilation_px), ignored, recipe, size, through=through)
        return [(0, _ALL, labels)], small
    layout = preprocessor.lay_out(sample.image, masks.ignored(sample))
    mask = masks.defects(sample) if is_bad else None
    ignored_in: dict[int, NDArray[np.bool_] | None] = {}  # of the tiles in which enough counts
    for tile in range(len(layout.grid)):
        hidden = layout.ignored_in(tile)
        if layout.scores(hidden):
            ignored_in[tile] = None if hidden is None else resize_mask(hidden, size, at_least=TOUCHED)
    small = 0
    labels_of: dict[int, TileLabels | str]
    if mask is not None and mask.any():
        labels_of, small = _cut_labels(layout, ignored_in, widen(mask, recipe.mask_dilation_px), recipe, size)
    elif is_bad and len(layout.grid) > 1:
        labels_of = dict.fromkeys(ignored_in, "of_bad_images_without_mask")
    else:
        labels_of = {tile: TileLabels(is_bad, not is_bad, ignored=ignored) for tile, ignored in ignored_in.items()}
    return [(tile, layout.grid.own(tile), labels) for tile, labels in labels_of.items()], small


def _whole_image(
    mask: NDArray[np.bool_],
    ignored: NDArray[np.bool_] | None,
    recipe: LabelRecipe,
    size: tuple[int, int],
    *,
    through: tuple[int, int] | None,
) -> tuple[TileLabels, int]:
    """Return the labels of a bad image from its widened mask at its own size, and its number of small regions.

    The mask comes to the map at once, averaged; where ``through`` gives the network's input size, as published: first
    its nearest pixels at that size.
    """

    def on_map(plane: _Plane) -> _Plane:
        return resize_plane(plane, size) if through is None else bilinear_plane(nearest_plane(plane, through), size)

    weight = None if recipe.distance_weight is None else on_map(distance_weight(mask, *recipe.distance_weight))
    labels = TileLabels(True, defective=on_map(mask.astype(np.float32)) >= HALF, ignored=ignored, weight=weight)
    if recipe.small_regions == "drop":
        return labels, 0
    rows, columns = (resize_weights(length, side) for length, side in zip(mask.shape, size, strict=True))
    kept, touching, small = _small_regions(Regions(mask), {0: labels}, {0: (rows, columns)})
    return labels.keeping(kept[0], touching[0]), small


def _cut_labels(
    layout: Layout,
    ignored_in: Mapping[int, NDArray[np.bool_] | None],
    mask: NDArray[np.bool_],
    recipe: LabelRecipe,
    size: tuple[int, int],
) -> tuple[dict[int, TileLabels | str], int]:
    """Return the labels of each tile of a bad image, or why it is left out, and the image's number of small regions."""
    grid, placement = layout.grid, layout.placement
    to_image, to_positions = _STEPS[placement.resize]
    on_frame = placement.plane_on_frame(mask.astype(np.float32))
    on_map = to_image(on_frame, placement.map_size_px)
    weight_on_map = None
    if recipe.distance_weight is not None:
        weight = placement.plane_on_frame(distance_weight(mask, *recipe.distance_weight))
        weight_on_map = to_image(weight, placement.map_size_px)
    part_of = {tile: grid.plane(on_map, tile, beyond=0.0) for tile in ignored_in}
    labels_of = {}
    for tile, ignored in ignored_in.items():
        weighed = None if weight_on_map is None else to_positions(grid.plane(weight_on_map, tile, beyond=1.0), size)
        defective = to_positions(part_of[tile], size) >= HALF
        labels_of[tile] = TileLabels(True, defective=defective, ignored=ignored, weight=weighed)
    small = 0
    if recipe.small_regions == "keep":
        axes = list(zip(on_frame.shape, size, placement.map_size_px, grid.tile_size_px, strict=True))
        weights = {}
        for tile in ignored_in:
            rows, columns = (_axis_weights(*axis, first) for axis, first in zip(axes, grid.corner(tile), strict=True))
            weights[tile] = rows, columns
        kept, touching, small = _small_regions(Regions(on_frame), labels_of, weights)
        labels_of = {tile: labels.keeping(kept[tile], touching[tile]) for tile, labels in labels_of.items()}
    return {tile: _labels_or_reason(labels, part_of[tile], layout, tile) for tile, labels in labels_of.items()}, small


def _labels_or_reason(labels: TileLabels, part: NDArray[np.float32], layout: Layout, tile: int) -> TileLabels | str:
    """Return the labels of a tile; good ones where its part of the mask does not touch it."""
    assert labels.defective is not None
    counted = labels.defective if labels.ignored is None else labels.defective & ~labels.ignored
    if len(layout.grid) == 1 or counted.any():
        return labels
    hidden = layout.ignored_in(tile)
    touches = (part >= TOUCHED) if hidden is None else (part >= TOUCHED) & ~hidden
    return "touched" if touches.any() else TileLabels(False, ignored=labels.ignored)


_Weights = tuple[NDArray[np.float32], NDArray[np.float32]]


def _small_regions(
    regions: Regions, labels_of: Mapping[int, TileLabels], weights: Mapping[int, _Weights]
) -> tuple[dict[int, list[Cover]], dict[int, list[Cover]], int]:
    """Find the regions that disappear in an image, and those that merely reach into a tile.

    Args:
        regions: the regions of the image's mask.
        labels_of: the labels of each tile.
        weights: from the mask to each tile's map: the matrix of its rows, and of its columns.

    Returns:
        For each tile, the regions whose best position in it is kept, and those whose touched positions do not count;
        and the number of regions that survive in no tile and keep a position that is not ignored. A region that
        several tiles show is kept in each that shows as much of it as any does.
    """
    defective_in = {tile: labels.defective for tile, labels in labels_of.items() if labels.defective is not None}
    covers_of = {tile: regions.covers(*weights[tile]) for tile in labels_of}
    kept: dict[int, list[Cover]] = {tile: [] for tile in labels_of}
    touching: dict[int, list[Cover]] = {tile: [] for tile in labels_of}
    small = 0
    for number in range(len(regions)):
        seen = {tile: covers[number] for tile, covers in covers_of.items() if covers[number].touches}
        lost = {tile: cover for tile, cover in seen.items() if not cover.survives(defective_in[tile])}
        most = max((cover.amount for cover in seen.values()), default=0.0)
        counts = False
        for tile, cover in lost.items():
            touching[tile].append(cover)
            if len(lost) == len(seen) and cover.amount >= _AS_MUCH * most:
                kept[tile].append(cover)
                ignored = labels_of[tile].ignored
                counts |= ignored is None or not ignored[cover.best]
        small += counts
    return kept, touching, small


@lru_cache(maxsize=32)
def _axis_weights(length: int, target: int, on_map: int, tile: int, first: int) -> NDArray[np.float32]:
    """Return the share of each row of a frame in each row of a tile's map: (target, length), or of columns.

    Args:
        length: number of rows of the frame.
        target: number of rows of the network's map.
        on_map: number of rows to which the whole frame is resized.
        tile: number of rows of a tile.
        first: the tile's first row.
    """
    return resize_weights(tile, target) @ resize_weights(length, on_map, first, tile)


def widen(mask: NDArray[np.bool_], side_px: int) -> NDArray[np.bool_]:
    """Dilate a mask (H, W) by a square of ``side_px`` (odd)."""
    return ndimage.maximum_filter(mask, size=side_px, mode="constant", cval=False) if side_px > 1 else mask


def distance_weight(mask: NDArray[np.bool_], scale: float, power: float) -> NDArray[np.float32]:
    """Compute the weight of each pixel: ``scale * (d / d_max) ** power`` in a region, 1 outside.

    Args:
        mask: (H, W) bool; a region is 8-connected.
        scale: weight of the pixel farthest inside.
        power: how fast the weight falls towards the edge.

    Returns:
        (H, W) float32; d is the distance in pixels to the nearest pixel outside the region, d_max its largest value.
    """
    weight = np.ones(mask.shape, dtype=np.float32)
    if mask.all():  # the image's border counts as an edge only if there is no other edge
        distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    else:
        distance = ndimage.distance_transform_edt(mask)
    region, count = ndimage.label(mask, structure=ndimage.generate_binary_structure(2, 2))
    deepest = np.concatenate([[1.0], ndimage.maximum(distance, region, np.arange(1, count + 1))])
    weight[mask] = scale * (distance / deepest[region])[mask] ** power
    return weight
