"""Alignment of an image with a reference image, by a shift or by shift and rotation. Uses OpenCV; no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from supersimplenet.errors import ConfigError, ImageError
from supersimplenet.preprocessing.geometry import Affine, resize_plane, warp_plane

Motion = Literal["none", "translation", "rigid"]
LEAST_COVERED = 0.5  # share of the reference that an image must show
_LONG_SIDE_PX = 512  # to which both images are reduced; shifts are found to a small fraction of a pixel at this size
_COARSE_SIDE_PX = 192
_ANGLES_DEG = tuple(range(-16, 17, 4))  # at which the search starts; a part must not be rotated further
_ROUNDS = 3  # of phase correlation; each starts where the last one ended, so the window hides less of the overlap
_FEWEST_PX = 16
_ECC_STEPS, _ECC_PRECISION = 100, 1e-6


class Aligner:
    """Finds the shift and rotation of images against a reference.

    Args:
        reference: (H, W, 3) uint8, RGB.
        motion: ``translation``, or ``rigid``: also rotated, by up to about 16 degrees.
        max_residual: see `ViewConfig`.

    Raises:
        ConfigError: OpenCV is not installed.
    """

    def __init__(self, reference: NDArray[np.uint8], motion: Motion, *, max_residual: float) -> None:
        if motion not in get_args(Motion) or motion == "none":
            raise ConfigError(f"view.align: '{motion}'; choose translation or rigid")
        try:
            import cv2  # noqa: F401 - tried here, so that the error comes before the first image
        except ImportError as error:
            raise ConfigError(
                f"view.align: needs OpenCV, which is not installed; pip install 'supersimplenet[align]' ({error})"
            ) from error
        self._motion = motion
        self._max_residual = max_residual
        self.reference = reference
        self.size_px = (reference.shape[0], reference.shape[1])
        self._grey = _reduced(reference, _LONG_SIDE_PX)
        self._coarse = _reduced(reference, _COARSE_SIDE_PX)

    @property
    def _cv2(self) -> Any:
        import cv2  # no attribute: a module cannot be pickled, and processes that read ahead get this object

        return cv2

    def align(self, pixels: NDArray[np.uint8], name: str) -> tuple[Affine, Alignment]:
        """Find how an image lies on the reference.

        Args:
            pixels: (H, W, 3) uint8, RGB, of the reference's size.
            name: name of the image, for the error.

        Returns:
            The affine transform from points in the reference to points in the image, and a summary for reports.

        Raises:
            ImageError: the image has another size, or cannot be aligned.
        """
        if pixels.shape != self.reference.shape:
            found, wanted = (f"{height:,} x {width:,} px" for height, width in (pixels.shape[:2], self.size_px))
            raise ImageError(f"{name}: cannot be aligned: it is {found} (height x width), the reference {wanted}")
        grey = _reduced(pixels, _LONG_SIDE_PX)
        if float(grey.std()) == 0.0:
            raise ImageError(f"{name}: cannot be aligned: it shows one even colour")
        angle_deg, shift = 0.0, np.zeros(2)  # of the centre: x in shares of the width, y of the height
        if self._motion == "rigid":
            angle_deg, shift = self._search(_reduced(pixels, _COARSE_SIDE_PX))
        shift = self._shift(self._grey, grey, angle_deg, shift)
        if self._motion == "rigid":
            angle_deg, shift = self._refine(grey, angle_deg, shift, name)
        residual, covered = _residual(self._grey, grey, _turn(self._grey.shape, angle_deg, shift))
        height, width = self.size_px
        shift_px = shift * (width, height)
        found = f"shifted by {math.hypot(*shift_px):.0f} px, turned by {angle_deg:.1f} degrees"
        if covered < LEAST_COVERED:
            raise ImageError(f"{name}: cannot be aligned: {found}, it shows {covered:.0%} of the reference")
        if not residual <= self._max_residual:
            raise ImageError(
                f"{name}: cannot be aligned: at best ({found}) it differs from the reference by a residual of "
                f"{residual:.2f}, allowed are {self._max_residual:g}; see view.max_residual"
            )
        alignment = Alignment(
            shift_px=round(math.hypot(*shift_px), 2), angle_deg=round(angle_deg, 3), residual=round(residual, 4)
        )
        return _turn(self.size_px, angle_deg, shift), alignment

    def _search(self, grey: NDArray[np.float32]) -> tuple[float, NDArray[np.float64]]:
        """Return the start angle, and its shift, at which an image is most like the reference."""
        best = (math.inf, 0.0, np.zeros(2))
        for angle_deg in _ANGLES_DEG:
            shift = self._shift(self._coarse, grey, angle_deg, np.zeros(2))
            residual, covered = _residual(self._coarse, grey, _turn(grey.shape, angle_deg, shift))
            if covered >= LEAST_COVERED and residual < best[0]:
                best = (residual, float(angle_deg), shift)
        return best[1], best[2]

    def _shift(
        self, reference: NDArray[np.float32], grey: NDArray[np.float32], angle_deg: float, shift: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Find the shift at an angle, by phase correlation.

        Source: cv2.phaseCorrelate. A round that makes the image less like the reference is undone.
        """
        height, width = grey.shape
        rows, columns = (self._middle(side) for side in grey.shape)
        within = np.ix_(rows, columns)  # indexing copies each time, because the window is applied to the arrays given
        window = self._cv2.createHanningWindow((columns.size, rows.size), self._cv2.CV_32F)
        residual, _ = _residual(reference, grey, _turn(grey.shape, angle_deg, shift))
        for _ in range(_ROUNDS):
            turn = _turn(grey.shape, angle_deg, shift)
            moved = warp_plane(grey, turn, grey.shape, outside=float(grey.mean()))
            (x, y), _ = self._cv2.phaseCorrelate(reference[within], moved[within], window)
            a, b, _, d, e, _ = turn
            closer = shift + np.array([a * x + b * y, d * x + e * y]) / (width, height)
            new_residual, covered = _residual(reference, grey, _turn(grey.shape, angle_deg, closer))
            if covered == 0 or not new_residual < residual:
                break
            shift, residual = closer, new_residual
        return shift

    def _middle(self, side: int) -> NDArray[np.int64]:
        """Return the middle indices of an axis, in a number that phase correlation transforms without padding.

        Phase correlation pads any other length, and is half a pixel off where the padded length is odd.
        """
        length = side - side % 2
        while length > _FEWEST_PX and self._cv2.getOptimalDFTSize(length) != length:
            length -= 2
        return np.arange(length) + (side - length) // 2

    def _refine(
        self, grey: NDArray[np.float32], angle_deg: float, shift: NDArray[np.float64], name: str
    ) -> tuple[float, NDArray[np.float64]]:
        """Refine angle and shift from a start by maximising the correlation (ECC).

        Source: cv2.findTransformECC, whose coordinates are those of pixel centres: half a pixel less than ours.
        """
        cv2 = self._cv2
        a, b, c, d, e, f = _turn(grey.shape, angle_deg, shift)
        start = np.array([[a, b, c + (a + b - 1) / 2], [d, e, f + (d + e - 1) / 2]], dtype=np.float32)
        criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _ECC_STEPS, _ECC_PRECISION)
        try:
            _, found = cv2.findTransformECC(self._grey, grey, start, cv2.MOTION_EUCLIDEAN, criteria, None, 5)
        except cv2.error as error:
            raise ImageError(
                f"{name}: cannot be aligned: no position makes it like the reference (ECC does not converge)"
            ) from error
        (a, b, c), (d, e, f) = found.astype(np.float64).tolist()
        c, f = c - (a + b - 1) / 2, f - (d + e - 1) / 2
        height, width = grey.shape
        x, y = width / 2, height / 2
        moved = np.array([(a * x + b * y + c - x) / width, (d * x + e * y + f - y) / height])
        return math.degrees(math.atan2(d, a)), moved


def _turn(size_px: tuple[int, ...], angle_deg: float, shift: NDArray[np.float64]) -> Affine:
    """Return the rotation about the centre (clockwise as seen, y down) with a shift in shares of width and height."""
    height, width = size_px
    x, y = width / 2, height / 2
    cosine, sine = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    to_x, to_y = x + float(shift[0]) * width, y + float(shift[1]) * height
    return (cosine, -sine, to_x - cosine * x + sine * y, sine, cosine, to_y - sine * x - cosine * y)


def _residual(reference: NDArray[np.float32], grey: NDArray[np.float32], turn: Affine) -> tuple[float, float]:
    """Return 1 minus the correlation where both images have pixels, and that area as a share of the reference."""
    moved = warp_plane(grey, turn, reference.shape, outside=-1.0)
    both = moved >= 0
    covered = float(both.mean())
    if covered == 0:
        return math.inf, 0.0
    one, other = reference[both].astype(np.float64), moved[both].astype(np.float64)
    one, other = one - one.mean(), other - other.mean()
    length = math.sqrt(float(one @ one) * float(other @ other))
    return (1.0 - float(one @ other) / length if length > 0 else math.inf), covered


def _reduced(pixels: NDArray[np.uint8], long_side_px: int) -> NDArray[np.float32]:
    """Return grey levels (h, w), with neither side longer than ``long_side_px`` and the proportions kept."""
    height, width = pixels.shape[:2]
    share = min(1.0, long_side_px / max(height, width))
    grey = np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.float32)
    return resize_plane(grey, (max(1, round(height * share)), max(1, round(width * share))))


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Position of an image on its reference before it was aligned.

    Attributes:
        shift_px: distance of its centre from the reference's, in pixels of the image.
        angle_deg: angle of its rotation, clockwise as seen; 0 where rotations are not searched for.
        residual: 1 minus the correlation of both after alignment; 0 where they are equal except for the lighting.
    """

    shift_px: float
    angle_deg: float
    residual: float
