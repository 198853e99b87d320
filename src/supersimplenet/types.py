"""Basic types that all subpackages use. No torch here: reading a dataset must not wait for its import."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, get_args

import numpy as np

from supersimplenet.errors import ConfigError, ImageError
from supersimplenet.preprocessing.reading import FULL_RANGE, ReadConfig
from supersimplenet.utils.formatting import counted, shown_score

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from supersimplenet.preprocessing.alignment import Alignment
    from supersimplenet.preprocessing.geometry import Placement
    from supersimplenet.preprocessing.images import AnyImage

T = TypeVar("T")
GOOD = 0
BAD = 1
Split = Literal["train", "test"]
Verdict = Literal["good", "unsure", "bad"]
Regime = Literal["unsupervised", "weak", "mixed", "full"]
ModelScore = Literal["head", "map", "fused", "subspace", "joint"]  # that a model gives by itself
ScoreName = Literal[ModelScore, "zones"]  # with zones, which a calibration brings, there is one more
SCORE_FIELDS: dict[ScoreName, str] = {
    "head": "head_logit",
    "map": "map_max_logit",
    "fused": "fused_logit",
    "subspace": "subspace_logit",
    "joint": "joint_logit",
    "zones": "zones_logit",
}
_BELOW_HALF = math.nextafter(0.5, 0.0)
_MAP_BELOW_HALF = np.nextafter(np.float32(0.5), np.float32(0))
_ROWS = 256  # of a map that are computed in float64 at the same time: a whole one may need too much memory
Resolution = Literal["model", "native"]  # of pixel metrics
OverlayStyle = Literal["heat", "outline"]
OVERLAY_STYLES: tuple[OverlayStyle, ...] = get_args(OverlayStyle)
GroupsName = Literal["known", "found", "none"]  # which images `data split` keeps together


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A photograph and what is known about it.

    Attributes:
        image: path of the image file.
        label: 0 good, 1 bad.
        defect: the defect's type, ``"good"`` for a good part.
        mask: path of the pixel mask, None where there is none.
        mask_any_value: whether every value of the mask but 0 marks a defect; if not, the rule of `read_mask` applies.
        pixel_labels_known: whether each pixel's label is known; always True for a good image (all pixels are normal).
        ignore: path of a second mask, whose pixels count in no loss, no score and no metric; None where there is none.
        group: name of the physical part, None where unknown. All images of one part belong to the same split.
        split: ``"train"`` or ``"test"``.
    """

    image: Path
    label: int
    split: Split
    defect: str = "good"
    mask: Path | None = None
    mask_any_value: bool = False
    pixel_labels_known: bool = True
    ignore: Path | None = None
    group: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class ZonesOnMap:
    """Zones of the part on an anomaly map: in which zone each pixel lies, and what a defect must reach there.

    Zone 0 is what lies outside all others. `supersimplenet.postprocessing.zones.zones_on_map` makes it.

    Attributes:
        number: (H, W) uint8, number of the zone of each pixel of the map.
        names: name of each zone, None for zone 0.
        margins_logit: (zones,) float32, how much stronger than with margin 0 a defect must be there.
        min_areas_px: (zones,) int64, regions of fewer pixels of the map are no defects there.
    """

    number: NDArray[np.uint8]
    names: tuple[str | None, ...]
    margins_logit: NDArray[np.float32]
    min_areas_px: NDArray[np.int64]

    def levelled(self, map_logit: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a map (H, W) less the margin of each pixel's zone, so that one threshold is right in all of them."""
        return map_logit - self.margins_logit[self.number]


@dataclass(frozen=True, kw_only=True)
class Defect:
    """A region of the map at or above the pixel threshold; positions and sizes are in pixels of the image itself.

    Of a part that is not good and has no such region, the map's peak stands here instead, marked ``below_threshold``.

    Attributes:
        left: position of the bounding box, from the image's left edge.
        top: position of the bounding box, from the image's upper edge.
        width: width of the bounding box.
        height: height of the bounding box.
        area_px: area of the region, at most that of its bounding box.
        peak_logit: largest value of the map in the region, no margin of a zone taken off.
        centroid_x: x of the centroid of the region's area, not weighted by the map.
        centroid_y: y of the centroid, likewise.
        below_threshold: True for the map's peak, one pixel of the map, where no region reaches the pixel threshold over
            the least area.
        outline_logit: the level of the outline that pictures draw, halfway between pixel threshold and peak; for the
            map's peak its own value. With zones, all three less the margin of their zone.
        outline_left: position of that outline's bounding box, from the image's left edge.
        outline_top: position of that box, from the image's upper edge.
        outline_width: width of that box.
        outline_height: height of that box.
        outline_area_px: area within the outline.
        zone: name of the zone in which it counts, the strictest that it touches and whose least area it has; None where
            that is none, or there are no zones. See `supersimplenet.postprocessing.zones.zones_of_regions`.
    """

    left: int
    top: int
    width: int
    height: int
    area_px: float
    peak_logit: float
    centroid_x: float
    centroid_y: float
    below_threshold: bool = False
    outline_logit: float
    outline_left: int
    outline_top: int
    outline_width: int
    outline_height: int
    outline_area_px: float
    zone: str | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class Prediction:
    """The result for one image.

    Attributes:
        path: path of the image, None for an array.
        head_logit: the classification head's score, any real number, higher is worse; None where the heads are not
            trained.
        map_max_logit: the largest value of the network's own map; likewise.
        fused_logit: the mean of both scores, on the head's scale; see `ScoreScale`; likewise.
        subspace_logit: the mean of the ten largest distances from the subspace of good images; None for a model without
            one.
        joint_logit: the weighted mean of head, map and subspace, on the head's scale; see `ScoreScale`; likewise.
        zones_logit: the highest level at which a region of ``map_logit``, less the margin of each pixel's zone, counts
            in a zone; None for a calibration without zones.
        decides: name of the one of these scores that is the image's score and decides the verdict.
        verdict: ``"bad"`` where the score reaches the model's threshold, ``"unsure"`` where it reaches only the second,
            lower threshold, if the model has one, else ``"good"``; see `supersimplenet.postprocessing.calibration`.
        p_value: how often a good part scores at least this high, (0, 1]; None where the model is not calibrated.
        threshold_logit: from this score on the image is ``bad``; None where the model is not calibrated.
        accept_logit: from this score on, up to the threshold, the image is ``unsure``; None without such a grey zone.
        pixel_logit: from this value on a pixel of the map belongs to a region; None where the model is not calibrated.
        min_area_px: regions of fewer pixels of the map are no defects; likewise. With zones, the least of all zones.
        defects: what is listed, by falling peak: none for a good image, and at least one for any other; see
            `supersimplenet.postprocessing.defects.listed_defects`. None where the model is not calibrated.
        regions: all regions that reach the pixel threshold, whatever the verdict; likewise.
        map_logit: (H, W) float32, smoothed, higher is worse: the network's own map, or a mixture with the subspace's,
            see `ScoreScale.shown_map`; it has the network's input size where the image was
            resized to that size, else it is larger (tiles) or has the image's proportions; see `ViewConfig`.
        placement: where the map lies on the image.
        ignored: (H, W) bool of the map, pixels that count in no score and no defect; None for none.
        reading: how the image was read, so that pictures show what the model saw.
        alignment: how the image was aligned; None where images are not aligned.
        zones: the zones on the map; None without zones. The pixel threshold is that of a zone of margin 0.
    """

    path: str | None
    head_logit: float | None
    map_max_logit: float | None
    fused_logit: float | None
    subspace_logit: float | None = None
    joint_logit: float | None = None
    zones_logit: float | None = None
    decides: ScoreName
    verdict: Verdict
    p_value: float | None = None
    threshold_logit: float | None = None
    accept_logit: float | None = None
    pixel_logit: float | None = None
    min_area_px: int | None = None
    defects: tuple[Defect, ...] | None = None
    regions: tuple[Defect, ...] | None = None
    map_logit: NDArray[np.float32]
    placement: Placement
    ignored: NDArray[np.bool_] | None = None
    reading: ReadConfig = FULL_RANGE
    alignment: Alignment | None = None
    zones: ZonesOnMap | None = None

    def score_of(self, name: ScoreName) -> float:
        """Return one of the scores, in logits.

        Raises:
            ConfigError: the model has no such score.
        """
        return score_in(self, name)

    @property
    def scores(self) -> dict[ScoreName, float]:
        """All scores that the model has by name, in logits."""
        return {name: self.score_of(name) for name, field in SCORE_FIELDS.items() if getattr(self, field) is not None}

    @property
    def score_logit(self) -> float:
        """The deciding score, in logits."""
        return self.score_of(self.decides)

    @property
    def score(self) -> float | None:
        """The deciding score from 0 to 1, 0.5 at the threshold; None where the model is not calibrated."""
        return None if self.threshold_logit is None else normalised(self.score_logit, self.threshold_logit)

    @property
    def unsure_from(self) -> float | None:
        """The value of ``score`` from which the image is ``unsure``, below 0.5; None without a grey zone."""
        if self.threshold_logit is None or self.accept_logit is None:
            return None
        return normalised(self.accept_logit, self.threshold_logit)

    @property
    def levelled_logit(self) -> NDArray[np.float32]:
        """(H, W) ``map_logit`` less the margin of each pixel's zone, which ``pixel_logit`` applies to."""
        return self.map_logit if self.zones is None else self.zones.levelled(self.map_logit)

    @property
    def anomaly_map(self) -> NDArray[np.float32] | None:
        """The map from 0 to 1, 0.5 at the pixel threshold of each zone: (H, W) float32; None where there is none."""
        return None if self.pixel_logit is None else normalised_map(self.levelled_logit, self.pixel_logit)

    def shown_score(self) -> str:
        """Return the deciding score as text: from 0 to 1 where the model is calibrated, else in logits."""
        return f"{self.score_logit:.3f} (a logit)" if self.score is None else shown_score(self.score)

    def overlay(self, image: AnyImage | None = None, *, style: OverlayStyle = "heat") -> Image.Image:
        """Draw the image under its anomaly map, with outline and box of each defect, name, verdict, score, threshold.

        Args:
            image: in any form that `Detector.predict` accepts; by default the file of the prediction.
            style: ``heat`` for the anomaly map with its colour bar, ``outline`` for the photograph with outlines alone.

        Raises:
            ConfigError: there is no such style.
            ImageError: the image cannot be read, or no image is given and the prediction has no path.
        """
        from supersimplenet.visualization.overlay import draw_overlay  # needs matplotlib

        if image is None and self.path is None:
            raise ImageError(
                "overlay: the prediction is of an image in memory; pass the image: prediction.overlay(image)"
            )
        return draw_overlay(self.path or "" if image is None else image, self, style=style)

    def __repr__(self) -> str:
        p_value = "not calibrated" if self.p_value is None else f"p={self.p_value:.3g}"
        defects = "" if self.defects is None else f", {counted(len(self.defects), 'defect')}"
        if any(defect.below_threshold for defect in self.defects or ()):
            defects += " (the map's peak, below the pixel threshold)"
        return f"Prediction({self.path or 'array'}: {self.verdict}, score={self.shown_score()}, {p_value}{defects})"

    def _repr_html_(self) -> str:
        """Return HTML for a notebook: the overlay, where the image can still be read, and the text of `repr`."""
        import html

        picture = ""
        if self.path is not None:
            try:
                buffer = io.BytesIO()
                self.overlay().save(buffer, format="PNG")
            except (ImageError, ImportError):  # the image was moved, or matplotlib is missing
                pass
            else:
                data = base64.b64encode(buffer.getvalue()).decode("ascii")
                picture = f'<img style="max-width: 100%" alt="" src="data:image/png;base64,{data}"/><br/>'
        return f"<div>{picture}<code>{html.escape(repr(self))}</code></div>"


def score_in(scored: object, name: ScoreName) -> float:
    """Return a score, in logits, of a prediction or anything that has the fields of `SCORE_FIELDS`.

    Raises:
        ConfigError: the model has no such score.
    """
    value = getattr(scored, SCORE_FIELDS[name])
    if value is None:
        raise ConfigError(f"{name} score: this model has none; {_has_none(name)}")
    return float(value)


def _has_none(name: ScoreName) -> str:
    if name == "zones":
        return "no zones are set; calibrate with --zones zones.json, or take another score"
    if name in ("subspace", "joint"):
        return "models of earlier versions have no subspace; train again, or take another score"
    return "its heads are not trained (--trainer.max_epochs 0); take the subspace score"


def is_finite(value: object) -> bool:
    """Return whether a value, for example from a file, is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def normalised(score_logit: float, threshold_logit: float) -> float:
    """Return a score from 0 to 1: rising with the score, 0.5 at the threshold and below 0.5 exactly where it is below.

    It is the logistic function of the score's distance from the threshold; computed in float64, without overflow.
    """
    distance = score_logit - threshold_logit
    if distance >= 0:
        return 1.0 / (1.0 + math.exp(-distance))
    odds = math.exp(distance)
    return min(odds / (1.0 + odds), _BELOW_HALF)  # rounding must not lift a score to the threshold


def normalised_map(map_logit: NDArray[np.float32], pixel_logit: float) -> NDArray[np.float32]:
    """Return an anomaly map from 0 to 1 by the rule of `normalised`, with the pixel threshold in place of the other.

    A pixel is 0.5 or more exactly where `find_defects` counts it: it compares float32 with the threshold as float32.

    Args:
        map_logit: (H, W), logits.
        pixel_logit: the pixel threshold.

    Returns:
        (H, W) float32.
    """
    level = np.float64(np.float32(pixel_logit))
    scaled = np.empty_like(map_logit)
    for top in range(0, len(map_logit), _ROWS):
        distance = map_logit[top : top + _ROWS] - level  # float64: neighbouring logits keep their order
        odds = np.exp(-np.abs(distance))
        reached = distance >= 0
        rows = np.where(reached, 1.0, odds) / (1.0 + odds)
        scaled[top : top + _ROWS] = np.where(reached, rows, np.minimum(rows, _MAP_BELOW_HALF))
    return scaled
