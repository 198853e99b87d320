"""Findings of a dataset check, each with level, message and evidence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from supersimplenet.datasets.checks.inspection import Inspection
from supersimplenet.types import Sample

Level = Literal["error", "warning", "note"]
Inspected = tuple[Sample, Inspection]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One case of a finding: one image, or several that belong together, and what is wrong with them."""

    images: tuple[Path, ...]
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A fact about the data that people should know before training.

    Attributes:
        level: ``error`` if training or its metrics would be wrong, ``warning`` if they probably are, else ``note``.
        code: the kind of finding, the same in every version; its picture has this name, too.
        message: the problem, and advice against it.
        evidence: the images concerned; may be empty.
    """

    level: Level
    code: str
    message: str
    evidence: tuple[Evidence, ...] = ()

    @property
    def images(self) -> tuple[Path, ...]:
        """Every image that the finding is about."""
        return tuple(image for evidence in self.evidence for image in evidence.images)


def each(inspected: Iterable[tuple[Sample, str]]) -> tuple[Evidence, ...]:
    """Return one piece of evidence for each image, with its detail."""
    return tuple(Evidence(images=(sample.image,), detail=detail) for sample, detail in inspected)


def together(samples: Sequence[Sample], detail: str) -> Evidence:
    """Return one piece of evidence for several images."""
    return Evidence(images=tuple(sample.image for sample in samples), detail=detail)
