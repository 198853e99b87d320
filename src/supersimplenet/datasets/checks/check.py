"""Check whether a dataset is fit for training, before time is lost on a useless training. Needs no torch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from supersimplenet.datasets.checks.file_rules import (
    check_brightness,
    check_images,
    check_masks,
    check_orphans,
    check_range,
)
from supersimplenet.datasets.checks.findings import Finding, Inspected
from supersimplenet.datasets.checks.inspection import inspect_samples
from supersimplenet.datasets.checks.light import Light, check_light, measure_light
from supersimplenet.datasets.checks.set_rules import (
    check_duplicates,
    check_labels,
    check_named_groups,
    check_near_duplicates,
)
from supersimplenet.datasets.defect_sizes import DefectSize, NetworkInput, describe_smallest, smallest_defect
from supersimplenet.datasets.supervision import supervise
from supersimplenet.errors import ConfigError, DataError, ModelFolderError, OutputError
from supersimplenet.preprocessing.reading import FULL_RANGE, ReadConfig
from supersimplenet.types import BAD, Regime, Sample, Split
from supersimplenet.utils.documents import read_json
from supersimplenet.utils.files import write_text
from supersimplenet.utils.serialization import as_json, checked

REPORT_FILE = "check.json"
_CODE = re.compile("[a-z-]+")
_LARGEST_REPORT_BYTES = 1 << 28  # it names every image of every finding
_ORDER = ("error", "warning", "note")


@dataclass(frozen=True, kw_only=True)
class TypeCount:
    """Number of images of one type in one split; ``with_mask`` counts the images whose mask is not empty."""

    split: Split
    defect: str
    label: int
    images: int
    with_mask: int


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """The content of a dataset, and the mistakes found in it.

    Attributes:
        counts: number of images of each type in each split, training first.
        groups: number of physical parts that have a name.
        in_groups: number of images whose part has a name.
        regime: regime of supervision that training would choose; None where there is no good training image.
        supervision: a line of text with that regime and its numbers of images.
        light: brightness and contrast of the good images of both splits; empty where there are too few images.
        smallest: how small the smallest defects are and whether the network sees them; empty without a mask.
        findings: the findings, the worst first.
        reading: how the images were read.
    """

    counts: tuple[TypeCount, ...]
    groups: int
    in_groups: int
    regime: Regime | None
    supervision: str
    light: tuple[Light, ...]
    smallest: str
    findings: tuple[Finding, ...]
    reading: ReadConfig = FULL_RANGE

    def of_level(self, level: str) -> list[Finding]:
        """Return the findings of one level."""
        return [finding for finding in self.findings if finding.level == level]


def check(
    samples: Sequence[Sample],
    *,
    orphans: Sequence[tuple[Path, str]] = (),
    size_px: tuple[int, int] | None = None,
    reading: ReadConfig = FULL_RANGE,
    progress: Callable[[str, int], None] | None = None,
) -> CheckReport:
    """Inspect every file of a dataset once, and report mistakes. A broken file gives a finding, not an exception.

    Args:
        samples: samples of both splits.
        orphans: masks that belong to no sample, each with what was wanted; see `DataSource.survey`.
        size_px: (height, width) of the network's input. If given, also find defects too small for this size, and
            images of very different proportions.
        reading: how the dataset's images are read; see `decide_reading`.
        progress: called with the current stage, ``reading`` or ``comparing``, and the number of images done since the
            last call.

    Raises:
        ConfigError: a side of ``size_px`` is below 1.
    """
    if size_px is not None and min(size_px) < 1:
        raise ConfigError(f"size: {size_px[0]} {size_px[1]}; wanted height and width, whole numbers of at least 1")

    def report(stage: str) -> Callable[[int], None] | None:
        return None if progress is None else lambda images: progress(stage, images)

    inspections = inspect_samples(samples, size_px=size_px, reading=reading, progress=report("reading"))
    inspected: list[Inspected] = list(zip(samples, inspections, strict=True))
    light = measure_light(inspected)
    findings = [
        *check_images(inspected, size_px),
        *check_range(inspected, reading.bit_depth),
        *check_masks(inspected, size_px),
        *check_orphans(orphans),
        *check_labels(samples),
        *check_named_groups(samples),
        *check_duplicates(inspected),
        *check_near_duplicates(inspected, report("comparing")),
        *check_brightness(inspected),
        *check_light(light),
    ]
    regime, supervision = _supervision(inspected)
    names = [sample.group for sample in samples if sample.group is not None]
    return CheckReport(
        counts=_counts(inspected),
        groups=len(set(names)),
        in_groups=len(names),
        regime=regime,
        supervision=supervision,
        light=light,
        smallest=_smallest(inspected, NetworkInput() if size_px is None else NetworkInput(size_px)),
        findings=tuple(sorted(findings, key=lambda finding: _ORDER.index(finding.level))),
        reading=reading,
    )


def _smallest(inspected: Sequence[Inspected], seen_by: NetworkInput) -> str:
    sizes = [
        DefectSize(width_px=width, image_px=inspection.image.size_px)
        for _, inspection in inspected
        if inspection.image is not None and inspection.mask is not None
        for width in inspection.mask.widths_px
    ]
    smallest = smallest_defect(sizes, seen_by)
    return "" if smallest is None else describe_smallest(smallest, seen_by)


def remove_report(folder: Path) -> None:
    """Delete the report and the pictures of an earlier check, so that they do not mix with the new ones."""
    path = folder / REPORT_FILE
    if path.is_file():
        advice = "remove it, and the pictures beside it"
        content = read_json(path, advice=advice, error=OutputError, max_bytes=_LARGEST_REPORT_BYTES)
        try:
            codes = [checked(str, finding["code"], where=str(path)) for finding in content["findings"]]
        except (KeyError, TypeError, ModelFolderError) as error:
            raise OutputError(f"{path}: not a report of an earlier check; {advice}") from error
        for code in codes:
            if _CODE.fullmatch(code):  # a name of ours, and no path to another file
                (folder / f"{code}.png").unlink(missing_ok=True)
        path.unlink()


def write_report(report: CheckReport, folder: Path, *, data: str, left_out: Mapping[str, int]) -> Path:
    """Write check.json: counts, supervision, and every finding with all of its images.

    Args:
        report: the report.
        folder: the folder to write into.
        data: name of the dataset.
        left_out: numbers of what lies in the dataset's folders and is no sample, by kind.
    """
    path = folder / REPORT_FILE
    plain: dict[str, Any] = {
        "data": data,
        "counts": [vars(count) for count in report.counts],
        "groups": report.groups,
        "images_in_groups": report.in_groups,
        "left_out": dict(left_out),
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
    write_text(path, as_json(plain, indent=2) + "\n")
    return path


def _marks(inspected: Inspected) -> bool:
    sample, inspection = inspected
    return sample.label == BAD and inspection.mask is not None and inspection.mask.marked_fraction > 0


def _supervision(inspected: Sequence[Inspected]) -> tuple[Regime | None, str]:
    """Return the regime that training would choose, and a line about it; empty and unusable masks label no pixel."""
    labelled = [
        sample
        if sample.label != BAD or _marks((sample, inspection))
        else replace(sample, mask=None, pixel_labels_known=False)
        for sample, inspection in inspected
    ]
    try:
        supervision = supervise(labelled)
    except DataError as error:
        return None, f"supervision: none; {error}"
    return supervision.regime, supervision.describe()


def _counts(inspected: Sequence[Inspected]) -> tuple[TypeCount, ...]:
    images = Counter((sample.split, sample.label, sample.defect) for sample, _ in inspected)
    masks = Counter(
        (sample.split, sample.label, sample.defect) for sample, inspection in inspected if _marks((sample, inspection))
    )
    order = sorted(images, key=lambda key: (key[0] != "train", key[1], key[2]))
    return tuple(
        TypeCount(split=split, label=label, defect=defect, images=images[key], with_mask=masks[key])
        for key in order
        for split, label, defect in [key]
    )
