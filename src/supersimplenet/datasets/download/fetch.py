"""One file over HTTP, continued where it was cut off, checked before it gets its name."""

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

_TIMEOUT_S = (10.0, 60.0)  # to connect, and between two pieces
_TRIES = 3  # in a row that bring nothing new
_WAIT_S = 2.0
_CHUNK_BYTES = 1 << 16  # so much at most is lost where a connection is cut: some publishers are slow and cut often
_MB = 1_000_000


def fetch(url: str, file: Path, *, size: int, checksum: str, advice: str) -> None:
    """Fetch a file, or what is missing of it; a file that is there and right is left alone.

    What has come so far is kept beside it as ``FILE.part``, and the next call goes on from there.

    Args:
        url: http or https.
        file: where it goes.
        size: of the whole file in bytes. A server that offers another size is refused before anything is written.
        checksum: algorithm and hexadecimal digits, such as ``sha256:cf43...``.
        advice: what a person can do where this fails, for the messages.

    Raises:
        DataError: no connection, a refusal, or another file than the one that was wanted; that one is removed.
    """
    import pooch  # here, with the requests it brings along: a tenth of a second that only this command spends

    def download(url: str, output: str, _: object) -> None:
        part = file.with_name(f"{file.name}.part")
        _complete(url, part, size=size, advice=advice)
        os.replace(part, output)  # noqa: PTH105 - pooch gives a name, not a path

    try:
        pooch.retrieve(url, known_hash=checksum, fname=file.name, path=file.parent, downloader=download)
    except ValueError as error:  # pooch's word for a checksum that differs: it names both and removes the file
        raise DataError(f"{url}: {error} Run the command again; {advice}") from error


def check(file: Path, checksum: str) -> None:
    """Compare a file with its checksum.

    Raises:
        DataError: no such file, or another checksum.
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
    """Ask until all of it is here; give up after three answers in a row without a byte that is new."""
    import requests

    if _bytes(part) > size:
        part.unlink()
    most, idle = _bytes(part), 0
    with requests.Session() as session, progress_bar() as bar:
        task = bar.add_task(part.stem, total=size // _MB, completed=most // _MB, detail="MB")
        while _bytes(part) < size:
            problem = "the connection was cut"
            try:
                for done in _pieces(session, url, part, size=size, advice=advice):
                    bar.update(task, completed=done // _MB)
            except requests.HTTPError as error:
                problem = str(error)
                if error.response is not None and error.response.status_code < 500:  # it will say the same again
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


def _pieces(session: requests.Session, url: str, part: Path, *, size: int, advice: str) -> Iterator[int]:
    """Send one request and add the answer to ``part``; yields the bytes that are there after each piece."""
    have = _bytes(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with session.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as answer:
        if answer.status_code == 416:  # nothing there from this byte on: begin anew, the size will tell
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
    """From which byte on the answer is, and how many the whole file has, None where the server does not say."""
    if answer.status_code == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if found:
            return int(found[1]), None if found[2] == "*" else int(found[2])
    length = answer.headers.get("Content-Length")  # a server that knows no ranges sends the whole file
    return 0, None if length is None else int(length)


def _bytes(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
