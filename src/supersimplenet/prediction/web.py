"""Options of fsspec's store for web addresses, so that no server can keep a run waiting or fill the memory."""

from __future__ import annotations

import errno
from typing import Any

import aiohttp

from supersimplenet.preprocessing.image_file import Limits

CONNECT_S, SILENCE_S, TOTAL_S = 15.0, 30.0, 600.0  # to connect, between two bytes, for one file or one listing


class BoundedAnswer(aiohttp.ClientResponse):
    """An answer that is read up to the limit of an image, whatever the server sends. Redirects are followed."""

    async def read(self) -> bytes:
        """Return the content.

        Raises:
            OSError: it is longer than the limit.
        """
        if self._body is None:
            parts: list[bytes] = []
            size, limit = 0, Limits.from_environment().max_bytes
            async for part in self.content.iter_any():
                parts.append(part)
                size += len(part)
                if size > limit:
                    self.close()
                    raise OSError(errno.EFBIG, f"more than {limit:,} bytes")
            self._body = b"".join(parts)  # where aiohttp keeps it for text()
        return self._body


def web_options() -> dict[str, Any]:
    """Return the options for `fsspec.core.url_to_fs`."""
    timeout = aiohttp.ClientTimeout(total=TOTAL_S, sock_connect=CONNECT_S, sock_read=SILENCE_S)
    return {"client_kwargs": {"timeout": timeout, "response_class": BoundedAnswer}}
