"""From a request to pictures: raw bytes, forms of files, or JSON, within the limits of size, memory and time."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from types import NoneType
from typing import Any

import anyio
from fastapi import Request
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from supersimplenet.errors import printable
from supersimplenet.station.api.shapes import ImageShape, ImagesShape
from supersimplenet.station.config import StationConfig
from supersimplenet.station.inspection import Picture
from supersimplenet.station.problems import Problem
from supersimplenet.utils.formatting import first_line, nearest

_NAME, _PART, _KEY = 300, 200, 200  # letters
_WHOLE_BODY = 10  # times the limit of a pause, for all of a body


class Intake:
    """Reads the pictures of requests.

    Args:
        config: the station's settings.
    """

    def __init__(self, config: StationConfig) -> None:
        self._config = config
        self._held = 0  # bytes of all bodies

    @contextmanager
    def holding(self) -> Iterator[Body]:
        """Yield a body to fill; its memory is counted until the end."""
        body = Body(self)
        try:
            yield body
        finally:
            self._held -= len(body.content)

    async def fill(self, body: Body, request: Request) -> None:
        """Read the body of a request.

        Raises:
            Problem: it is too large, comes too slowly, or there is no memory for it now.
        """
        limit, room = self._config.max_request_mib << 20, self._config.max_waiting_mib << 20
        blocks = request.stream()
        try:
            with anyio.fail_after(self._config.body_timeout_s * _WHOLE_BODY):
                while (block := await self._next(blocks)) is not None:
                    if len(body.content) + len(block) > limit:
                        await self._discard(blocks, 3 * limit)
                        raise self._too_large()
                    if self._held + len(block) > room:
                        await self._discard(blocks, limit)
                        raise busy("no memory for this request now")
                    self._held += len(block)
                    body.content += block
        except TimeoutError as error:
            raise Problem(
                408,
                "slow",
                f"the body of the request stopped for {self._config.body_timeout_s:g} s, or took too long in all; send "
                "it again",
                {"Connection": "close"},
            ) from error

    async def _next(self, blocks: AsyncIterator[bytes]) -> bytes | None:
        with anyio.fail_after(self._config.body_timeout_s):
            return await anext(blocks, None)

    async def _discard(self, blocks: AsyncIterator[bytes], most_bytes: int) -> None:
        """Read on without keeping it: who is still sending would not see an answer."""
        while most_bytes > 0 and (block := await self._next(blocks)) is not None:
            most_bytes -= len(block)

    def _too_large(self) -> Problem:
        return Problem(
            413,
            "too_large",
            f"the request is larger than {self._config.max_request_mib} MiB; send fewer pictures at once, or raise "
            "--max-request-mib",
            {"Connection": "close"},
        )


class Body:
    """The bytes of a request, as far as they have come."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self.content = bytearray()


def busy(reason: str) -> Problem:
    """Return the answer to a request that may come again in a moment."""
    return Problem(503, "busy", f"{reason}; try again in a second", {"Retry-After": "1"})


async def pictures_of(request: Request, content: bytes, *, source: str, keep: bool) -> list[Picture]:
    """Return the pictures of a request, with their names, part and key.

    Args:
        request: the request; its query gives ``name`` and ``part``, its header ``Idempotency-Key`` the key.
        content: its body.
        source: what sent it.
        keep: whether the results are recorded.

    Raises:
        Problem: the body has another form, or a name is too long.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        found = await _of_form(request, content)
    elif kind == "application/json":
        found = list(_of_json(content))
    elif kind.startswith("image/") or kind in ("application/octet-stream", ""):
        found = [{"content": content, "name": request.query_params.get("name")}]
    else:
        raise Problem(
            415, "content_type", f"'{printable(kind)}'; wanted image/*, multipart/form-data or application/json"
        )
    if not found or not all(item["content"] for item in found):
        raise Problem(422, "empty", "no picture in the request, or an empty one; send the bytes of an image file")
    part, key = request.query_params.get("part"), request.headers.get("idempotency-key")
    numbered = len(found) > 1
    return [
        Picture(
            content=item["content"],
            name=_text("name", item.get("name") or f"picture {number}", _NAME),
            part=_text("part", item.get("part") or part, _PART) or None,
            key=_text("key", item.get("key") or (f"{key}#{number}" if key and numbered else key), _KEY) or None,
            source=source,
            keep=keep,
        )
        for number, item in enumerate(found, start=1)
    ]


class _InMemory(MultiPartParser):
    """A parser of forms that writes nothing to the disk: the body is in memory already."""

    spool_max_size = 1 << 40


async def _of_form(request: Request, content: bytes) -> list[dict[str, Any]]:
    async def once() -> AsyncGenerator[bytes, None]:
        yield content

    try:
        form = await _InMemory(request.headers, once(), max_files=1000, max_fields=100).parse()
    except (MultiPartException, KeyError) as error:
        raise Problem(422, "form", f"the form cannot be read ({printable(error)}); send files in fields") from error
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    return [{"content": await file.read(), "name": file.filename} for file in files]


def _of_json(content: bytes) -> Iterator[dict[str, Any]]:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _wrong_json(f"not readable as JSON ({first_line(error)})") from error
    if not isinstance(body, dict):
        raise _wrong_json("the body is not an object")
    _check_fields(body, "the body", ImagesShape)
    if not isinstance(body.get("images"), list):
        raise _wrong_json("images is missing" if "images" not in body else "images is not a list")
    for number, image in enumerate(body["images"], start=1):
        yield _of_image(image, f"image {number}")


def _of_image(image: Any, place: str) -> dict[str, Any]:
    if not isinstance(image, dict):
        raise _wrong_json(f"{place} is not an object")
    if isinstance(image.get("name"), str):
        place = f'{place} ("{printable(image["name"])[:100]}")'
    _check_fields(image, place, ImageShape)
    for field in ImageShape.model_fields:
        if not isinstance(image.get(field), (str, NoneType)):
            raise _wrong_json(f"{place}: {field} is not a text")
    if image.get("content") is None:
        raise _wrong_json(f"{place}: content is missing")
    if image["content"].startswith("data:"):
        raise _wrong_json(f"{place}: content is a data URL; send only what follows 'base64,'")
    try:
        return image | {"content": base64.b64decode(image["content"], validate=True)}
    except ValueError as error:
        raise _wrong_json(f"{place}: content is not base64: A-Z, a-z, 0-9, + and /, without line ends") from error


def _check_fields(found: dict[str, Any], place: str, shape: type[BaseModel]) -> None:
    for name in found:
        if name not in shape.model_fields:
            raise _wrong_json(f"{place}: no field {printable(name[:100])}{nearest(name[:100], shape.model_fields)}")


def _wrong_json(reason: str) -> Problem:
    form = '{"images": [{"name": "a.png", "content": "... base64 ..."}]}'
    return Problem(422, "json", f"{reason}; wanted {form}")


def _text(what: str, value: str | None, longest: int) -> str:
    """Return a text that was sent, in one printable line."""
    text = printable(value or "")
    if len(text) > longest:
        raise Problem(422, what, f"{what}: {len(text)} letters; wanted at most {longest}")
    return text
