"""A new version of a dataset from what people answered: agreed answers about kept pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Engine

from supersimplenet.errors import DataError, ImageError
from supersimplenet.preprocessing.images import read_mask
from supersimplenet.preprocessing.reading import FULL_RANGE, ReadConfig
from supersimplenet.station.library.intake import Incoming, take
from supersimplenet.station.library.store import LibraryStore
from supersimplenet.station.library.versions import Known, Label, Version, commit
from supersimplenet.station.review.opinions import OpinionName
from supersimplenet.station.storage import results
from supersimplenet.station.storage.database import writing
from supersimplenet.station.storage.pictures import PictureStore
from supersimplenet.station.storage.recorder import Record


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """What came of the answers about a product's parts.

    Attributes:
        version: the new version; None where nothing would differ.
        taken: pictures that it holds by these answers.
        unusable: pictures that are in no version because people said so.
        disputed: pictures about which people do not agree; likewise.
        not_kept: pictures that were answered about and are not on the disk any more.
        left_out: why other pictures were left out, by their name as sent.
    """

    version: Version | None
    taken: int
    unusable: int
    disputed: int
    not_kept: int
    left_out: dict[str, str]


def gather(
    engine: Engine,
    pictures: PictureStore,
    store: LibraryStore,
    *,
    product: str,
    dataset: str,
    who: str,
    reading: ReadConfig = FULL_RANGE,
    progress: Callable[[int], None] = lambda pictures: None,
) -> Gathered:
    """Make a version of a dataset from all reviewed results of a product.

    A picture that was inspected several times has one answer: where the results' answers differ, it is disputed.
    A picture that the dataset holds and that is now unusable or disputed leaves it.

    Args:
        engine: the database.
        pictures: the station's pictures.
        store: the library's files.
        product: name of the product.
        dataset: name of the dataset; it is begun where there is none.
        who: who makes the version.
        reading: how the product's model reads pictures.
        progress: called with the number of pictures done since the last call.
    """
    counts: Counter[str] = Counter()
    known: dict[str, Known] = {}
    remove: list[str] = []
    left_out: dict[str, str] = {}
    for record, answer in _reviewed(engine, product):
        progress(1)
        if answer == "disputed" or answer == "unusable":
            counts[answer] += 1
            remove.append(record["picture"])
            continue
        content = _content(record, pictures, store)
        if content is None:
            counts["not_kept"] += 1
            continue
        try:
            with writing(engine) as connection:
                incoming = _incoming(record, answer, content, store)
                taken = take(connection, store, dataset, incoming, reading=reading)
        except (DataError, ImageError) as error:
            left_out[record["name"]] = str(error)
            continue
        known[taken.picture] = taken.known
    with writing(engine) as connection:
        made = commit(connection, dataset, known, remove=remove, who=who, why=f"answers about {product}")
    return Gathered(
        version=made,
        taken=len(known),
        unusable=counts["unusable"],
        disputed=counts["disputed"],
        not_kept=counts["not_kept"],
        left_out=left_out,
    )


def _reviewed(engine: Engine, product: str) -> Iterable[tuple[Record, OpinionName]]:
    """Return for each reviewed picture its newest result and the answer: disputed where those of its results differ."""
    found: dict[str, tuple[Record, OpinionName]] = {}
    for record in results.every(engine, results.Filter(product=product, reviewed="any")):
        _, before = found.get(record["picture"], (record, record["review"]))
        found[record["picture"]] = record, record["review"] if before == record["review"] else "disputed"
    return found.values()


def _content(record: Record, pictures: PictureStore, store: LibraryStore) -> bytes | None:
    """Return the bytes of a picture that the station or the library has; None where neither has it any more."""
    of_station, of_library = (each.picture(record["picture"], record["kind"]) for each in (pictures, store))
    with suppress(FileNotFoundError):
        return of_station.read_bytes()
    with suppress(FileNotFoundError):
        return of_library.read_bytes()
    return None


def _incoming(record: Record, label: Label, content: bytes, store: LibraryStore) -> Incoming:
    mask = record["review_mask"]
    return Incoming(
        content=content,
        name=record["name"],
        label=label,
        part=record["part"],
        defect=record["review_defect"],
        mask=None if mask is None else read_mask(store.mask(mask), image_size_px=None),
    )
