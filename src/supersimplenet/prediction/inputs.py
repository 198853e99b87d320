"""Find the images to predict in files, folders, patterns, lists, archives, tables and remote stores, one after another.

Every source yields images in the same form, and always in the same order: as a path, or as a name with a function that
reads the bytes (`EncodedImage`). Only the list of files of a folder or a pattern is held in memory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import BinaryIO

from supersimplenet.errors import DataError
from supersimplenet.prediction.archives import images_in_archive
from supersimplenet.prediction.image_tables import images_in_table
from supersimplenet.prediction.sources import GLOB_SIGNS, find_remote, is_packed, is_table
from supersimplenet.preprocessing.listing import IMAGE_SUFFIXES, IRREGULAR, PassedOver, list_images, note_passed_over
from supersimplenet.preprocessing.loading import ImageFile
from supersimplenet.utils.text_files import arriving_lines, existing_path, read_lines

STANDARD_INPUT = "-"
FOLDER_OF_PATTERN = "folder that fits a pattern"
_PIPE_BYTES = 1 << 16
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
            parts += [_named(_arriving(stdin or sys.stdin.buffer), "standard input") for _ in texts]
            total = None
            continue
        found: list[ImageFile] = []
        if kind == "url":
            found += chain.from_iterable(map(find_remote, texts))
        else:
            found += find_images(texts, leave_out=leave_out)
        packed = any(is_packed(str(file)) for file in found)
        total = None if packed or total is None else total + len(found)
        parts.append(chain.from_iterable(map(_unpacked, found)) if packed else found)
    if list_file is not None:
        if not list_file.is_file():
            raise DataError(f"list: no such file {list_file}; wanted a text file with the path of an image a line")
        parts.append(_named(read_lines(list_file), str(list_file)))
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
            matches = list_images(path, leave_out=leave_out)
        elif path.exists():
            matches = [path]
        else:
            anchor = Path(path.anchor) if path.is_absolute() else Path()
            pattern = str(path.relative_to(path.anchor)) if path.is_absolute() else text
            matches = _files_only(text, sorted(anchor.glob(pattern))) if GLOB_SIGNS & set(text) else []
            if leave_out is not None:
                matches = [match for match in matches if leave_out.resolve() not in match.resolve().parents]
        if not matches:
            raise DataError(f"{text}: no such file or folder, and no pattern that matches one; {_WANTED}")
        found.update(dict.fromkeys(matches))
    return list(found)


def _files_only(pattern: str, matches: Sequence[Path]) -> list[Path]:
    passed_over = PassedOver()
    files = []
    for match in matches:
        if match.is_file():
            files.append(match)
        else:
            passed_over.add(FOLDER_OF_PATTERN if match.is_dir() else IRREGULAR, match)
    note_passed_over(pattern, passed_over)
    return files


def _kind(text: str) -> str:
    return STANDARD_INPUT if text == STANDARD_INPUT else "url" if "://" in text else "path"


def _named(lines: Iterable[str | None], name: str) -> Iterator[ImageFile | None]:
    """Yield the images of the inputs in a list, one input a line; yield None where the list waits for more lines."""

    def path_of(line: str) -> Path:
        try:
            return existing_path(line)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error

    for line in lines:
        if line is None:
            yield None
        elif "://" in line:
            yield from chain.from_iterable(map(_unpacked, find_remote(line)))
        elif is_packed(line):
            yield from _unpacked(path_of(line))
        else:
            path = path_of(line)
            is_image = os.path.splitext(line)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122  a Path takes ten times as long
            yield from list_images(path) if not is_image and path.is_dir() else [path]


def _arriving(pipe: BinaryIO) -> Iterator[str | None]:
    """Yield lines as they arrive; yield None where no complete line is left and the next read may wait."""
    return arriving_lines(iter(lambda: os.read(pipe.fileno(), _PIPE_BYTES), b""), name="standard input")


def _unpacked(file: ImageFile) -> Iterator[ImageFile]:
    """Return the images in an archive or a table, or the image itself if the file is an image."""
    if not is_packed(str(file)):
        return iter([file])
    return images_in_table(file) if is_table(str(file)) else images_in_archive(file)
