"""Parts: photographs with equal pixels are one part, whatever their files are. The one place that joins them.

A copy of a photograph says nothing new. Counted as another part, it would make a guarantee untrue; on the other side of
a split, it would be tested or calibrated with what was trained on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

from supersimplenet.datasets.base import relative_names
from supersimplenet.errors import DataError, ImageError
from supersimplenet.preprocessing.decoding import decode, image_size
from supersimplenet.preprocessing.images import pixel_digest, prepare_pixels, read_image
from supersimplenet.preprocessing.listing import natural_key
from supersimplenet.preprocessing.reading import MOST_BITS, BitDepth, ReadConfig
from supersimplenet.types import BAD, GOOD, Sample
from supersimplenet.utils.formatting import counted, few

_THREADS = min(8, os.cpu_count() or 1)
T = TypeVar("T")


def digest_possible_copies(
    images: Sequence[Path],
    *,
    bit_depth: BitDepth | None = None,
    page: int | None = None,
    progress: Callable[[int], None] = lambda images: None,
) -> dict[Path, str]:
    """Return the pixel digest of each image that may have a copy among the others; see `pixel_digest`.

    Headers are read first: an image whose size no other has is not decoded. The others are decoded once, in threads.
    A file that cannot be read is left out; who needs its pixels reports it.

    Args:
        images: the image files.
        bit_depth: see `DataSource`; for ``auto``, 16-bit values of an unknown range are compared as they are.
        page: likewise.
        progress: called with the number of images done since the last call.
    """
    digests: dict[Path, str] = {}
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="digests") as pool:
        try:
            sizes = list(pool.map(_readable(partial(image_size, page=page)), images))
            alike = [place for group in equal_groups(sizes) for place in group if sizes[place] is not None]
            progress(len(images) - len(alike))
            chosen = [images[place] for place in alike]
            digest_of = _readable(partial(_digest, bit_depth=bit_depth or MOST_BITS, page=page))
            for image, digest in zip(chosen, pool.map(digest_of, chosen), strict=True):
                if digest is not None:
                    digests[image] = digest
                progress(1)
        finally:
            pool.shutdown(cancel_futures=True)
    return digests


def find_copies(samples: Sequence[Sample], digests: Mapping[Path, str]) -> list[list[int]]:
    """Return groups of positions of samples whose images have equal pixels.

    Args:
        samples: samples of the dataset.
        digests: pixel digest by image; an image without one is no copy.
    """
    return equal_groups([digests.get(sample.image) or place for place, sample in enumerate(samples)])


def merge_copies(samples: Sequence[Sample], digests: Mapping[Path, str]) -> list[Sample]:
    """Return the samples with copies in one group, joined with the groups that they are in; see `find_copies`."""
    return merge_parts(samples, _chains(find_copies(samples, digests)))


def merge_parts(samples: Sequence[Sample], links: Iterable[tuple[int, int]]) -> list[Sample]:
    """Return the samples with linked ones in one group, together with the groups that they are in.

    A joined group has a name such as ``001+014``; without a name it is called ``found`` and the first of its images.

    Args:
        samples: samples of the dataset.
        links: pairs of positions in the list.
    """
    links = list(links)
    if not links:
        return list(samples)
    named = [
        ("", str(place)) if sample.group is None else ("named", sample.group) for place, sample in enumerate(samples)
    ]
    names: dict[int, str | None] = {place: sample.group for place, sample in enumerate(samples)}
    names_of = relative_names(samples)
    for linked in linked_groups(len(samples), chain(links, _chains(equal_groups(named)))):
        known = sorted({group for place in linked if (group := samples[place].group) is not None})
        first = min((names_of[samples[place].image] for place in linked), key=lambda name: natural_key(Path(name)))
        names.update(dict.fromkeys(linked, "+".join(known) or f"found {first}"))
    return [replace(sample, group=names[place]) for place, sample in enumerate(samples)]


def describe_copies(samples: Sequence[Sample], digests: Mapping[Path, str]) -> str | None:
    """Return a line that counts and names the images that are copies of others; None where there is none."""
    groups = find_copies(samples, digests)
    if not groups:
        return None
    copies = sum(map(len, groups)) - len(groups)
    are = "is a copy of another" if copies == 1 else "are copies of others"
    return f"{counted(copies, 'image')} {are}, pixel for pixel, and counted as one part: {_named(samples, groups)}"


def require_one_label(samples: Sequence[Sample], digests: Mapping[Path, str]) -> None:
    """Check that no image is labelled good in one file and bad in another.

    Raises:
        DataError: copies of one image have both labels.
    """
    torn = [group for group in find_copies(samples, digests) if len({samples[place].label for place in group}) > 1]
    if torn:
        first = {samples[place].label: samples[place].image for place in reversed(torn[0])}
        more = f" (and {counted(len(torn) - 1, 'more image')})" if len(torn) > 1 else ""
        raise DataError(
            f"{first[GOOD]}: labelled good, and its copy {first[BAD]} bad, pixel for pixel the same{more}; remove the "
            "wrong one"
        )


def equal_groups(keys: Sequence[Hashable]) -> list[list[int]]:
    """Return groups of positions with equal keys, positions and groups ascending; single ones are left out."""
    places: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return [group for group in places.values() if len(group) > 1]


def linked_groups(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Return groups of positions 0 to count - 1 that pairs link directly or indirectly; single ones are left out."""
    parent = list(range(count))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for one, other in pairs:
        parent[root(one)] = root(other)
    return equal_groups([root(place) for place in range(count)])


def _chains(groups: Iterable[Sequence[int]]) -> list[tuple[int, int]]:
    return [(group[0], other) for group in groups for other in group[1:]]


def _named(samples: Sequence[Sample], groups: Sequence[Sequence[int]]) -> str:
    named = []
    for group in groups[:3]:
        more = f" = {len(group) - 2} more" if len(group) > 2 else ""
        named.append(" = ".join(str(samples[place].image) for place in group[:2]) + more)
    return few([*named, *groups[3:]])


def _readable(read: Callable[[Path], T]) -> Callable[[Path], T | None]:
    """Return the function that gives None for a file that cannot be read."""

    def or_none(path: Path) -> T | None:
        try:
            return read(path)
        except (ImageError, OSError):
            return None

    return or_none


def _digest(path: Path, *, bit_depth: BitDepth, page: int | None) -> str:
    status = path.stat()
    return _digest_of(path, status.st_size, status.st_mtime_ns, bit_depth, page)


@lru_cache(maxsize=1 << 17)
def _digest_of(path: Path, size: int, modified: int, bit_depth: BitDepth, page: int | None) -> str:
    """Return the digest; a file that does not change is decoded once in a process."""
    del size, modified
    if bit_depth != "auto":
        return pixel_digest(read_image(path, reading=ReadConfig(bit_depth=bit_depth, page=page)))
    decoded = decode(path, page=page)
    return pixel_digest(decoded.pixels if decoded.range_open else prepare_pixels(decoded.pixels))
