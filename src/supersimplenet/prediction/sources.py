"""Open files of images, on this machine and in remote stores, within limits of size and time."""

from __future__ import annotations

import asyncio
import errno
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

from supersimplenet.errors import DataError, ImageError
from supersimplenet.preprocessing.decoding import EncodedImage
from supersimplenet.preprocessing.image_file import Limits
from supersimplenet.preprocessing.listing import (
    IMAGE_SUFFIXES,
    PassedOver,
    natural_key,
    note_passed_over,
    suffix_of,
    why_passed_over,
)
from supersimplenet.preprocessing.loading import ImageFile
from supersimplenet.utils.files import open_regular, read_regular
from supersimplenet.utils.formatting import first_line

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
TABLE_SUFFIX = ".parquet"
GLOB_SIGNS = frozenset("*?[")
TIMEOUTS = (TimeoutError, asyncio.TimeoutError)  # one class from Python 3.11 on


def most_bytes() -> int:
    """Return the largest size of an image, wherever it comes from."""
    return Limits.from_environment().max_bytes


def is_packed(name: str) -> bool:
    """Return whether a name is that of an archive or a table of images."""
    return _path_of(name).lower().endswith((*TAR_SUFFIXES, TABLE_SUFFIX))


def is_table(name: str) -> bool:
    """Return whether a name is that of a table of images."""
    return _path_of(name).lower().endswith(TABLE_SUFFIX)


def opened(file: ImageFile) -> IO[bytes]:
    """Open a file on this machine or at a URL.

    Raises:
        DataError: it cannot be opened.
    """
    try:
        if isinstance(file, Path):
            return open_regular(file)
        store, path = _store(file.name)
        if _is_local(store):
            return open_regular(Path(path))
        stream: IO[bytes] = store.open(path, "rb")
    except Exception as error:  # each store raises the errors of its own library
        raise DataError(f"{file}: cannot be opened ({reason_of(error)}); check the path") from error
    return stream


def find_remote(url: str) -> list[EncodedImage]:
    """Return the images, archives and tables at a URL of a file, a folder (searched at any depth) or a pattern.

    No request is made for an image before it is read, so that its error is one of this image.

    Raises:
        DataError: there is no file at the URL, or its protocol is not known.
    """
    try:
        store, path = _store(url)
        if GLOB_SIGNS & set(_path_of(path)):
            paths = list(store.glob(path))
        elif is_packed(path) or suffix_of(_path_of(path)) in IMAGE_SUFFIXES:
            paths = [path]
        elif store.isdir(path):
            paths = _images_below(url, store, path)
        else:
            paths = [path] if store.exists(path) else []
    except (ImportError, ValueError, OSError) as error:
        raise DataError(
            f"{url}: cannot be reached ({reason_of(error)}); check the URL, or install what reads it"
        ) from error
    except Exception as error:  # each store raises the errors of its own library
        raise DataError(f"{url}: cannot be reached ({reason_of(error)}); check the URL") from error
    if not paths:
        raise DataError(f"{url}: no such file or folder, and no pattern that matches one; name images to predict")
    paths.sort(key=lambda name: natural_key(PurePosixPath(name)))
    return [EncodedImage(name=store.unstrip_protocol(name), read=partial(_read, store, name)) for name in paths]


def given(content: bytes) -> bytes:
    """Return the bytes: the reading function of an image whose bytes are there."""
    return content


def _images_below(url: str, store: Any, path: str) -> list[str]:
    passed_over = PassedOver()
    found = []
    for name in store.find(path):
        kind = why_passed_over(_path_of(name))
        if kind is not None:
            passed_over.add(kind, name)
        elif suffix_of(_path_of(name)) in IMAGE_SUFFIXES:
            found.append(name)
    note_passed_over(url, passed_over)
    return found


def _read(store: Any, name: str) -> bytes:
    if _is_local(store):
        return read_regular(Path(name), max_bytes=most_bytes())
    try:
        return _bounded(store, name)
    except Exception as error:  # each store raises the errors of its own library
        raise ImageError(f"{name}: cannot be read ({reason_of(error)}); check where it lies") from error


def _bounded(store: Any, name: str) -> bytes:
    content: bytes
    if _is_web(name):
        content = store.cat_file(name)  # in one request; bounded by the store's options
    else:
        with store.open(name, "rb") as file:
            content = file.read(most_bytes() + 1)
    if len(content) > most_bytes():
        raise OSError(errno.EFBIG, f"more than {most_bytes():,} bytes")
    return content


def _store(url: str) -> tuple[Any, str]:
    """Return the store of a URL, and the path in it."""
    import fsspec

    options: dict[str, Any] = {}
    if _is_web(url):
        from supersimplenet.prediction.web import web_options  # imports aiohttp

        options = web_options()
    store, path = fsspec.core.url_to_fs(url, **options)
    return store, path


def reason_of(error: BaseException) -> str:
    """Return the cause of an error that the system, or the library of a store, raised."""
    if isinstance(error, TIMEOUTS):
        return "the server did not answer, or sent nothing for too long"
    if isinstance(error, FileNotFoundError) and not error.strerror:
        return "no such file"
    return getattr(error, "strerror", None) or f"{type(error).__name__}: {first_line(error)}"


def _is_web(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def _is_local(store: Any) -> bool:
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(store, LocalFileSystem)


def _path_of(name: str) -> str:
    """Return a name without the arguments of a web address."""
    return urlsplit(name).path if _is_web(name) else name
