"""Download published datasets, and check that the resulting folder is complete.

Only the publisher's own server is used. The archive is compared with the published checksum before it is opened, and
its images are counted.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from supersimplenet.datasets.base import DataSource
from supersimplenet.datasets.download.archives import ARCHIVES, ON_REQUEST, REQUEST_PAGE, SPLITS_PAGE, Archive, Counts
from supersimplenet.datasets.download.fetch import check, fetch
from supersimplenet.datasets.download.unpack import unpack
from supersimplenet.datasets.registry import SOURCES
from supersimplenet.errors import ConfigError, DataError, OutputError
from supersimplenet.types import BAD, GOOD
from supersimplenet.utils.locks import writing_file

_PICTURES_GROW = 1.1  # unpacked size divided by packed size: archives hardly compress PNG and JPEG files


class Download(NamedTuple):
    """Result of `download`.

    Attributes:
        folder: folder of the dataset.
        counts: images by category, as published.
        unpacked: the categories that were missing before and are unpacked now.
    """

    folder: Path
    counts: dict[str, Counts]
    unpacked: list[str]

    @property
    def total(self) -> Counts:
        """Numbers of images of all categories together."""
        return Counts(*map(sum, zip(*self.counts.values(), strict=True)))


def download(
    name: str,
    folder: Path,
    *,
    archive: Path | None = None,
    categories: Sequence[str] | None = None,
    keep_archive: bool = False,
    registry: Mapping[str, Archive] = ARCHIVES,
) -> Download:
    """Fetch, check and unpack the missing categories of a dataset, and count the images.

    The archive is fetched into the folder's parent, unpacked beside the folder, and renamed when it is complete. In an
    existing folder, the missing categories are unpacked inside it and then moved to their place.

    Args:
        name: name of the dataset.
        folder: root folder of the dataset.
        archive: file of the archive, if it was fetched by other means; it is checked as well, and not deleted.
        categories: the wanted categories; by default all.
        keep_archive: keep the fetched archive beside the folder.
        registry: the datasets to choose from.

    Raises:
        ConfigError: the dataset or a category is unknown.
        DataError: the archive cannot be fetched or is not the published one, or the folder holds other images.
        OutputError: the disk has too little free space.
    """
    if name == ON_REQUEST:
        raise DataError(_on_request(folder))
    if name not in registry:
        raise ConfigError(f"{name}: no such dataset; wanted one of {', '.join([*registry, ON_REQUEST])}")
    published = registry[name]
    folder = folder.resolve()
    file = archive or folder.parent / published.file
    wanted = _wanted(published, categories)
    if not _missing(published, folder, wanted):
        return _download(published, folder, file, wanted, fetched=False, kept=True)
    with writing_file(folder), nullcontext() if archive else writing_file(file):
        return _download(published, folder, file, wanted, fetched=archive is None, kept=keep_archive)


def _download(
    published: Archive, folder: Path, file: Path, wanted: Sequence[str], *, fetched: bool, kept: bool
) -> Download:
    """Do what `download` describes; ``fetched``: the archive is to be fetched, ``kept``: and not removed at the end."""
    missing = _missing(published, folder, wanted)
    advice = "move it away and run the command again"
    counts = {c: _counted(published, folder, c, advice) for c in wanted if c not in missing}
    if missing:
        _check_space(published, folder, missing, published.size - _here(file) if fetched else 0)
        if fetched:
            advice = f"fetch the archive from {published.page} in a browser and pass it with --archive FILE"
            fetch(published.url, file, size=published.size, checksum=published.checksum, advice=advice)
        else:
            check(file, published.checksum)
        _unpack(published, file, folder, missing)
        advice = "the archive is as published, so this is an error of this program: please report it"
        counts |= {category: _counted(published, folder, category, advice) for category in missing}
        if fetched and not kept:
            file.unlink()
    return Download(folder, {category: counts[category] for category in wanted}, missing)


def source_of(name: str, folder: Path, category: str) -> DataSource:
    """Return the data source for a downloaded dataset; ``category`` is "" where the dataset has no categories."""
    arguments = {"root": folder} | ({"category": category} if category else {})
    return SOURCES[name](**arguments)


def _wanted(published: Archive, categories: Sequence[str] | None) -> list[str]:
    if categories is None:
        return list(published.counts)
    known = [category for category in published.counts if category]
    unknown = [category for category in categories if category not in known]
    if unknown or not categories:
        those = f"wanted some of {', '.join(known)}" if known else "it has no categories: leave them out"
        raise ConfigError(f"categories: {published.name} has none named {', '.join(unknown) or 'nothing'}; {those}")
    return [category for category in known if category in categories]


def _missing(published: Archive, folder: Path, wanted: Sequence[str]) -> list[str]:
    return [category for category in wanted if not any(path.exists() for path in _paths(published, folder, category))]


def _paths(published: Archive, folder: Path, category: str) -> list[Path]:
    return [folder / category] if category else [folder / entry for entry in published.layout]


def _counted(published: Archive, folder: Path, category: str, advice: str) -> Counts:
    where = folder / category
    try:
        samples = source_of(published.name, folder, category).samples()
    except DataError as error:
        raise DataError(f"{where}: not a whole {published.name} ({error}); {advice}") from error
    kinds = [(sample.split, sample.label) for sample in samples]
    found = Counts(*(kinds.count(k) for k in (("train", GOOD), ("train", BAD), ("test", GOOD), ("test", BAD))))
    if found != published.counts[category]:
        raise DataError(f"{where}: found {found}; wanted {published.counts[category]}; {advice}")
    return found


def _check_space(published: Archive, folder: Path, missing: list[str], to_fetch: int) -> None:
    """Check the free space for the rest of the archive and the missing categories, by their share of the images."""
    images = {category: sum(counts) for category, counts in published.counts.items()}
    share = sum(images[category] for category in missing) / sum(images.values())
    needed = to_fetch + int(_PICTURES_GROW * share * published.size)
    disk = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(disk).free
    if free < needed:
        raise OutputError(
            f"{folder}: {free:,} bytes are free; wanted about {needed:,}: {to_fetch:,} to fetch, the rest to unpack; "
            f"free some, or name another --output"
        )


def _here(file: Path) -> int:
    """Return how many bytes of the archive were fetched already."""
    part = file.with_name(f"{file.name}.part")
    return max(path.stat().st_size if path.exists() else 0 for path in (file, part))


def _unpack(published: Archive, file: Path, folder: Path, missing: list[str]) -> None:
    is_new = not folder.exists()
    unpacked = (folder.parent if is_new else folder) / f".{folder.name}.unpacking"
    if unpacked.exists():
        shutil.rmtree(unpacked)  # left by a run that was killed

    def is_wanted(path: PurePosixPath) -> bool:
        return not path.parts or path.parts[0] not in published.counts or path.parts[0] in missing

    unpack(file, unpacked, at_most_bytes=published.unpacked_at_most, wanted=is_wanted)
    if is_new:
        unpacked.rename(folder)
        return
    for entry in sorted(unpacked.iterdir()):
        if not (folder / entry.name).exists():
            entry.rename(folder / entry.name)
    shutil.rmtree(unpacked)


def _on_request(folder: Path) -> str:
    return (
        f"{ON_REQUEST}: handed out on request only, under CC BY-NC-SA 4.0: no commercial use. Ask at "
        f"{REQUEST_PAGE}, unpack what you get so that {folder}/capsule/negative/data and {folder}/softgel/... exist. "
        f"Fetch the authors' three-fold split files, linked in the README of {SPLITS_PAGE}, and unpack them so that "
        f"{folder}/sensum_splits/capsule/0/train/neg.pckl exists"
    )
