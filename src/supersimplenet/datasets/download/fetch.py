"""Fetch one file over HTTP: continue after an interruption, and check the file before it gets its final name."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from supersimplenet.errors import DataError
from supersimplenet.utils.console import progress_bar

if TYPE_CHECKING:
    import requests

_TIMEOUT_S = (10.0, 60.0)  # for the connection, and between two chunks
_TRIES = 3  # requests in a row that may bring no new byte
_WAIT_S = 2.0
_CHUNK_BYTES = 1 << 16  # a broken connection loses at most this; some servers are slow and often break the connection
_MB = 1_000_000


def fetch(url: str, file: Path, *, size: int, checksum: str, advice: str) -> None:
    """Fetch a file, or the rest of it; a complete file with the right checksum is not fetched again.

    The bytes received so far are kept beside the file as ``FILE.part``, and the next call continues from there.

    Args:
        url: address of the file, http or https.
        file: the file to write.
        size: size of the whole file in bytes. If the server offers another size, nothing is written.
        checksum: algorithm and hexadecimal digits, such as ``sha256:cf43...``.
        advice: what the user can do if the download fails, for the error messages.

    Raises:
        DataError: there is no connection, the server refuses, or the file is not the wanted one and was removed.
    """
    import pooch  # imported here, because it takes a tenth of a second and only this command needs it

    def download(url: str, output: str, _: object) -> None:
        part = file.with_name(f"{file.name}.part")
        _complete(url, part, size=size, advice=advice)
        os.replace(part, output)  # noqa: PTH105 - pooch gives a name, not a path

    try:
        pooch.retrieve(url, known_hash=checksum, fname=file.name, path=file.parent, downloader=download)
    except ValueError as error:  # pooch raises it for a wrong checksum, names both checksums, and removes the file
        raise DataError(f"{url}: {error} Run the command again; {advice}") from error


def check(file: Path, checksum: str) -> None:
    """Check that a file has the given checksum.

    Raises:
        DataError: there is no such file, or it has another checksum.
    """
    import pooch

    if not file.is_file():
        raise DataError(f"{file}: no such file; check the path of the archive")
    algorithm, _, wanted = checksum.partition(":")
    found = pooch.file_hash(str(file), alg=algorithm)
    if found != wanted:
        raise DataError(
            f"{file}: {algorithm} is {found}; wanted {wanted}; it is cut short or another file: fetch it again"
        )


def _complete(url: str, part: Path, *, size: int, advice: str) -> None:
    """Request the file until it is complete; give up after three answers in a row without a new byte."""
    import requests

    if _bytes(part) > size:
        part.unlink()
    most, idle = _bytes(part), 0
    with requests.Session() as session, progress_bar() as bar:
        task = bar.add_task(part.stem, total=size // _MB, completed=most // _MB, detail="MB")
        while _bytes(part) < size:
            problem = "the connection was cut"
            try:
                for done in _chunks(session, url, part, size=size, advice=advice):
                    bar.update(task, completed=done // _MB)
            except requests.HTTPError as error:
                problem = str(error)
                if error.response is not None and error.response.status_code < 500:  # final: no use to retry
                    raise DataError(f"{url}: {problem}; {advice}") from error
            except requests.RequestException as error:
                problem = str(error)
            idle = 0 if _bytes(part) > most else idle + 1
            most = max(most, _bytes(part))
            if idle == _TRIES:
                raise DataError(
                    f"{url}: {_bytes(part):,} of {size:,} bytes are here ({problem}); run the command again to go on "
                    f"from there, or {advice}"
                )
            if idle:
                time.sleep(_WAIT_S)


def _chunks(session: requests.Session, url: str, part: Path, *, size: int, advice: str) -> Iterator[int]:
    """Send one request and append the answer to ``part``; yield the size of ``part`` after each chunk."""
    have = _bytes(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with session.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as answer:
        if answer.status_code == 416:  # no bytes after these: start again; the size of the next answer is checked
            part.unlink()
            return
        answer.raise_for_status()
        start, total = _extent(answer)
        if total not in (None, size):
            raise DataError(f"{url}: {total:,} bytes are offered; wanted {size:,}; it is another file now: {advice}")
        if start not in (0, have):
            raise DataError(f"{url}: sends from byte {start:,}; asked for {have:,} on; {advice}")
        with part.open("ab" if start else "wb") as file:
            for chunk in answer.iter_content(_CHUNK_BYTES):
                file.write(chunk[: size - file.tell()])
                yield file.tell()
                if file.tell() == size:
                    break


def _extent(answer: requests.Response) -> tuple[int, int | None]:
    """Return the position of the answer's first byte, and the size of the whole file, None if it is not given."""
    if answer.status_code == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if found:
            return int(found[1]), None if found[2] == "*" else int(found[2])
    length = answer.headers.get("Content-Length")  # a server without support for ranges sends the whole file
    return 0, None if length is None else int(length)


def _bytes(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
