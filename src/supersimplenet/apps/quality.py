"""What `calibrate`, `report` and `gate` do: a few calls on the rooms below, and words for the person who waits."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats

from supersimplenet.apps.evaluate import evaluate_samples
from supersimplenet.apps.models import load_detector, trained_on
from supersimplenet.calibration import UNCALIBRATED, verdict
from supersimplenet.calibration_figure import draw_calibration
from supersimplenet.data.checks.check import check
from supersimplenet.data.loading import OnError
from supersimplenet.data.sources.base import DataSource, few, file_hash
from supersimplenet.data.sources.folder import Folder
from supersimplenet.data.sources.table import Table
from supersimplenet.deploy.folder import hash_weights, read_known_images, write_calibration, write_text
from supersimplenet.detector import Detector
from supersimplenet.errors import CalibrationError, DataError
from supersimplenet.evaluation.calibrate import Calibrated, ThresholdConfig, calibrate
from supersimplenet.evaluation.thresholds import Costs
from supersimplenet.records import BAD, Sample, probability
from supersimplenet.report.compare import GateResult, compare, gate
from supersimplenet.report.page import write_report
from supersimplenet.settings import HERE, ComputeConfig, Resolution
from supersimplenet.terminal import console, progress_bar, results
from supersimplenet.training.holdout import HELD_OUT, held_out_samples

FIGURE = "calibration.png"
REPORT = "report.html"
GATE_FILE = "gate.json"
_BAD_NAMES = {"bad", "ng", "nok", "defect", "defects", "defective", "anomaly", "anomalous"}
_BY_CHANCE = 0.01


def calibrate_model(
    model: Path,
    *,
    good: Sequence[Path] = (),
    bad: Sequence[Path] = (),
    group_pattern: str | None = None,
    config: ThresholdConfig | None = None,
    compute: ComputeConfig = HERE,
    on_error: OnError = "stop",
) -> Calibrated:
    """Set a model folder's thresholds; writes calibration.yaml and a picture of it there.

    Args:
        model: the model folder.
        good: folders of good parts that were not trained on; by default those that the training held out.
        bad: folders of bad parts that were not trained on, where there are any.
        group_pattern: finds the name of the physical part in a file's name; see `Folder`.
        config: what the thresholds are to hold.
        compute: where and by what.
        on_error: what an unreadable image does.

    Raises:
        SuperSimpleNetError: of the kind that names the cause.
    """
    detector = load_detector(model, compute)
    samples, basis = _calibration_parts(detector, model, good, bad, group_pattern)
    _refuse_known_images(samples, model)
    earlier = detector.calibration
    with progress_bar() as bar:
        task = bar.add_task("calibrating", total=len(samples), detail="")
        calibrated = calibrate(
            detector,
            samples,
            config,
            basis=basis,
            weights_sha256=hash_weights(model),
            on_error=on_error,
            progress=lambda images: bar.advance(task, images),
        )
    _refuse_swapped(calibrated)
    path = write_calibration(model, calibrated.calibration)
    figure = draw_calibration(calibrated, model / FIGURE)
    _print_calibration(calibrated)
    if calibrated.curve is not None and config is not None and config.bad_share is None:
        share = calibrated.bad_logits.size / (calibrated.bad_logits.size + calibrated.good_logits.size)
        results().print(f"{share * 100:.3g} % of parts are taken to be bad, as here; --bad-share names production's")
    if calibrated.failures:
        names = few([failure.path for failure in calibrated.failures])
        results().print(f"{len(calibrated.failures)} images could not be read and were left out: {names}")
    replaced = "" if earlier is None else f" (in place of the one of {earlier.date}: {earlier.parts} good parts)"
    results().print(f"calibration: {path}{replaced}\npicture:     {figure}")
    return calibrated


def report_model(
    model: Path,
    output: Path,
    *,
    data: DataSource | None = None,
    other: Path | None = None,
    resolution: Resolution = "model",
    pictures: int = 400,
    costs: Costs | None = None,
    bad_share: float | None = None,
    compute: ComputeConfig = HERE,
    on_error: OnError = "stop",
) -> Path:
    """Evaluate a model folder and write the report, one HTML file.

    Args:
        model: the model folder.
        output: folder of the report; made where missing.
        data: whose test images; by default the data set it was trained on.
        other: another model folder, to compare with on the same images.
        resolution: of the pixel metrics; see `evaluate`.
        pictures: at most so many images are shown, those nearest to a wrong verdict first.
        costs: of a wrong verdict, for the cost curve.
        bad_share: share of bad parts in production, for the same; by default that of the test parts.
        compute: where and by what.
        on_error: what an unreadable image does.

    Returns:
        The file written.

    Raises:
        SuperSimpleNetError: of the kind that names the cause.
    """
    models = [load_detector(path, compute) for path in (model, other) if path]
    detector = models[0]
    source = data or trained_on(detector, model)
    samples = source.samples()
    evaluations = [evaluate_samples(one, samples, resolution=resolution, on_error=on_error) for one in models]
    with progress_bar() as bar:
        task = bar.add_task("checking the data", total=len(samples), detail="")
        checked = check(samples, progress=lambda stage, images: bar.advance(task, images * (stage == "reading")))
    output.mkdir(parents=True, exist_ok=True)
    path = write_report(
        output / REPORT,
        evaluation=evaluations[0],
        detector=detector,
        samples=samples,
        title=source.name,
        data_name=source.name,
        model_name=str(model),
        findings=checked.findings,
        comparison=None if other is None else compare(*evaluations, names=(str(model), str(other))),
        pictures=pictures,
        costs=costs,
        bad_share=bad_share,
    )
    results().print(f"report: {path}")
    return path


def gate_models(
    candidate: Path,
    current: Path,
    golden: Path,
    *,
    output: Path | None = None,
    max_new_escapes: int = 0,
    max_new_false_alarms: int = 0,
    compute: ComputeConfig = HERE,
) -> GateResult:
    """Whether a model may take another's place: both look at the test images of a golden set, and are compared.

    Args:
        candidate: the model folder that is to be used.
        current: the one in use.
        golden: a table of images; see `Table`.
        output: folder for gate.json; None writes none.
        max_new_escapes: how many bad images that the current one catches the candidate may call good.
        max_new_false_alarms: how many good images that the current one does not call bad the candidate may.
        compute: where and by what.

    Raises:
        SuperSimpleNetError: of the kind that names the cause.
    """
    samples = Table(path=golden).samples()
    evaluations = [
        evaluate_samples(load_detector(path, compute), samples, on_error="skip") for path in (candidate, current)
    ]
    known = read_known_images(candidate) or {}
    result = gate(
        *evaluations,
        max_new_escapes=max_new_escapes,
        max_new_false_alarms=max_new_false_alarms,
        trained_on=[sample.image for sample in samples if known.get(file_hash(sample.image)) == "train"],
    )
    say = results().print
    passed, style = ("passed", "green") if result.passed else ("failed", "bold red")
    say(f"{passed}: {candidate} in place of {current}", style=style)
    for reason in result.reasons:
        say(f"- {reason}")
    for name, evaluation in zip(("candidate", "current"), evaluations, strict=True):
        promise = UNCALIBRATED if evaluation.calibration is None else evaluation.calibration.promise()
        say(f"{name}: {promise}")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        write_text(output / GATE_FILE, json.dumps(result.as_dict(), indent=2) + "\n")
        say(f"details: {output / GATE_FILE}")
    return result


def _calibration_parts(
    detector: Detector, model: Path, good: Sequence[Path], bad: Sequence[Path], group_pattern: str | None
) -> tuple[list[Sample], str]:
    """The parts to calibrate with, and where the good ones came from."""
    if group_pattern is None:
        group_pattern = detector.record.get("data", {}).get("init_args", {}).get("group_pattern")
        if group_pattern is not None and (good or bad):
            console().print(f"parts are told apart as in the training: --group-pattern '{group_pattern}'")
    _refuse_folders_of_bad(good)
    if good:
        # Splits do not matter here: each image of either folder is looked at.
        folder = Folder(good=good, bad=bad, test_fraction=0, group_pattern=group_pattern)
        return folder.samples(), f"from {few(good)}"
    if "training" not in detector.record:
        raise CalibrationError(f"{model} was not trained here, so it held out no parts; name good ones with --good")
    held_out = held_out_samples(trained_on(detector, model), detector.record)
    if not held_out:
        raise CalibrationError(f"{model}: its training held out no good image; name good ones with --good")
    if not bad:
        return held_out, HELD_OUT
    alone = Folder(good=bad, test_fraction=0, group_pattern=group_pattern).samples()  # it reads any folder of images
    return [*held_out, *(replace(sample, label=BAD, defect="bad") for sample in alone)], HELD_OUT


def _refuse_folders_of_bad(folders: Sequence[Path]) -> None:
    """A folder that holds good and bad parts in folders of their own was meant to be named one level deeper.

    Raises:
        DataError: one does.
    """
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_dir() and path.name.lower() in _BAD_NAMES:
                raise DataError(f"{folder}: holds the folder {path}; name the folder of the good parts alone")


def _refuse_known_images(samples: Sequence[Sample], model: Path) -> None:
    """Images that the model was trained on score too well, and those of its test would flatter the test.

    Raises:
        DataError: an image has the content of one of either.
    """
    known = read_known_images(model)
    if known is None:
        console().print(f"{model} does not know what it was trained on: make sure that these images were not among it")
        return
    for sample in samples:
        split = known.get(file_hash(sample.image))
        if split is not None:
            of = "the model was trained on it" if split == "train" else "it is one of the model's test images"
            raise DataError(
                f"{sample.image}: {of}, perhaps under another name, so the promise would be untrue; calibrate with "
                "parts that the model has not seen and is not tested with"
            )


def _refuse_swapped(calibrated: Calibrated) -> None:
    """Bad parts that score below the good ones are good ones, or the model's scores mean nothing.

    Raises:
        CalibrationError: they do, by more than chance.
    """
    good, bad = calibrated.good_logits, calibrated.bad_logits
    if bad.size and stats.mannwhitneyu(bad, good, alternative="less").pvalue < _BY_CHANCE:
        raise CalibrationError(
            f"the {bad.size} bad parts score lower than the {good.size} good ones (medians {np.median(bad):.2f} and "
            f"{np.median(good):.2f} logits); are the folders of --good and --bad swapped?"
        )


def _print_calibration(calibrated: Calibrated) -> None:
    calibration = calibrated.calibration
    say = results().print
    share = probability(calibration.threshold_logit)
    say(f"bad from score {share:.3f} on (logit {calibration.threshold_logit:.4f}, {calibration.image_score} score)")
    if calibration.accept_logit is not None:
        low = calibration.accept_logit
        say(f"unsure from score {probability(low):.3f} on (logit {low:.4f}): a person looks")
    say(f"a defect is a region of at least {calibration.min_area_px} px from logit {calibration.pixel_logit:.4f} on")
    for kind, scores in (("good", calibrated.good_logits), ("bad", calibrated.bad_logits)):
        if scores.size:
            found = Counter(verdict(score, calibration) for score in scores.tolist())
            counts = ", ".join(f"{found[name]} {name}" for name in ("good", "unsure", "bad") if found[name])
            say(f"of {scores.size} {kind} parts here: {counts}")
    if calibrated.curve is not None:
        cost = calibrated.curve.cost[calibrated.curve.cheapest]
        say(f"expected cost of a part: {cost:.3g}, the least of any threshold")
        say("costs chose the threshold by these very parts, so the bounds below hold for any threshold, and are wide")
    say(f"calibrated: {calibration.promise()}")
