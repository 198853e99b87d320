"""Is a data set fit to train on? Found out before anyone trains in vain. No torch is needed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from supersimplenet.datasets.checks.file_rules import check_brightness, check_images, check_masks
from supersimplenet.datasets.checks.findings import Finding, Looked
from supersimplenet.datasets.checks.inspection import look_at
from supersimplenet.datasets.checks.light import Light, check_light, measure_light
from supersimplenet.datasets.checks.set_rules import (
    check_duplicates,
    check_labels,
    check_named_groups,
    check_near_duplicates,
)
from supersimplenet.datasets.supervision import supervise
from supersimplenet.errors import ConfigError, DataError
from supersimplenet.types import BAD, Regime, Sample, Split

REPORT_FILE = "check.json"
_ORDER = ("error", "warning", "note")


@dataclass(frozen=True, kw_only=True)
class TypeCount:
    """Images of one type in one split; ``with_mask`` counts those whose mask marks something."""

    split: Split
    defect: str
    label: int
    images: int
    with_mask: int


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What a data set holds, and what is wrong with it.

    Attributes:
        counts: of each type in each split, training first.
        groups: number of physical parts that are named.
        in_groups: images whose part is named.
        regime: that training would choose; None where there is no good training image.
        supervision: that regime and its images, in a line.
        light: brightness and contrast of the good images of both splits; empty where there are too few.
        findings: the worst first.
    """

    counts: tuple[TypeCount, ...]
    groups: int
    in_groups: int
    regime: Regime | None
    supervision: str
    light: tuple[Light, ...]
    findings: tuple[Finding, ...]

    def of_level(self, level: str) -> list[Finding]:
        """The findings of one level."""
        return [finding for finding in self.findings if finding.level == level]


def check(
    samples: Sequence[Sample],
    *,
    size_px: tuple[int, int] | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> CheckReport:
    """Look at every file of a data set once, and say what is wrong. A broken file is a finding and never raises.

    Args:
        samples: of both splits.
        size_px: (height, width) that the network will see: also finds defects too small for it and shapes unlike it.
        progress: called with what is being done, ``reading`` or ``comparing``, and the images done since the last call.

    Raises:
        ConfigError: ``size_px`` is not two positive integers.
    """
    if size_px is not None and min(size_px) < 1:
        raise ConfigError(f"size: {size_px[0]} {size_px[1]}; wanted height and width, whole numbers of at least 1")

    def report(stage: str) -> Callable[[int], None] | None:
        return None if progress is None else lambda images: progress(stage, images)

    looks = look_at(samples, size_px=size_px, progress=report("reading"))
    looked: list[Looked] = list(zip(samples, looks, strict=True))
    light = measure_light(looked)
    findings = [
        *check_images(looked, size_px),
        *check_masks(looked, size_px),
        *check_labels(samples),
        *check_named_groups(samples),
        *check_duplicates(looked),
        *check_near_duplicates(looked, report("comparing")),
        *check_brightness(looked),
        *check_light(light),
    ]
    regime, supervision = _supervision(looked)
    names = [sample.group for sample in samples if sample.group is not None]
    return CheckReport(
        counts=_counts(looked),
        groups=len(set(names)),
        in_groups=len(names),
        regime=regime,
        supervision=supervision,
        light=light,
        findings=tuple(sorted(findings, key=lambda finding: _ORDER.index(finding.level))),
    )


def remove_report(folder: Path) -> None:
    """Delete an earlier check's report and pictures, which would stand beside the new ones."""
    path = folder / REPORT_FILE
    if path.is_file():
        for finding in json.loads(path.read_text(encoding="utf-8"))["findings"]:
            (folder / f"{finding['code']}.png").unlink(missing_ok=True)
        path.unlink()


def write_report(report: CheckReport, folder: Path, *, data: str) -> Path:
    """Write check.json: counts, supervision, and every finding with all of its images."""
    path = folder / REPORT_FILE
    plain: dict[str, Any] = {
        "data": data,
        "counts": [vars(count) for count in report.counts],
        "groups": report.groups,
        "images_in_groups": report.in_groups,
        "regime": report.regime,
        "supervision": report.supervision,
        "findings": [
            {
                "level": finding.level,
                "code": finding.code,
                "message": finding.message,
                "evidence": [
                    {"images": [str(image) for image in evidence.images], "detail": evidence.detail}
                    for evidence in finding.evidence
                ],
            }
            for finding in report.findings
        ],
    }
    path.write_text(json.dumps(plain, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _marks(looked: Looked) -> bool:
    sample, look = looked
    return sample.label == BAD and look.mask is not None and look.mask.marked_fraction > 0


def _supervision(looked: Sequence[Looked]) -> tuple[Regime | None, str]:
    """As training decides it; a mask that marks nothing, or cannot be used, labels no pixel."""
    labelled = [
        sample
        if sample.label != BAD or _marks((sample, look))
        else replace(sample, mask=None, pixel_labels_known=False)
        for sample, look in looked
    ]
    try:
        supervision = supervise(labelled)
    except DataError as error:
        return None, f"supervision: none; {error}"
    return supervision.regime, supervision.describe()


def _counts(looked: Sequence[Looked]) -> tuple[TypeCount, ...]:
    images = Counter((sample.split, sample.label, sample.defect) for sample, _ in looked)
    masks = Counter((sample.split, sample.label, sample.defect) for sample, look in looked if _marks((sample, look)))
    order = sorted(images, key=lambda key: (key[0] != "train", key[1], key[2]))
    return tuple(
        TypeCount(split=split, label=label, defect=defect, images=images[key], with_mask=masks[key])
        for key in order
        for split, label, defect in [key]
    )
