"""Calibrate a model folder with parts that the model was neither trained on nor tested with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats

from supersimplenet.datasets.folder import Folder
from supersimplenet.datasets.held_out import HELD_OUT
from supersimplenet.errors import CalibrationError, ConfigError, DataError, ModelFolderError
from supersimplenet.evaluation.config import ThresholdConfig
from supersimplenet.evaluation.few_parts import (
    BadScore,
    FoldScores,
    cross_calibrated,
    score_unseen_bad,
    with_expected_escapes,
)
from supersimplenet.evaluation.painted_scores import PAINTED, score_painted, with_painted_escapes
from supersimplenet.evaluation.repeated_parts import OF_FOLDERS, OF_TRAINING, describe_repeated_parts
from supersimplenet.evaluation.score_comparison import compare_scores
from supersimplenet.evaluation.scored_parts import PartScores, score_images
from supersimplenet.evaluation.set_thresholds import Calibrated, set_thresholds
from supersimplenet.evaluation.zone_choice import CROSS_WITH_ZONES, choose_zones
from supersimplenet.inference.config import CALIBRATION_FILE, CALIBRATION_PICTURE, HERE, ComputeConfig
from supersimplenet.inference.detector import Detector, load_detector
from supersimplenet.inference.image_records import (
    held_out_samples,
    read_image_records,
    read_known_images,
    samples_to_choose_by,
    trained_on,
)
from supersimplenet.inference.model_folder import hash_weights, write_yaml
from supersimplenet.postprocessing.calibration import BAD_PART
from supersimplenet.postprocessing.zones import Zones
from supersimplenet.preprocessing.listing import list_images, natural_key
from supersimplenet.preprocessing.loading import OnError
from supersimplenet.types import BAD, GOOD, Sample, ScoreName
from supersimplenet.utils.console import console, progress_bar
from supersimplenet.utils.files import Paths, as_paths, file_sha256, whole_file
from supersimplenet.utils.formatting import few, first_line
from supersimplenet.utils.locks import WAIT_TO_WRITE_S, writing_into
from supersimplenet.utils.serialization import to_plain

_BAD_NAMES = {"bad", "ng", "nok", "defect", "defects", "defective", "anomaly", "anomalous"}
_BY_CHANCE = 0.01
_BESIDE_PAINTED = 100  # good images that are compared with painted defects
_MOST_COMPARED = 500  # good images that were trained on, evenly spaced, as for the scale of the scores


def calibrate(
    model: str | Path,
    *,
    good: Paths = (),
    bad: Paths = (),
    group_pattern: str | None = None,
    config: ThresholdConfig | None = None,
    image_score: ScoreName | None = None,
    zones: str | Path | Zones | None = None,
    folds: FoldScores | None = None,
    compute: ComputeConfig = HERE,
    on_error: OnError = "stop",
    draw: Callable[[Calibrated, Path], object] | None = None,
) -> Calibrated:
    """Set a model's thresholds from parts that it was not trained on; write calibration.yaml into the model folder.

    Args:
        model: the model folder.
        good: folder or folders of good parts that were not trained on; by default the held-out images of the training.
        bad: folder or folders of bad parts that were not trained on, if there are any.
        group_pattern: finds the name of the physical part in a file's name; see `Folder`.
        config: the guarantees that the thresholds must give.
        image_score: the score that decides from now on, whatever the training chose; by default the one that decides
            now.
        zones: zones, or their JSON file, see docs/thresholds.md: their score decides. By default those of the earlier
            calibration, unless another score is named.
        folds: scores of models of folds, which then set the thresholds; see `cross_calibrated`.
        compute: the device, engine and precision to use.
        on_error: whether an unreadable image stops the calibration or is skipped.
        draw: draws the calibration into a PNG file of the given name, which becomes calibration.png of the model
            folder. If it fails, the model folder keeps its earlier thresholds.

    Raises:
        SuperSimpleNetError: the subclass names the cause.
    """
    model, config = Path(model), config or ThresholdConfig()
    of_held_out = config if folds is None else replace(config, lenient=True)  # these parts check the folds' threshold
    detector = load_detector(model, compute)
    chosen = choose_zones(detector, zones, image_score)
    if chosen is not None and folds is not None:
        raise ConfigError(CROSS_WITH_ZONES)
    samples, basis = _calibration_parts(detector, model, as_paths(good), as_paths(bad), group_pattern)
    known = read_known_images(model)
    if known is None:
        console().print(f"{model} does not know what it was trained on: make sure that these images were not among it")
    _refuse_known_images(known, {sample.image: file_sha256(sample.image) for sample in samples})
    with progress_bar() as bar:
        task = bar.add_task("calibrating", total=len(samples), detail="")
        calibrated = set_thresholds(
            detector,
            samples,
            of_held_out,
            image_score=image_score,
            zones=chosen,
            basis=basis,
            weights_sha256=hash_weights(model),
            on_error=on_error,
            progress=lambda images: bar.advance(task, images),
        )
    _refuse_known_images(known, calibrated.pixels)
    _refuse_swapped(calibrated)
    if detector.postprocessor.zones != chosen:
        detector = detector.without_thresholds(calibrated.calibration.image_score, chosen)
    trained_good, why = _trained_good(detector, model)
    calibrated = replace(
        calibrated,
        repeated_parts=describe_repeated_parts(
            samples if folds is None else [*samples, *trained_good],  # parts of the training set the folds' threshold
            trained_good if folds is None else (),
            reading=detector.preprocessor.reading,
            advice=OF_FOLDERS if as_paths(good) else OF_TRAINING,
        ),
    )
    if folds is not None:
        calibrated = cross_calibrated(calibrated, folds, config)
    else:
        unseen = [] if as_paths(good) else _unseen_bad(detector, model, calibrated.calibration.image_score)
        calibrated = with_expected_escapes(calibrated, others=unseen)
        # Not with folds: their models were scored by one score alone.
        calibrated = _compared(calibrated, detector, trained_good, why, config, on_error)
    with (
        writing_into(model, wait_s=WAIT_TO_WRITE_S, advice=""),
        whole_file(model / CALIBRATION_FILE) as thresholds,  # renamed last, when nothing can fail any more
    ):
        write_yaml(thresholds, to_plain(calibrated.calibration))
        if draw is not None:
            with whole_file(model / CALIBRATION_PICTURE) as picture:
                draw(calibrated, picture)
    return calibrated


def _calibration_parts(
    detector: Detector, model: Path, good: Sequence[Path], bad: Sequence[Path], group_pattern: str | None
) -> tuple[list[Sample], str]:
    """Return the parts to calibrate with, and a phrase that says where the good parts came from."""
    if group_pattern is None:
        group_pattern = detector.group_pattern
        if group_pattern is not None and (good or bad):
            console().print(f"parts are told apart as in the training: --group-pattern '{group_pattern}'")
    _refuse_folders_of_bad(good)
    if good:
        # Splits do not matter here: every image of both folders is predicted.
        folder = Folder(good=good, bad=bad, test_fraction=0, group_pattern=group_pattern)
        return folder.samples(), f"from {few(good)}"
    if "training" not in detector.record:
        raise CalibrationError(f"{model} was not trained here, so it held out no parts; name good ones with --good")
    held_out = held_out_samples(model, trained_on(detector.record, model), detector.record)
    if not held_out:
        raise CalibrationError(f"{model}: its training held out no good image; name good ones with --good")
    if not bad:
        return held_out, HELD_OUT
    alone = Folder(good=bad, test_fraction=0, group_pattern=group_pattern).samples()  # Folder reads bad images, too
    return [*held_out, *(replace(sample, label=BAD, defect="bad") for sample in alone)], HELD_OUT


def _unseen_bad(detector: Detector, model: Path, image_score: ScoreName) -> list[BadScore]:
    """Score the bad images that the training did not use because it was unsupervised; they tell escapes."""
    records = read_image_records(model)
    if records is None or not any(record.role == "unused" for record in records):
        return []
    used = {record.sha256 for record in records if record.role not in ("unused", "test")}
    samples = [s for s in trained_on(detector.record, model).samples() if s.split == "train" and s.image.is_file()]
    known = {sample.image for sample in samples if file_sha256(sample.image) in used}
    return score_unseen_bad(detector, samples, known, image_score=image_score, on_error="skip")


def _compared(
    calibrated: Calibrated,
    detector: Detector,
    good: Sequence[Sample],
    why: str | None,
    config: ThresholdConfig,
    on_error: OnError,
) -> Calibrated:
    """Return the calibration with a comparison of the scores, on the bad parts or else on painted defects.

    Parts that calibrate must not choose, because a score that is chosen by them looks better on them than on parts to
    come: good images that were trained on are compared. Where there are none, those that calibrate are compared all the
    same, if there are bad parts, and the comparison says why.
    """
    scores, noun = calibrated.scores, BAD_PART
    others: dict[ScoreName, PartScores] | None = None
    has_bad = any(of_parts.bad.size for of_parts in scores.values())
    if config.costs is not None:
        return replace(
            calibrated,
            comparison=compare_scores(scores, None, config, why_calibrating="costs set each threshold by them"),
        )
    if good:
        most = _MOST_COMPARED if has_bad else _BESIDE_PAINTED
        chosen = score_images(
            detector, good[:: max(1, -(-len(good) // most))], on_error=on_error if has_bad else "skip"
        )
        others = chosen.of_parts() or None
    if has_bad:
        why = why if others is None else None
    elif others is not None:
        painted = score_painted(detector, [chosen.samples[place] for place in chosen.scores])
        if calibrated.calibration.expected_escapes is None:
            calibrated = with_painted_escapes(calibrated, painted)
        bad = painted.of_parts()
        scores, noun = {name: replace(own, bad=bad[name].bad) for name, own in scores.items() if name in bad}, PAINTED
    comparison = compare_scores(scores, others, config, why_calibrating=why, bad_noun=noun)
    return replace(calibrated, comparison=comparison)


def _trained_good(detector: Detector, model: Path) -> tuple[list[Sample], str | None]:
    """Return the good images that a model was trained on, or none and why they are not at hand."""
    try:
        samples = samples_to_choose_by(model, trained_on(detector.record, model).samples(), detector.record)
    except (ConfigError, DataError, ModelFolderError) as error:
        return [], f"good images that were trained on are not at hand ({first_line(error)})"
    good = [sample for sample in samples if sample.label == GOOD]
    return good, None if good else "no good image that was trained on is at hand"


def _refuse_folders_of_bad(folders: Sequence[Path]) -> None:
    """Refuse a folder of good parts that has a subfolder of bad parts: the subfolder of the good parts was meant.

    Raises:
        DataError: a folder has such a subfolder.
    """
    for folder in folders:
        parents = {parent for path in list_images(folder) for parent in path.relative_to(folder).parents}
        for parent in sorted(parents, key=natural_key):
            if parent.name.lower() in _BAD_NAMES:
                raise DataError(
                    f"{folder}: holds the folder {folder / parent}; name the folder of the good parts alone"
                )


def _refuse_known_images(known: Mapping[str, str] | None, digests: Mapping[Path, str]) -> None:
    """Refuse training images, which score too well, and test images, whose later test results would be too good.

    Args:
        known: see `read_known_images`.
        digests: hash of each image's file, or of its pixels.

    Raises:
        DataError: an image has the same content as a training or test image of the model.
    """
    for image, digest in digests.items():
        split = (known or {}).get(digest)
        if split is not None:
            of = "the model was trained on it" if split == "train" else "it is one of the model's test images"
            raise DataError(
                f"{image}: {of}, perhaps under another name, so the guarantee would be untrue; calibrate with "
                "parts that the model has not seen and is not tested with"
            )


def _refuse_swapped(calibrated: Calibrated) -> None:
    """Refuse bad parts that score below the good parts: the folders are swapped, or the scores mean nothing.

    Raises:
        CalibrationError: the bad parts score lower, by more than chance.
    """
    good, bad = calibrated.good_logits, calibrated.bad_logits
    if bad.size and stats.mannwhitneyu(bad, good, alternative="less").pvalue < _BY_CHANCE:
        raise CalibrationError(
            f"the {bad.size} bad parts score lower than the {good.size} good ones (medians {np.median(bad):.2f} and "
            f"{np.median(good):.2f} logits); are the folders of --good and --bad swapped?"
        )
