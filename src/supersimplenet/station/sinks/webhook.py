"""A sink that sends each result as a signed POST request (Standard Webhooks, standardwebhooks.com, version 1)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from pathlib import Path

import httpx

from supersimplenet.errors import ConfigError, printable
from supersimplenet.station.credentials import unread
from supersimplenet.station.sinks.settings import WebhookSink
from supersimplenet.station.sinks.sink import AwayError, Message, RefusedError, Sink
from supersimplenet.utils.formatting import first_line
from supersimplenet.utils.version import __version__

REFUSED = (400, 413, 422)  # of a request that will not be taken at another time either
_SECRET_BYTES = (24, 64)


class Webhook(Sink):
    """Sends each result to a URL. Any status from 200 to 299 confirms it; a result keeps its id when it comes again.

    Args:
        settings: the sink's settings.

    Raises:
        ConfigError: the file with the secret cannot be used.
    """

    def __init__(self, settings: WebhookSink) -> None:
        self._url = settings.url
        self._secret = None if settings.secret_file is None else _read_secret(settings.secret_file)
        self._timeout_s = settings.timeout_s
        self._client: httpx.Client | None = None

    def open(self) -> None:
        """Make a client; the first request connects."""
        self._client = httpx.Client(
            timeout=self._timeout_s,
            follow_redirects=False,  # who answers must not send results elsewhere, such as to an inner address
            headers={"User-Agent": f"supersimplenet/{__version__}", "Content-Type": "application/json"},
        )

    def deliver(self, message: Message) -> None:
        """Send a result."""
        assert self._client is not None
        at = int(time.time())
        body = json.dumps({"type": "inspection.result", "timestamp": message["taken_at"], "data": message}).encode()
        headers = {"webhook-id": message["id"], "webhook-timestamp": str(at)}
        if self._secret is not None:
            headers["webhook-signature"] = signature(self._secret, message["id"], at, body)
        try:
            answer = self._client.post(self._url, content=body, headers=headers)
        except httpx.HTTPError as error:
            if isinstance(error, httpx.TimeoutException):
                seconds = f"{self._timeout_s:g}"
                raise AwayError(f"no answer within {seconds} s", "no_answer", seconds=seconds) from error
            raise AwayError(first_line(error)) from error
        if answer.status_code in REFUSED:
            said = f": {printable(answer.text[:200])}" if answer.text else ""
            raise RefusedError(f"status {answer.status_code}{said}")
        if not answer.is_success:
            raise AwayError(f"status {answer.status_code}", "status", status=str(answer.status_code))

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()


def signature(secret: bytes, message_id: str, at_s: int, body: bytes) -> str:
    """Return the value of the header ``webhook-signature``."""
    signed = f"{message_id}.{at_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


def _read_secret(path: Path) -> bytes:
    wanted = f"wanted whsec_ and base64 of {_SECRET_BYTES[0]} to {_SECRET_BYTES[1]} bytes, in one line"
    try:
        text = path.read_text(encoding="ascii").strip()
        secret = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"secret_file: {unread(error, path)}; {wanted}") from error
    except binascii.Error as error:
        raise ConfigError(f"secret_file: {path}: no base64; {wanted}") from error
    if not _SECRET_BYTES[0] <= len(secret) <= _SECRET_BYTES[1]:
        raise ConfigError(f"secret_file: {path}: {len(secret)} bytes; {wanted}")
    return secret
