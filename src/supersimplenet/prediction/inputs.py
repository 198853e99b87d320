"""Find the images to predict in files, folders, patterns, lists, archives, tables and remote stores, one after another.

Every source yields images in the same form, and always in the same order: as a path, or as a name with a function that
reads the bytes (`EncodedImage`). Only the list of files of a folder or a pattern is held in memory.
"""

from __future__ import annotations

import os
import sys
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

from supersimplenet.errors import DataError
from supersimplenet.preprocessing.decoding import EncodedImage
from supersimplenet.preprocessing.images import IMAGE_SUFFIXES, list_images, natural_key
from supersimplenet.preprocessing.loading import ImageFile

STANDARD_INPUT = "-"
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
TABLE_SUFFIX = ".parquet"
_GLOB_SIGNS = frozenset("*?[")
_PIPE_BYTES = 1 << 16
_TABLE_ROWS = 16  # rows whose images are in memory at the same time
_WANTED = "name images to predict"


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Images in their order, for one iteration.

    Attributes:
        images: the images, with a None whenever the source must wait for more images; see
            `supersimplenet.preprocessing.loading.map_in_threads`.
        total: number of images; None where it is not known.
    """

    images: Iterable[ImageFile | None]
    total: int | None = None

    def __iter__(self) -> Iterator[ImageFile | None]:
        return iter(self.images)


def find_inputs(
    inputs: Sequence[str],
    *,
    list_file: Path | None = None,
    leave_out: Path | None = None,
    stdin: BinaryIO | None = None,
) -> Inputs:
    """Return the images of the inputs that were named on the command line.

    Args:
        inputs: files, folders (searched at any depth), patterns, tar archives and Parquet tables of images, URLs of any
            of these, and ``-`` for a list on standard input. An image that is named twice by files, folders and
            patterns is yielded once; repeated images in a list, an archive or a table are kept.
        list_file: a text file with one input on each line, but no patterns; relative paths start at the current folder.
            Its images come last.
        leave_out: a folder whose files are skipped, so that the results of an earlier run are not used as input.
        stdin: standard input; by default that of this process.

    Raises:
        DataError: an input is none of these, or holds no image. Raised by this call for an input in ``inputs``, but
            during the iteration for an input in a list.
    """
    parts: list[Iterable[ImageFile | None]] = []
    total: int | None = 0
    for kind, group in groupby(inputs, key=_kind):
        texts = list(group)
        if kind == STANDARD_INPUT:
            parts += [_named(_arriving_lines(stdin or sys.stdin.buffer)) for _ in texts]
            total = None
            continue
        found: list[ImageFile] = []
        if kind == "url":
            found += chain.from_iterable(map(_find_remote, texts))
        else:
            found += find_images(texts, leave_out=leave_out)
        packed = any(_is_packed(str(file)) for file in found)
        total = None if packed or total is None else total + len(found)
        parts.append(chain.from_iterable(map(_unpacked, found)) if packed else found)
    if list_file is not None:
        if not list_file.is_file():
            raise DataError(f"list: no such file {list_file}; wanted a text file with the path of an image a line")
        parts.append(_named(_lines(list_file)))
        total = None
    if not parts:
        raise DataError(f"no input; {_WANTED}, or a list of them")
    return Inputs(images=chain.from_iterable(parts), total=total)


def find_images(inputs: Sequence[str], *, leave_out: Path | None = None) -> list[Path]:
    """Return the files of the inputs in the given order, each file once.

    Args:
        inputs: files, folders (searched at any depth for images) and glob patterns, as typed.
        leave_out: a folder whose files are skipped.

    Raises:
        DataError: an input is none of these, or holds no image.
    """
    found: dict[Path, None] = {}
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            matches = list_images(path)
        elif path.exists():
            matches = [path]
        else:
            anchor = Path(path.anchor) if path.is_absolute() else Path()
            pattern = str(path.relative_to(path.anchor)) if path.is_absolute() else text
            matches = sorted(anchor.glob(pattern)) if _GLOB_SIGNS & set(text) else []
            matches = [match for match in matches if match.is_file()]
        if leave_out is not None:
            matches = [match for match in matches if leave_out.resolve() not in match.resolve().parents]
        if not matches:
            raise DataError(f"{text}: no such file or folder, and no pattern that matches one; {_WANTED}")
        found.update(dict.fromkeys(matches))
    return list(found)


def _kind(text: str) -> str:
    return STANDARD_INPUT if text == STANDARD_INPUT else "url" if "://" in text else "path"


def _named(lines: Iterable[str | None]) -> Iterator[ImageFile | None]:
    """Yield the images of the inputs in a list, one input a line; yield None where the list waits for more lines."""
    for line in lines:
        if line is None:
            yield None
        elif _is_packed(line) or "://" in line:
            files = _find_remote(line) if "://" in line else [Path(line)]
            yield from chain.from_iterable(map(_unpacked, files))
        elif os.path.splitext(line)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122  a Path takes ten times as long
            yield Path(line)
        else:
            yield from list_images(line) if Path(line).is_dir() else [Path(line)]


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            if line.strip():
                yield line.rstrip("\r\n")


def _arriving_lines(pipe: BinaryIO) -> Iterator[str | None]:
    """Yield lines as they arrive; yield None where no complete line is left and the next read may wait."""
    rest = b""
    while block := os.read(pipe.fileno(), _PIPE_BYTES):
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            if line.strip():
                yield os.fsdecode(line.rstrip(b"\r"))
        yield None
    if rest.strip():
        yield os.fsdecode(rest)


def _is_packed(name: str) -> bool:
    return name.lower().endswith((*TAR_SUFFIXES, TABLE_SUFFIX))


def _unpacked(file: ImageFile) -> Iterator[ImageFile]:
    """Return the images in an archive or a table, or the image itself if the file is an image."""
    name = str(file).lower()
    if name.endswith(TABLE_SUFFIX):
        return _in_table(file)
    return _in_archive(file) if name.endswith(TAR_SUFFIXES) else iter([file])


def _in_archive(file: ImageFile) -> Iterator[EncodedImage]:
    """Yield the images of a tar archive in the archive's order, with names such as ``shard.tar/member.png``."""
    try:
        if isinstance(file, Path) and _is_plain_archive(file):
            with tarfile.open(file, "r:") as archive:
                for member in _images_of(archive):
                    read = partial(_read_part, file, member.offset_data, member.size)
                    yield EncodedImage(name=f"{file}/{member.name}", read=read)
        else:  # compressed or remote: read from the first byte to the last
            with _opened(file) as stream, tarfile.open(fileobj=stream, mode="r|*") as archive:
                for member in _images_of(archive):
                    content = archive.extractfile(member)
                    assert content is not None  # every member here is a regular file
                    yield EncodedImage(name=f"{file}/{member.name}", read=partial(_given, content.read()))
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{file}: not a readable tar archive ({error}); make it again") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error}); check the path") from error


def _is_plain_archive(file: Path) -> bool:
    """Return whether the archive is not compressed, so that each member can be read separately."""
    try:
        with tarfile.open(file, "r:"):
            return True
    except tarfile.ReadError:
        return False


def _images_of(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # else tarfile keeps every member in memory
        is_hidden = PurePosixPath(member.name).name.startswith(".")
        if member.isreg() and not is_hidden and PurePosixPath(member.name).suffix.lower() in IMAGE_SUFFIXES:
            yield member


def _read_part(file: Path, offset: int, size: int) -> bytes:
    with file.open("rb") as whole:
        whole.seek(offset)
        return whole.read(size)


def _given(content: bytes) -> bytes:
    return content


def _in_table(file: ImageFile) -> Iterator[EncodedImage]:
    """Yield the images of a Parquet table: bytes from the column ``image``, names from the column ``path``.

    Without a path, the name is ``table.parquet/12``. If ``image`` is a struct of ``bytes`` and ``path``, as in datasets
    of the Hugging Face hub, the values of the struct are used.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = "wanted a column image with the bytes of an image file, and maybe path"
    try:
        with _opened(file) as stream:
            table = pq.ParquetFile(stream, pre_buffer=False)
            columns = [name for name in ("path", "image") if name in table.schema_arrow.names]
            if "image" not in columns:
                raise DataError(f"{file}: has the columns {', '.join(table.schema_arrow.names)}; {wanted}")
            number = 0
            for batch in table.iter_batches(batch_size=_TABLE_ROWS, columns=columns):
                for row in batch.to_pylist():
                    image: Any = row["image"]
                    name = row.get("path")
                    if isinstance(image, dict):
                        image, name = image.get("bytes"), name or image.get("path")
                    if image is not None and not isinstance(image, bytes):
                        raise DataError(f"{file}: its column image holds {type(image).__name__}; {wanted}")
                    yield EncodedImage(name=str(name or f"{file}/{number}"), read=partial(_given, image or b""))
                    number += 1
    except pa.ArrowInvalid as error:
        raise DataError(f"{file}: not a readable Parquet file ({error}); make it again") from error


def _opened(file: ImageFile) -> IO[bytes]:
    try:
        if isinstance(file, Path):
            return file.open("rb")
        import fsspec

        opened: IO[bytes] = fsspec.open(file.name, "rb").open()
    except OSError as error:
        raise DataError(f"{file}: cannot be opened ({error.strerror or error}); check the path") from error
    return opened


def _find_remote(url: str) -> list[EncodedImage]:
    """Return the images, archives and tables at a URL of a file, a folder (searched at any depth) or a pattern.

    Raises:
        DataError: there is no file at the URL, or its protocol is not known.
    """
    import fsspec

    try:
        store: Any
        store, path = fsspec.core.url_to_fs(url)
        if _GLOB_SIGNS & set(path):
            paths = store.glob(path)
        elif store.isdir(path):
            paths = [name for name in store.find(path) if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES]
        else:
            paths = [path] if store.exists(path) else []
    except (ImportError, ValueError, OSError) as error:
        raise DataError(f"{url}: cannot be reached ({error}); check the URL, or install what reads it") from error
    if not paths:
        raise DataError(f"{url}: no such file or folder, and no pattern that matches one; {_WANTED}")
    paths.sort(key=lambda name: natural_key(Path(name)))
    return [EncodedImage(name=store.unstrip_protocol(name), read=partial(store.cat_file, name)) for name in paths]
