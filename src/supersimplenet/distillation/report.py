"""What a distillation is worth: teacher, student before and student after, on datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from supersimplenet.distillation.config import DistillConfig
from supersimplenet.distillation.distill import student_of, teacher_of
from supersimplenet.distillation.quality import Quality, measure_quality
from supersimplenet.model.backbone import Backbone, build_backbone
from supersimplenet.model.config import COMPACT, ModelConfig
from supersimplenet.model.layers import architecture_of
from supersimplenet.types import Sample
from supersimplenet.utils.files import write_text
from supersimplenet.utils.serialization import as_json, to_plain

REPORT = "report.json"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A backbone on a dataset.

    Attributes:
        dataset: its name.
        backbone: ``teacher``, ``before`` or ``after``, the student without and with its training.
        quality: what was measured.
    """

    dataset: str
    backbone: str
    quality: Quality


def distilled_backbone(config: DistillConfig, weights: Path) -> Backbone:
    """Build the student with the weights of a distillation."""
    name = architecture_of(COMPACT) if config.student == COMPACT else config.student
    return build_backbone(ModelConfig(backbone=name, backbone_weights=weights, feature_strides=config.feature_strides))


def measure_backbones(
    config: DistillConfig,
    weights: Path,
    datasets: Mapping[str, Sequence[Sample]],
    *,
    size_px: tuple[int, int],
    teacher: Backbone | None = None,
) -> list[Row]:
    """Measure a distillation's backbones and keep the figures beside its weights.

    Args:
        config: settings of the distillation.
        weights: its weights.
        datasets: samples of each dataset, with both splits.
        size_px: height and width to which images are resized.
        teacher: see `distill`.

    Raises:
        DataError: a dataset lacks good training images, or test images of a label.
    """
    backbones = {
        "teacher": teacher_of(config) if teacher is None else teacher,
        "before": student_of(config),
        "after": distilled_backbone(config, weights),
    }
    rows = [
        Row(
            dataset=name,
            backbone=which,
            quality=measure_quality(backbone, config.feature_strides, samples, size_px=size_px, seed=config.seed),
        )
        for name, samples in datasets.items()
        for which, backbone in backbones.items()
    ]
    write_text(weights.with_name(REPORT), as_json([to_plain(row) for row in rows], indent=2) + "\n")
    return rows
