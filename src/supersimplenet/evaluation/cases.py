"""Images beside their predictions and masks, at the size of the pixel metrics; one is in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supersimplenet.datasets.masks import read_defects, read_ignored
from supersimplenet.datasets.regions import count_lost_regions
from supersimplenet.errors import ImageError
from supersimplenet.inference.detector import Detector
from supersimplenet.postprocessing.calibration import Calibration
from supersimplenet.postprocessing.defects import counted_map, region_mask
from supersimplenet.preprocessing.images import ImageFacts
from supersimplenet.preprocessing.loading import Failure, OnError
from supersimplenet.types import GOOD, Prediction, Resolution, Sample


@dataclass(frozen=True, kw_only=True)
class EvaluatedImage:
    """One test image with its prediction and its masks, which are kept only while the image is evaluated.

    Attributes:
        sample: the image and its labels.
        prediction: prediction of the detector.
        mask: (H, W) bool, True on defective pixels; None where the pixel labels are unknown, which is also the case
            where the mask of a bad image is empty, at its own size or at the resolution of the pixel metrics.
        ignored: (H, W) bool, True on pixels that count in no score and no metric; None for none.
        lost_regions: see `Outcome`.
        facts: facts about the image file.
    """

    sample: Sample
    prediction: Prediction
    mask: NDArray[np.bool_] | None
    ignored: NDArray[np.bool_] | None
    lost_regions: int = 0
    facts: ImageFacts | None = None


def read_cases(
    detector: Detector,
    samples: Sequence[Sample],
    *,
    resolution: Resolution = "model",
    batch_size: int | None = None,
    on_error: OnError = "stop",
) -> Iterator[EvaluatedImage | Failure]:
    """Yield one result for each sample, in order: the sample with its prediction and masks, or a `Failure`."""
    reading = detector.preprocessor.reading
    for item in detector.predict_files(
        [sample.image for sample in samples],
        ignored=lambda index: read_ignored(samples[index], reading=reading),
        batch_size=batch_size,
        with_facts=True,
        on_error=on_error,
    ):
        if isinstance(item, Failure):
            yield item
            continue
        sample, prediction = samples[item.index], item.prediction
        try:
            mask, lost_regions = _pixel_labels(sample, prediction, resolution)
            yield EvaluatedImage(
                sample=sample,
                prediction=prediction,
                mask=mask,
                lost_regions=lost_regions,
                ignored=prediction.ignored
                if resolution == "model"
                else _ignored_on_image(detector, sample, prediction),
                facts=item.facts,
            )
        except ImageError as error:
            if on_error == "stop":
                raise
            yield Failure(index=item.index, path=sample.image, reason=str(error))


def _pixel_labels(
    sample: Sample, prediction: Prediction, resolution: Resolution
) -> tuple[NDArray[np.bool_] | None, int]:
    """Return the mask at the resolution of the pixel metrics (None where unknown), and how many regions it loses."""
    placement = prediction.placement
    size_px = placement.map_size_px if resolution == "model" else placement.image_size_px
    if sample.label == GOOD:
        return np.zeros(size_px, dtype=bool), 0
    mask = read_defects(sample, reading=prediction.reading)
    if mask is None or not mask.any():
        return None, 0
    if resolution == "native":
        return mask, 0
    on_map = placement.defects_on_map(mask)
    # The image has a defect, even if its mask is empty. If its pixels counted as normal, a correct map would score
    # badly.
    return on_map if on_map.any() else None, count_lost_regions(mask, placement, on_map)


def map_beside(case: EvaluatedImage) -> NDArray[np.float32]:
    """Return the anomaly map, resized to the mask where the mask has another size."""
    prediction, mask = case.prediction, case.mask
    if mask is None or mask.shape == prediction.map_logit.shape:
        return prediction.map_logit
    return prediction.placement.plane_on_image(prediction.map_logit, outside=float(prediction.map_logit.min()))


def regions_of(prediction: Prediction, calibration: Calibration) -> NDArray[np.bool_]:
    """Return the pixels of the map (H, W) in `Prediction.regions`, whatever the verdict."""
    return region_mask(
        counted_map(prediction.map_logit, prediction.ignored),
        pixel_logit=calibration.pixel_logit,
        min_area_px=calibration.min_area_px,
        zones=prediction.zones,
    )


def listed_beside(case: EvaluatedImage, calibration: Calibration) -> NDArray[np.bool_] | None:
    """Return the pixels of the listed defects, resized to the mask where the mask has another size; None for none."""
    prediction, mask = case.prediction, case.mask
    if mask is None or all(defect.below_threshold for defect in prediction.defects or ()):
        return None
    regions = regions_of(prediction, calibration)
    return regions if mask.shape == regions.shape else prediction.placement.mask_on_image(regions, outside=False)


def _ignored_on_image(detector: Detector, sample: Sample, prediction: Prediction) -> NDArray[np.bool_] | None:
    """Return the pixels that count in no score, at the image's original size (H, W); None for none."""
    own = read_ignored(sample, reading=prediction.reading)
    if detector.preprocessor.is_plain or (prediction.ignored is None and prediction.placement.turn is None):
        return own
    nowhere = np.zeros(prediction.map_logit.shape, dtype=bool)
    ignored = nowhere if prediction.ignored is None else prediction.ignored
    return prediction.placement.mask_on_image(ignored, outside=True)
