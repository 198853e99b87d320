"""A small evaluation for the tests of the report: a real network on synthetic images, calibrated, with groups."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from supersimplenet import Detector, ModelConfig, SuperSimpleNet, SyntheticConfig, evaluate, synthesize
from supersimplenet.datasets.mvtec import MVTecAD
from supersimplenet.evaluation.config import ThresholdConfig
from supersimplenet.evaluation.results import Evaluation
from supersimplenet.evaluation.set_thresholds import set_thresholds
from supersimplenet.inference.model_folder import hash_weights, save_model, write_calibration
from supersimplenet.types import BAD, GOOD, Sample

SIZE = (64, 64)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A detector and what it says of some samples."""

    detector: Detector
    samples: list[Sample]
    evaluation: Evaluation


def make_samples(folder: Path) -> list[Sample]:
    """24 good training images; of the test, 16 good and 24 bad ones in parts of two images each."""
    config = SyntheticConfig(surfaces=("cast_grain",), size_px=SIZE, train_good=24, test_good=16, test_per_defect=6)
    synthesize(folder, config)
    samples = MVTecAD(root=folder, category="cast_grain").samples()
    return [
        replace(sample, group=f"{sample.defect} {int(sample.image.stem) // 2}") if sample.split == "test" else sample
        for sample in samples
    ]


def make_case(folder: Path, samples: list[Sample], *, seed: int = 1, config: ThresholdConfig | None = None) -> Case:
    """A network that was never trained, so that it is often wrong; calibrated with ``config`` where one is given."""
    save_model(folder, SuperSimpleNet(ModelConfig(backbone="compact", image_size=SIZE), seed=seed).eval(), {})
    if config is not None:
        calibrated = set_thresholds(
            Detector.load(folder),
            [s for s in samples if s.split == "train"]
            + ([s for s in samples if s.label == BAD] if config.max_escapes else []),
            config,
            basis="made for a test",
            weights_sha256=hash_weights(folder),
        )
        write_calibration(folder, calibrated.calibration)
    detector = Detector.load(folder)
    return Case(detector=detector, samples=samples, evaluation=evaluate(detector, samples))


def parts_of(evaluation: Evaluation, label: int) -> list[list[float]]:
    """The scores of each part's images."""
    parts: dict[str | None, list[float]] = {}
    for outcome in evaluation.outcomes:
        if outcome.sample.label == label:
            parts.setdefault(outcome.sample.group, []).append(outcome.score_logit)
    return list(parts.values())


def mistakes_at(evaluation: Evaluation, reject: float, accept: float | None = None) -> tuple[int, int]:
    """False alarms and escapes of parts, counted one by one."""
    level = reject if accept is None else accept
    alarms = sum(any(score >= reject for score in part) for part in parts_of(evaluation, GOOD))
    return alarms, sum(any(score < level for score in part) for part in parts_of(evaluation, BAD))
