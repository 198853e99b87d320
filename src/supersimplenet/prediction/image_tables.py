"""Read the images in Parquet tables, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

from supersimplenet.errors import DataError
from supersimplenet.prediction.sources import given, most_bytes, opened
from supersimplenet.preprocessing.decoding import EncodedImage
from supersimplenet.preprocessing.listing import PassedOver, note_passed_over
from supersimplenet.preprocessing.loading import ImageFile
from supersimplenet.utils.formatting import first_line

NO_ROW = "table without a row"
_WANTED = "wanted a column image with the bytes of an image file, and maybe path"
_PARTS = ("part", "group")  # columns with the name of the part that an image shows


def images_in_table(file: ImageFile) -> Iterator[EncodedImage]:
    """Yield the images of a Parquet table: bytes from the column ``image``, names from the column ``path``.

    The part that an image shows comes from the column ``part`` or ``group``, if there is one. Without a path, the name
    is ``table.parquet/12``. If ``image`` is a struct of ``bytes`` and ``path``, as in datasets of the Hugging Face hub,
    the values of the struct are used. One row is in memory at a time, since a small file may hold the same large value
    in many rows.

    Raises:
        DataError: the table cannot be read, or has no such column. Raised where this is noticed.
    """
    number = 0
    for row in _rows(file):
        image: Any = row["image"]
        name = row.get("path")
        if isinstance(image, dict):
            image, name = image.get("bytes"), name or image.get("path")
        if image is not None and not isinstance(image, bytes):
            raise DataError(f"{file}: its column image holds {type(image).__name__}; {_WANTED}")
        named = str(name or f"{file}/{number}")
        part = next((str(row[column]) for column in _PARTS if row.get(column) is not None), None)
        yield EncodedImage(named, partial(given, image or b""), part)
        number += 1
    if not number:
        passed_over = PassedOver()
        passed_over.add(NO_ROW, file)
        note_passed_over(file, passed_over)


def _rows(file: ImageFile) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    errors = (pa.ArrowException, OSError, ValueError, MemoryError)
    with closing(opened(file)) as stream:
        try:
            table = pq.ParquetFile(stream, pre_buffer=False, page_checksum_verification=True)
            columns = [name for name in ("path", "image", *_PARTS) if name in table.schema_arrow.names]
            if "image" not in columns:
                raise DataError(f"{file}: has the columns {', '.join(table.schema_arrow.names)}; {_WANTED}")
            _check_sizes(file, table.metadata)
            batches = table.iter_batches(batch_size=1, columns=columns)
        except errors as error:
            raise _damaged(file, error) from error
        while True:
            try:
                rows = next(batches).to_pylist()
            except StopIteration:
                return
            except errors as error:
                raise _damaged(file, error) from error
            yield from rows


def _check_sizes(file: ImageFile, metadata: Any) -> None:
    """Refuse a table whose rows are, on average, larger than an image may be: a page of it is unpacked as a whole."""
    for place in range(metadata.num_row_groups):
        group = metadata.row_group(place)
        if group.total_byte_size > most_bytes() * max(1, group.num_rows):
            raise DataError(
                f"{file}: {group.num_rows:,} rows with {group.total_byte_size:,} bytes when unpacked; at most "
                f"{most_bytes():,} are read for an image; write it with smaller images"
            )


def _damaged(file: ImageFile, error: BaseException) -> DataError:
    return DataError(f"{file}: not a readable Parquet file ({first_line(error)}); write it again")
