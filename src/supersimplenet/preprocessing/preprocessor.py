"""The preprocessor: the only way from a file or an array to network inputs, for every use. No torch.

1. The image is read (`supersimplenet.preprocessing.images`).
2. It is aligned with the reference, where there is one: the *frame* is then the area of the reference, else the image.
3. The frame is resized to the size of the *map*: to the network's input size (``stretch``), to the largest size that
   fits into it with the proportions kept (``pad``), or by ``scale`` (``tiles``); antialiased, or as published.
4. The map's area is cut into tiles of the network's input size, one or many; a tile that reaches beyond the area is
   filled up with its mirror image, which counts nowhere.

These pixels count nowhere either: those outside the region of interest, those of an ignore mask, and those of the frame
that the image does not show.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from supersimplenet.errors import ConfigError, DataError, ImageError
from supersimplenet.preprocessing.alignment import Aligner, Alignment, Motion
from supersimplenet.preprocessing.decoding import EncodedImage, image_size, within_memory
from supersimplenet.preprocessing.geometry import TOUCHED, Affine, Placement, resize_mask, warp_pixels, warp_plane
from supersimplenet.preprocessing.images import (
    AnyImage,
    prepare_pixels,
    read_any,
    read_image,
    read_mask,
    read_with_facts,
)
from supersimplenet.preprocessing.polygons import WANTED, fill_polygons, parse_polygons, require_proportions
from supersimplenet.preprocessing.prepared_image import Layout, PreparedImage
from supersimplenet.preprocessing.reading import FULL_RANGE, ReadConfig
from supersimplenet.preprocessing.resizing import Resize, bilinear_pixels
from supersimplenet.preprocessing.tiling import TileGrid
from supersimplenet.utils.documents import MAX_BYTES, UnreadableError, parse_json
from supersimplenet.utils.formatting import shown_px
from supersimplenet.utils.text_files import read_text

Fit = Literal["stretch", "pad", "tiles"]
_OUTSIDE_RGB = (124, 116, 104)  # mean colour of the ImageNet photographs that backbones are trained on
_LARGEST_OVERLAP = 0.75
_LARGEST_SCALE = 16
_TILE_OVERLAP, _MAX_RESIDUAL = 0.25, 0.5


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """Settings of the preparation of images for the network, in training and in every later use.

    Args:
        fit: ``stretch`` resizes the image to the network's input size, without keeping the proportions; ``pad`` keeps
            the proportions and fills the rest with pixels that count nowhere; ``tiles`` cuts the image into tiles of
            the input size, so that small defects of large images are not lost in resizing.
        tile_overlap: smallest share of a tile that it has in common with the next tile.
        scale: factor by which an image is resized before it is cut into tiles.
        resize: ``antialiased`` averages the pixels that become one; ``bilinear`` reads four pixels for each and the
            nearest pixel of a mask, as published (OpenCV's default).
        roi: the region of interest: a mask image, white inside the region, or a JSON file with a polygon, which is a
            list of [x, y] in pixels. Outside the region nothing counts, and the network gets the reference, or one
            colour, instead of the image. Draw it on the reference where there is one, else on any image; images of
            other sizes must have the same proportions.
        align: align each image with the reference before anything else, by ``translation`` alone or ``rigid``: also by
            rotation (needs OpenCV: the extra ``align``).
        reference: image of a good part in its normal position, with which other images are aligned.
        max_residual: largest difference from the reference that is accepted after alignment: 0 is equal, 1 unlike; an
            image that differs more is rejected.
    """

    fit: Fit = "stretch"
    tile_overlap: float = _TILE_OVERLAP
    scale: float = 1.0
    resize: Resize = "antialiased"
    roi: Path | None = None
    align: Motion = "none"
    reference: Path | None = None
    max_residual: float = _MAX_RESIDUAL

    def __post_init__(self) -> None:
        for name, choices in (("fit", get_args(Fit)), ("align", get_args(Motion)), ("resize", get_args(Resize))):
            if getattr(self, name) not in choices:
                raise ConfigError(f"view.{name}: '{getattr(self, name)}'; choose {', '.join(choices)}")
        if not 0 <= self.tile_overlap <= _LARGEST_OVERLAP:
            raise ConfigError(f"view.tile_overlap: {self.tile_overlap}; wanted 0 to {_LARGEST_OVERLAP}")
        if not 0 < self.scale <= _LARGEST_SCALE:
            raise ConfigError(f"view.scale: {self.scale}; wanted above 0, at most {_LARGEST_SCALE}")
        if not 0 < self.max_residual <= 1:
            raise ConfigError(f"view.max_residual: {self.max_residual}; wanted above 0, at most 1")
        if self.fit != "tiles" and (self.scale != 1 or self.tile_overlap != _TILE_OVERLAP):
            raise ConfigError(f"view.scale and view.tile_overlap: count for tiles alone, and the fit is {self.fit}")
        if (self.align == "none") != (self.reference is None):
            given, wanted = ("align", "reference") if self.reference is None else ("reference", "align")
            raise ConfigError(f"view.{given}: needs view.{wanted} too; give both, or neither")
        if self.align == "none" and self.max_residual != _MAX_RESIDUAL:
            raise ConfigError("view.max_residual: counts for aligned images alone; give view.align and view.reference")


class Preprocessor:
    """Prepares images for a network of one input size.

    Args:
        config: see `ViewConfig`; the contents of its files are given as arrays.
        size_px: (height, width) of the network's input.
        reading: how image files and arrays become pixels.
        strides: of the network's feature maps, in pixels, ascending.
        roi: (H, W) bool, True inside the region of interest; None for the whole image.
        reference: (H, W, 3) uint8, RGB; None where images are not aligned.

    Raises:
        ConfigError: OpenCV is not installed, and images are to be aligned.
        DataError: the region of interest does not have the size of the reference, or is empty.
    """

    def __init__(
        self,
        config: ViewConfig,
        *,
        size_px: tuple[int, int],
        reading: ReadConfig = FULL_RANGE,
        strides: tuple[int, ...] = (8, 16),
        roi: NDArray[np.bool_] | None = None,
        reference: NDArray[np.uint8] | None = None,
    ) -> None:
        self.config = config
        self.size_px = size_px
        self.reading = reading
        self.step_px = max(strides)
        self.least_px = min(strides) + 2  # such a square holds a whole position of the map, which has half that stride
        self.roi = roi
        self.aligner = None if reference is None else Aligner(reference, config.align, max_residual=config.max_residual)
        self._outside: tuple[tuple[int, int], NDArray[np.bool_]] | None = None
        self._reference_on_map: NDArray[np.uint8] | None = None
        if roi is not None and not roi.any():
            raise DataError("view.roi: marks nothing, so no pixel would count; mark the region of interest in white")
        if roi is not None and reference is not None and roi.shape != reference.shape[:2]:
            raise DataError(
                f"view.roi: is {shown_px(roi.shape)}, the reference {shown_px(reference.shape)} (height x width); "
                "draw it on the reference"
            )

    @classmethod
    def stretch(cls, size_px: tuple[int, int]) -> Preprocessor:
        """Return the preprocessor that resizes every image to the network's input size and counts all of it."""
        return cls(ViewConfig(), size_px=size_px)

    @property
    def is_plain(self) -> bool:
        """Whether images are only resized to the network's input size, in any way, and every pixel counts."""
        return self.config.fit == "stretch" and self.roi is None and self.aligner is None

    def prepare(
        self,
        image: AnyImage,
        ignored: NDArray[np.bool_] | None = None,
        *,
        with_facts: bool = False,
    ) -> PreparedImage:
        """Prepare an image for the network.

        Args:
            image: see `read_any`.
            ignored: (H, W) of the image, pixels that count nowhere; None for none.
            with_facts: also return the facts about the file; only for a path.

        Raises:
            ImageError: the image cannot be read or aligned, its proportions are not those of the region of interest, or
                nothing of it counts.
        """
        with within_memory(image if isinstance(image, str | Path | EncodedImage) else "image"):
            return self._prepare(image, ignored, with_facts=with_facts)

    def _prepare(self, image: AnyImage, ignored: NDArray[np.bool_] | None, *, with_facts: bool) -> PreparedImage:
        at_once = self.config.fit == "stretch" and self.aligner is None and self.config.resize == "antialiased"
        resized_to = self.size_px if at_once else None
        facts = None
        if with_facts and isinstance(image, str | Path):
            pixels, image_size_px, facts = read_with_facts(image, size_px=resized_to, reading=self.reading)
            name = str(image)
        else:
            pixels, image_size_px, name = read_any(image, size_px=resized_to, reading=self.reading)
        turn, alignment = None, None
        if self.aligner is not None:
            turn, alignment = self.aligner.align(pixels, name)
            frame_size_px = self.aligner.size_px
            covered = warp_plane(np.ones(image_size_px, dtype=np.float32), turn, frame_size_px) > 0
            # Beyond the image, the reference is filled in: it counts nowhere, but it affects the positions next to it.
            pixels = np.where(covered[..., None], warp_pixels(pixels, turn, frame_size_px), self.aligner.reference)
        layout = self._lay_out(image_size_px, ignored, name, turn=turn, alignment=alignment)
        if pixels.shape[:2] != layout.placement.map_size_px:
            pixels = self._resized(pixels, layout.placement.map_size_px)
        if self.roi is not None:
            pixels = self._without_outside(pixels, self.outside_roi(layout.placement, name))
        return PreparedImage(pixels=pixels, layout=layout, facts=facts)

    def lay_out(self, image: Path, ignored: NDArray[np.bool_] | None = None) -> Layout:
        """Return the layout of an image file, from its header alone unless images are aligned; see `prepare`."""
        if self.aligner is not None:
            return self.prepare(image, ignored).layout
        return self._lay_out(image_size(image, page=self.reading.page), ignored, str(image))

    def _lay_out(
        self,
        image_size_px: tuple[int, int],
        ignored: NDArray[np.bool_] | None,
        name: str,
        *,
        turn: Affine | None = None,
        alignment: Alignment | None = None,
    ) -> Layout:
        frame_size_px = image_size_px if self.aligner is None else self.aligner.size_px
        placement = Placement(
            map_size_px=self.map_size_px(frame_size_px),
            image_size_px=image_size_px,
            frame_size_px=frame_size_px,
            turn=turn,
            resize=self.config.resize,
        )
        layout = Layout(
            placement=placement,
            grid=self.grid(placement.map_size_px),
            ignored=self._ignored(placement, ignored, name),
            least_px=self.least_px,
            reading=self.reading,
            alignment=alignment,
        )
        if not layout.holds_anything:
            raise ImageError(
                f"{name}: no pixel of it counts; make the ignore mask smaller or the region of interest "
                f"larger: {self.least_px} px of the resized image, either way, are the least"
            )
        return layout

    def map_size_px(self, frame_size_px: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) of the map of a frame."""
        height, width = frame_size_px
        if self.config.fit == "stretch":
            return self.size_px
        share = self.config.scale
        if self.config.fit == "pad":
            share = min(self.size_px[0] / height, self.size_px[1] / width)
        return max(1, round(height * share)), max(1, round(width * share))

    def grid(self, map_size_px: tuple[int, int]) -> TileGrid:
        """Return the tiles of a map."""
        return TileGrid.of(map_size_px, self.size_px, overlap=self.config.tile_overlap, step_px=self.step_px)

    def _ignored(self, placement: Placement, ignored: NDArray[np.bool_] | None, name: str) -> NDArray[np.bool_] | None:
        """Return the pixels that count nowhere, at the map's size; None for none."""
        masks = []
        if ignored is not None:
            masks.append(placement.mask_on_map(ignored, at_least=TOUCHED))
        if placement.turn is not None:
            shown = np.ones(placement.image_size_px, dtype=np.float32)
            missing = warp_plane(shown, placement.turn, placement.frame_size_px) < 1
            if missing.any():
                masks.append(resize_mask(missing, placement.map_size_px, at_least=TOUCHED))
        if self.roi is not None:
            masks.append(self.outside_roi(placement, name))
        if not masks:
            return None
        result = masks[0]
        for mask in masks[1:]:
            result = result | mask
        return result

    def outside_roi(self, placement: Placement, name: str) -> NDArray[np.bool_]:
        """Return the pixels of a map that lie outside the region of interest, also in part: (H, W).

        Raises:
            ImageError: the image's proportions are not those of the region of interest.
        """
        assert self.roi is not None
        what = "the region of interest was"
        require_proportions(placement.frame_size_px, self.roi.shape, what=what, name=name)
        kept = self._outside  # cached for the last size: most images have one size
        if kept is None or kept[0] != placement.map_size_px:
            kept = (placement.map_size_px, resize_mask(~self.roi, placement.map_size_px, at_least=TOUCHED))
            self._outside = kept
        return kept[1]

    def _resized(self, pixels: NDArray[np.uint8], size_px: tuple[int, int]) -> NDArray[np.uint8]:
        if self.config.resize == "bilinear":
            return bilinear_pixels(pixels, size_px)
        return prepare_pixels(pixels, size_px=size_px)

    def _without_outside(self, pixels: NDArray[np.uint8], outside: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Fill the pixels outside the region of interest with the reference, or with one colour.

        Pixels beyond the region's edge affect the map inside it, so they must be the same in every image.
        """
        beyond: NDArray[np.uint8] = np.array(_OUTSIDE_RGB, dtype=np.uint8)
        if self.aligner is not None:
            kept = self._reference_on_map
            if kept is None or kept.shape != pixels.shape:
                kept = self._resized(self.aligner.reference, outside.shape)
                self._reference_on_map = kept
            beyond = kept
        return np.where(outside[..., None], beyond, pixels)


def read_roi(path: Path, size_px: tuple[int, int], *, reading: ReadConfig = FULL_RANGE) -> NDArray[np.bool_]:
    """Read a region of interest from its file: (H, W) bool, True inside the region.

    Args:
        path: a mask image, or a JSON file with a polygon: a list of [x, y], or a list of several such lists.
        size_px: (height, width) of the image on which a polygon lies.
        reading: see `read_mask`.

    Raises:
        DataError: no such file, or the file holds neither a mask nor a polygon.
    """
    if path.suffix.lower() != ".json":
        return read_mask(path, image_size_px=None, reading=reading)
    text = read_text(path, max_bytes=MAX_BYTES)
    try:
        content = parse_json(text)
    except UnreadableError as error:
        raise DataError(f"{path}: not a polygon ({error}); {WANTED}") from error
    return fill_polygons(parse_polygons(content, size_px, where=str(path)), size_px)


def read_preprocessor(
    config: ViewConfig,
    *,
    size_px: tuple[int, int],
    strides: tuple[int, ...],
    reading: ReadConfig = FULL_RANGE,
    drawn_on: tuple[int, int] | None = None,
) -> Preprocessor:
    """Read the files of a config and return its preprocessor.

    Args:
        config: names the files.
        size_px: see `Preprocessor`.
        strides: likewise.
        reading: likewise; the files are read in the same way.
        drawn_on: (height, width) of the images, on which a polygon lies where there is no reference.

    Raises:
        DataError: a file cannot be read.
    """
    reference = None if config.reference is None else read_image(config.reference, reading=reading)
    roi = None
    if config.roi is not None:
        size = drawn_on if reference is None else (reference.shape[0], reference.shape[1])
        roi = read_roi(config.roi, (1, 1) if size is None else size, reading=reading)
    return Preprocessor(config, size_px=size_px, reading=reading, strides=strides, roi=roi, reference=reference)
