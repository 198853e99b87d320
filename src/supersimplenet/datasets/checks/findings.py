"""What a check of a data set complains about, and the words it uses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from supersimplenet.datasets.checks.inspection import Look
from supersimplenet.types import Sample

Level = Literal["error", "warning", "note"]
Looked = tuple[Sample, Look]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One instance of a finding: an image, or several that belong together, and what is the matter with them."""

    images: tuple[Path, ...]
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something worth knowing before training.

    Attributes:
        level: ``error`` where training or its figures would be wrong, ``warning`` where they probably are, ``note``.
        code: what kind of thing it is, the same in every version; also the name of its picture.
        message: what was found and what to do.
        evidence: where it was found; may be empty.
    """

    level: Level
    code: str
    message: str
    evidence: tuple[Evidence, ...] = ()

    @property
    def images(self) -> tuple[Path, ...]:
        """Every image it is about."""
        return tuple(image for evidence in self.evidence for image in evidence.images)


def each(looked: Iterable[tuple[Sample, str]]) -> tuple[Evidence, ...]:
    """Evidence of one image each, with its detail."""
    return tuple(Evidence(images=(sample.image,), detail=detail) for sample, detail in looked)


def together(samples: Sequence[Sample], detail: str) -> Evidence:
    """Evidence of several images."""
    return Evidence(images=tuple(sample.image for sample in samples), detail=detail)
