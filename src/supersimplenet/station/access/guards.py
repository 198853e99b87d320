"""Who may send which request, and the headers that keep pages of others out.

A request shows who sends it by a token (``Authorization: Bearer``) or by the cookie of a session; with the cookie,
anything but GET and HEAD also needs the session's own X-CSRF-Token. A station without users and tokens that only its
own computer reaches asks for neither; there the headers Host and Origin keep pages of other sites out.
"""

from __future__ import annotations

import functools
import hmac
import re
from collections.abc import Awaitable, Callable, Collection
from typing import Annotated, get_args

from argon2 import PasswordHasher
from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from supersimplenet.station.access.accounts import LOCAL, LONGEST_SESSION_MS, Accounts, Identity, Role
from supersimplenet.station.config import is_loopback
from supersimplenet.station.problems import Problem

CSRF_HEADER = "X-CSRF-Token"
_SAFE_METHODS = ("GET", "HEAD")
_OWN_SITES = (None, "same-origin", "none")  # of Sec-Fetch-Site; none is an address that a person typed
_SECRET_NAMES = frozenset(("token", "access_token", "api_key", "apikey", "auth", "authorization", "bearer", "session"))
_ROLES = get_args(Role)
_SECURE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?")
_HSTS = "max-age=31536000"
_BEARER = HTTPBearer(auto_error=False, description="a token: supersimplenet station add-token, or POST /v1/tokens")


class Guard:
    """Decides who sends a request. A station keeps it as ``app.state.access``.

    Args:
        engine: the database.
        tls: whether browsers reach the station by https.
        is_local: whether it listens on loopback alone.
        hosts: names by which it is reached, without ports; beside these, those of loopback where it is local. Requests
            to other names are refused; where there are none at all, any name will do.
        hasher: of passwords.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        tls: bool,
        is_local: bool,
        hosts: Collection[str] = (),
        hasher: PasswordHasher | None = None,
    ) -> None:
        self.engine = engine
        self.accounts = Accounts(engine, hasher=hasher)
        self._tls, self._is_local = tls, is_local
        self._hosts = frozenset(host.lower() for host in hosts)
        # Other names lead here by way of a proxy, whose users are at any computer.
        self._may_be_open = is_local and all(map(is_loopback, self._hosts))

    @property
    def is_open(self) -> bool:
        """Whether no login is needed: nobody was added yet, and only this computer reaches the station."""
        return self._may_be_open and self.accounts.is_empty()

    def identify(self, request: Request, *, is_use: bool = True) -> Identity:
        """Return who sends a request.

        Args:
            request: the request.
            is_use: whether it counts as a use of the session, which ends for want of use.

        Raises:
            Problem: nobody that is known (401), or a request that a page of another site may have sent (400, 403).
        """
        self._check_host(request)
        refuse_secrets_in_address(request)
        authorization = request.headers.get("authorization")
        if authorization is not None:
            return self._of_token(authorization)
        cookie = self.cookie(request)
        identity = None if cookie is None else self.accounts.of_session(cookie, is_use=is_use)
        if identity is not None:
            _check_csrf(request, identity)
            return identity
        if self.is_open:
            self._check_origin(request)
            return Identity(LOCAL, "admin")
        raise _unknown("log in, or send a token as 'Authorization: Bearer TOKEN'")

    def still_knows(self, request: Request) -> bool:
        """Return whether who sent a request is known still; while the database is away, whoever was."""
        try:
            self.identify(request, is_use=False)
        except Problem:
            return False
        except SQLAlchemyError:
            return True
        return True

    def needs_database(self, request: Request) -> bool:
        """Return whether `identify` has to ask the database, and so may wait."""
        authorization = request.headers.get("authorization")
        if authorization is not None:
            return not self.accounts.remembers(authorization.partition(" ")[2].strip())
        return self.cookie(request) is not None or not self.accounts.remembers(None)

    def cookie(self, request: Request) -> str | None:
        """Return the value of a request's cookie."""
        return request.cookies.get(self._cookie_name(request))

    def set_cookie(self, request: Request, answer: Response, value: str) -> None:
        """Give the browser a session's cookie; an empty value takes it away."""
        answer.set_cookie(
            self._cookie_name(request),
            value,
            max_age=LONGEST_SESSION_MS // 1000 if value else 0,
            secure=self._tls,
            httponly=True,
            samesite="strict",
        )

    def _cookie_name(self, request: Request) -> str:
        """Return the cookie's name: with the port, because a browser sends a host's cookies to all stations on it."""
        match = _HOST.fullmatch(request.headers.get("host", "").lower())
        port = match["port"] if match else None
        name = "station" if port is None else f"station-{port}"
        return f"__Host-{name}" if self._tls else name

    def _of_token(self, authorization: str) -> Identity:
        scheme, _, token = authorization.partition(" ")
        identity = self.accounts.of_token(token.strip()) if scheme.lower() == "bearer" else None
        if identity is None:
            raise _unknown("the token is wrong or was revoked; send a right one as 'Authorization: Bearer TOKEN'")
        return identity

    def _check_host(self, request: Request) -> None:
        """Refuse names that lead here without being the station's, as a page's own name may (DNS rebinding)."""
        named = request.headers.getlist("host")
        host = _host_of(named[0]) if len(named) == 1 else ""
        if not (host in self._hosts or (self._is_local and is_loopback(host)) or not (self._hosts or self._is_local)):
            raise Problem(400, "wrong_host", "the station is not reached by this name; add it with --public-host")

    def _check_origin(self, request: Request) -> None:
        if request.method in _SAFE_METHODS:
            return
        own = f"{'https' if self._tls else 'http'}://{request.headers.get('host', '')}".lower()
        origin = request.headers.get("origin")
        if (origin is not None and origin.lower() != own) or request.headers.get("sec-fetch-site") not in _OWN_SITES:
            raise Problem(403, "other_origin", "a page of another site sent this; use the station's own page")


def refuse_secrets_in_address(request: Request) -> None:
    """Refuse a token in the address (400), where it ends in logs."""
    for name, value in request.query_params.multi_items():
        if name.lower() in _SECRET_NAMES or value.startswith("ssn_"):
            advice = "send it as 'Authorization: Bearer TOKEN', and revoke this one"
            raise Problem(400, "token_in_address", f"a token in the address ends in logs; {advice}")


async def identity(
    request: Request, bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)] = None
) -> Identity:
    """Return who sends a request; a dependency of FastAPI."""
    del bearer  # for the documentation of the API alone
    guard: Guard = request.app.state.access
    if guard.needs_database(request):
        return await run_in_threadpool(guard.identify, request)
    return guard.identify(request)  # a turn of another thread would cost more than all of it


async def may_go_on(request: Request) -> bool:
    """Return whether a request that takes long, such as a stream, may be answered further."""
    guard: Guard = request.app.state.access
    if guard.needs_database(request):
        return await run_in_threadpool(guard.still_knows, request)
    return guard.still_knows(request)


@functools.cache
def require(role: Role) -> Callable[..., Awaitable[Identity]]:
    """Return a dependency of FastAPI: who sends the request, if that may do what a role may, else 401 or 403."""

    async def required(who: Annotated[Identity, Security(identity)]) -> Identity:
        if _ROLES.index(who.role) < _ROLES.index(role):
            raise Problem(403, "forbidden", f"{who.name} is {who.role}, and this needs {role}; ask an admin")
        return who

    return required


class SecureHeaders:
    """Sets the headers on every answer that keep scripts and pages of others out.

    It goes around the whole application (``SecureHeaders(app, tls=...)``): what FastAPI answers after an unexpected
    error passes by middleware that is added to it.

    Args:
        app: the application.
        tls: whether browsers reach the station by https.
    """

    def __init__(self, app: ASGIApp, *, tls: bool) -> None:
        self._app = app
        self._headers = {**_SECURE_HEADERS, **({"Strict-Transport-Security": _HSTS} if tls else {})}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self._headers)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _check_csrf(request: Request, identity: Identity) -> None:
    if request.method in _SAFE_METHODS or identity.csrf is None:
        return
    sent = request.headers.get(CSRF_HEADER, "")
    if not hmac.compare_digest(sent.encode(), identity.csrf.encode()):
        raise Problem(403, "csrf", f"the header {CSRF_HEADER} does not fit the session; take it from GET /v1/me")


def _unknown(message: str) -> Problem:
    return Problem(401, "unauthorized", message, {"WWW-Authenticate": "Bearer"})


def _host_of(header: str) -> str:
    """Return the name in the header Host without its port; empty where it is none."""
    match = _HOST.fullmatch(header.lower())
    return match["name"].strip("[]").rstrip(".") if match else ""
