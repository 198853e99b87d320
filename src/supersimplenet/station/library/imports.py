"""Brings pictures with labels into a dataset: from any dataset that a training reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from supersimplenet.datasets.masks import MaskReader
from supersimplenet.errors import DataError, ImageError
from supersimplenet.station.library.intake import Incoming, take
from supersimplenet.station.library.roles import Role
from supersimplenet.station.library.store import LibraryStore
from supersimplenet.station.library.versions import Known, Version, commit
from supersimplenet.station.storage.database import writing
from supersimplenet.types import GOOD, Sample
from supersimplenet.utils.files import read_regular

if TYPE_CHECKING:
    from supersimplenet.datasets.base import DataSource

_MOST_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import did.

    Attributes:
        version: the new version; None where nothing would differ.
        taken: number of pictures that it says something about.
        left_out: why other pictures were left out, by their path.
    """

    version: Version | None
    taken: int
    left_out: dict[str, str]


def import_samples(
    engine: Engine,
    store: LibraryStore,
    source: DataSource,
    *,
    dataset: str,
    who: str,
    role: Role | None = None,
    progress: Callable[[int], None] = lambda pictures: None,
) -> Imported:
    """Make a version of a dataset that holds the pictures of another one, with their labels, masks and parts.

    Test images become golden. Where there are some, the other parts are drawn for training and calibration alone, else
    for all three; see `draw_role`. A picture whose part has another role already is left out, with the reason.

    Args:
        engine: the database.
        store: the library's files.
        source: the other dataset.
        dataset: name of the dataset; it is begun where there is none.
        who: who makes the version.
        role: the role of all parts; None for that of their split.
        progress: called with the number of pictures done since the last call.

    Raises:
        DataError: the other dataset cannot be read.
    """
    samples = source.samples()
    reader = MaskReader()
    has_golden = any(sample.split == "test" for sample in samples)
    known: dict[str, Known] = {}
    left_out: dict[str, str] = {}
    # Test images first: a part that is in both splits is golden, and its training images are left out
    for sample in sorted(samples, key=lambda each: each.split != "test"):
        try:
            with writing(engine) as connection:
                incoming = _incoming(sample, reader)
                asked = role or ("golden" if sample.split == "test" else None)
                taken = take(connection, store, dataset, replace(incoming, role=asked), has_golden=has_golden)
        except (DataError, ImageError) as error:
            left_out[str(sample.image)] = str(error)
        else:
            known[taken.picture] = taken.known
        progress(1)
    with writing(engine) as connection:
        made = commit(connection, dataset, known, who=who, why=f"imported {source.name}")
    return Imported(version=made, taken=len(known), left_out=left_out)


def _incoming(sample: Sample, reader: MaskReader) -> Incoming:
    is_good = sample.label == GOOD
    try:
        content = read_regular(sample.image, max_bytes=_MOST_BYTES)
    except OSError as error:
        raise DataError(f"{sample.image}: cannot be read ({error.strerror}); check the path") from error
    return Incoming(
        content=content,
        name=sample.image.name,
        label="good" if is_good else "bad",
        part=sample.group,
        defect=None if is_good else sample.defect,
        mask=None if is_good else reader.defects(sample),
    )
