"""Who may use a station: users with passwords, their sessions, and tokens for machines.

Of cookies and tokens only SHA-256 hashes are stored; both are long and random, so that no slow hash is needed.
Each change is in the audit trail, in the same transaction.
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection, Engine, delete, func, insert, select, update

from supersimplenet.station.access import audit
from supersimplenet.station.access.attempts import Attempts, Remembered
from supersimplenet.station.problems import Problem
from supersimplenet.station.storage.database import now_ms, writing
from supersimplenet.station.storage.schema import SESSIONS, TOKENS, USERS

Role = Literal["operator", "engineer", "admin"]  # each may do what those before it may
NAME_PATTERN = r"^[a-z0-9][a-z0-9._@-]{0,63}$"
LOCAL = "local"  # whoever uses a station without users at its own computer
MIN_PASSWORD, MAX_PASSWORD = 10, 1000  # characters
IDLE_MS = 12 * 3600 * 1000
LONGEST_SESSION_MS = 7 * 24 * 3600 * 1000
_TOKEN_START = "ssn_"
_SECRET_BYTES = 32
_SEEN_EVERY_MS = 60_000  # a session's last use is written this often at most
_SESSIONS_OF_USER = 20  # further logins end the oldest
_TRIES_OF_NAME, _TRIES_OF_ADDRESS, _TRIES_WITHIN_S = 10, 30, 300.0
_FAILURES_IN_TRAIL, _FAILURES_WITHIN_S = 60, 3600.0
_HASHING_AT_ONCE = 4  # each takes 64 MiB
_HASHING_WAIT_S = 5.0


@dataclass(frozen=True)
class Identity:
    """Who sends a request.

    Attributes:
        name: a user's name, ``token:`` and a token's name, or `LOCAL`.
        role: what it may do.
        csrf: for a session: what the header X-CSRF-Token must hold.
    """

    name: str
    role: Role
    csrf: str | None = None


@dataclass(frozen=True)
class User:
    """A user, without the password."""

    name: str
    role: Role
    disabled: bool
    created_at: int


@dataclass(frozen=True)
class Token:
    """A machine's token, without the token itself."""

    name: str
    role: Role
    created_at: int


class Accounts:
    """Users, sessions and tokens of a station.

    Args:
        engine: the database.
        hasher: of passwords.
        now: the time in milliseconds since 1970.
    """

    def __init__(
        self, engine: Engine, *, hasher: PasswordHasher | None = None, now: Callable[[], int] = now_ms
    ) -> None:
        self._engine, self._now = engine, now
        self._hasher = PasswordHasher() if hasher is None else hasher
        self._hashing = threading.Semaphore(_HASHING_AT_ONCE)
        self._of_name = Attempts(_TRIES_OF_NAME, within_s=_TRIES_WITHIN_S)
        self._of_address = Attempts(_TRIES_OF_ADDRESS, within_s=_TRIES_WITHIN_S)
        self._failures = Attempts(_FAILURES_IN_TRAIL, within_s=_FAILURES_WITHIN_S)
        self._left_out = 0
        self._known_tokens: Remembered[Identity] = Remembered()
        self._known_empty: Remembered[bool] = Remembered()

    def is_empty(self) -> bool:
        """Return whether there is neither a user nor a token; of another process's changes after some seconds."""
        return bool(self._known_empty.get("", self._is_empty))

    def users(self) -> list[User]:
        """Return all users by name."""
        with self._engine.connect() as connection:
            rows = connection.execute(_USER.order_by(USERS.c.name)).mappings()
            return [User(**row) for row in rows]

    def add_user(self, name: str, role: Role, password: str, *, by: str) -> User:
        """Add a user.

        Raises:
            Problem: the name cannot be or is taken, or the password is too short.
        """
        _check_name(name)
        hashed = self._hash(password)
        with self._change() as connection:
            if _user(connection, name) is not None:
                raise Problem(409, "exists", f"{name}: there is such a user; choose another name, or change that user")
            user = User(name, role, False, self._now())
            connection.execute(insert(USERS).values(**asdict(user), password=hashed))
            audit.append(connection, who=by, what="add user", details={"user": name, "role": role})
        return user

    def change_user(
        self, name: str, *, by: str, role: Role | None = None, disabled: bool | None = None, password: str | None = None
    ) -> User:
        """Change what is given. A new password, and being disabled, end the user's sessions.

        Raises:
            Problem: no such user, a password that is too short, or no admin would be left.
        """
        given: dict[str, Any] = {"role": role, "disabled": disabled}
        changes = {key: value for key, value in given.items() if value is not None}
        columns = changes if password is None else {**changes, "password": self._hash(password)}
        if not columns:
            raise Problem(422, "invalid", "nothing to change; give a role, disabled or a password")
        with self._change() as connection:
            before = _user(connection, name)
            if before is None:
                raise _missing(name, "user")
            after = replace(before, **changes)
            if _is_admin(before) and not _is_admin(after) and _admins(connection) == 1:
                raise Problem(409, "last_admin", f"{name} is the last admin; make another user an admin first")
            connection.execute(update(USERS).where(USERS.c.name == name).values(**columns))
            if after.disabled or password is not None:
                connection.execute(delete(SESSIONS).where(SESSIONS.c.user == name))
            details = {"user": name, **changes, **({} if password is None else {"password": "changed"})}
            audit.append(connection, who=by, what="change user", details=details)
        return after

    def log_in(self, name: str, password: str, *, address: str) -> tuple[str, Identity]:
        """Begin a session.

        Returns:
            The cookie's value, and who it stands for.

        Raises:
            Problem: 401 for a wrong name or password and for a disabled user; 429 after too many attempts.
        """
        hashed = self.check_password(name, password, address=address)
        cookie, csrf, now = secrets.token_urlsafe(_SECRET_BYTES), secrets.token_urlsafe(_SECRET_BYTES), self._now()
        with self._change() as connection:
            user = _user(connection, name)
            if user is None or user.disabled or _password(connection, name) != hashed:  # changed meanwhile
                raise _wrong_login()
            connection.execute(
                delete(SESSIONS).where(
                    (SESSIONS.c.seen_at < now - IDLE_MS) | (SESSIONS.c.begun_at < now - LONGEST_SESSION_MS)
                )
            )
            own = select(SESSIONS.c.id).where(SESSIONS.c.user == name).order_by(SESSIONS.c.seen_at.desc())
            oldest = connection.execute(own.offset(_SESSIONS_OF_USER - 1)).scalars().all()
            connection.execute(delete(SESSIONS).where(SESSIONS.c.id.in_(oldest)))
            connection.execute(
                insert(SESSIONS).values(id=_sha256(cookie), user=name, csrf=csrf, begun_at=now, seen_at=now)
            )
            audit.append(connection, who=name, what="log in", details={"address": address})
        return cookie, Identity(name, user.role, csrf)

    def check_password(self, name: str, password: str, *, address: str) -> str:
        """Check a password; an unknown or disabled user takes as long as a wrong password.

        Returns:
            The stored hash that it fits.

        Raises:
            Problem: 401 for a wrong name or password; 429 after too many attempts, or where too many wait.
        """
        for attempts, key in ((self._of_address, address), (self._of_name, name[:MAX_PASSWORD])):
            if wait_s := attempts.take(key):
                raise _too_many("too many wrong logins", wait_s)
        user, hashed = None, self._no_hash
        if re.fullmatch(NAME_PATTERN, name):
            with self._engine.connect() as connection:
                user = _user(connection, name)
                hashed = hashed if user is None else _password(connection, name)
        fits = self._fits(hashed, password) and user is not None and not user.disabled
        if not fits:
            self._record_failure("(unknown)" if user is None else user.name, address)
            raise _wrong_login()
        self._of_address.give_back(address)
        self._of_name.give_back(name)
        return hashed

    def log_out(self, cookie: str, *, by: str) -> None:
        """End a session."""
        with self._change() as connection:
            if connection.execute(delete(SESSIONS).where(SESSIONS.c.id == _sha256(cookie))).rowcount:
                audit.append(connection, who=by, what="log out", details={})

    def of_session(self, cookie: str, *, is_use: bool = True) -> Identity | None:
        """Return whom a cookie stands for; None for one that is unknown or has ended.

        Args:
            cookie: the cookie's value.
            is_use: whether this is a use of the session, which ends for want of use.
        """
        now, digest = self._now(), _sha256(cookie)
        query = (
            select(SESSIONS, USERS.c.role)
            .join(USERS, USERS.c.name == SESSIONS.c.user)
            .where(SESSIONS.c.id == digest, USERS.c.disabled.is_(False))
            .where(SESSIONS.c.seen_at >= now - IDLE_MS, SESSIONS.c.begun_at >= now - LONGEST_SESSION_MS)
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        if is_use and row.seen_at <= now - _SEEN_EVERY_MS:
            with writing(self._engine) as connection:
                connection.execute(update(SESSIONS).where(SESSIONS.c.id == digest).values(seen_at=now))
        return Identity(row.user, row.role, row.csrf)

    def tokens(self) -> list[Token]:
        """Return all tokens by name."""
        with self._engine.connect() as connection:
            rows = connection.execute(_TOKEN.order_by(TOKENS.c.name)).mappings()
            return [Token(**row) for row in rows]

    def add_token(self, name: str, role: Role, *, by: str) -> str:
        """Add a token and return it; it is not stored, so it is shown this once.

        Raises:
            Problem: the name cannot be or is taken.
        """
        _check_name(name)
        token = _TOKEN_START + secrets.token_urlsafe(_SECRET_BYTES)
        with self._change() as connection:
            if connection.execute(_TOKEN.where(TOKENS.c.name == name)).first() is not None:
                raise Problem(
                    409, "exists", f"{name}: there is such a token; choose another name, or revoke that token"
                )
            values = {"name": name, "hash": _sha256(token), "role": role, "created_at": self._now()}
            connection.execute(insert(TOKENS).values(**values))
            audit.append(connection, who=by, what="add token", details={"token": name, "role": role})
        return token

    def revoke_token(self, name: str, *, by: str) -> None:
        """Remove a token; other processes take it for some seconds more.

        Raises:
            Problem: no such token.
        """
        with self._change() as connection:
            if not connection.execute(delete(TOKENS).where(TOKENS.c.name == name)).rowcount:
                raise _missing(name, "token")
            audit.append(connection, who=by, what="revoke token", details={"token": name})

    def of_token(self, token: str) -> Identity | None:
        """Return whom a token stands for; while the database is away, of tokens that were used before.

        So machines go on while results wait for the database.
        """
        digest = _sha256(token)
        return self._known_tokens.get(digest, lambda: self._of_token(digest))

    def remembers(self, token: str | None) -> bool:
        """Return whether `of_token`, or with None `is_empty`, answers from memory, without the database."""
        return self._known_empty.knows("") if token is None else self._known_tokens.knows(_sha256(token))

    def _of_token(self, digest: str) -> Identity | None:
        with self._engine.connect() as connection:
            row = connection.execute(_TOKEN.where(TOKENS.c.hash == digest)).first()
        return None if row is None else Identity(f"token:{row.name}", row.role)

    def _is_empty(self) -> bool:
        with self._engine.connect() as connection:
            return not any(connection.execute(query.limit(1)).first() for query in (_USER, _TOKEN))

    @contextmanager
    def _change(self) -> Iterator[Connection]:
        """Yield a transaction that is alone in changing users and tokens."""
        with writing(self._engine) as connection:
            audit.lock(connection)
            yield connection
        self._known_tokens.forget()
        self._known_empty.forget()

    def _record_failure(self, name: str, address: str) -> None:
        """Add a failed login to the trail, if there are not too many already: nobody fills the disk by trying."""
        if self._failures.take(""):
            self._left_out += 1
            return
        details: dict[str, Any] = {"address": address}
        if self._left_out:
            details["left_out_before"], self._left_out = self._left_out, 0
        with writing(self._engine) as connection:
            audit.append(connection, who=name, what="log in failed", details=details)

    @cached_property
    def _no_hash(self) -> str:
        """The hash of a password that nobody has."""
        return self._hasher.hash(secrets.token_urlsafe(_SECRET_BYTES))

    def _hash(self, password: str) -> str:
        if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
            wanted = f"wanted {MIN_PASSWORD} to {MAX_PASSWORD:,}"
            raise Problem(422, "invalid", f"password: {len(password):,} characters; {wanted}")
        with self._turn():
            return self._hasher.hash(_bytes(password))

    def _fits(self, hashed: str, password: str) -> bool:
        try:
            with self._turn():
                return self._hasher.verify(hashed, _bytes(password[: MAX_PASSWORD + 1]))
        except (VerificationError, InvalidHashError):
            return False

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for a turn to hash a password, which takes memory and time."""
        if not self._hashing.acquire(timeout=_HASHING_WAIT_S):
            raise _too_many("many log in at once", _HASHING_WAIT_S)
        try:
            yield
        finally:
            self._hashing.release()


_USER = select(USERS.c.name, USERS.c.role, USERS.c.disabled, USERS.c.created_at)
_TOKEN = select(TOKENS.c.name, TOKENS.c.role, TOKENS.c.created_at)


def _user(connection: Connection, name: str) -> User | None:
    row = connection.execute(_USER.where(USERS.c.name == name)).mappings().first()
    return None if row is None else User(**row)


def _password(connection: Connection, name: str) -> str:
    return str(connection.execute(select(USERS.c.password).where(USERS.c.name == name)).scalar_one())


def _is_admin(user: User) -> bool:
    return user.role == "admin" and not user.disabled


def _admins(connection: Connection) -> int:
    query = select(func.count()).select_from(USERS).where(USERS.c.role == "admin", USERS.c.disabled.is_(False))
    return int(connection.execute(query).scalar_one())


def _check_name(name: str) -> None:
    if not re.fullmatch(NAME_PATTERN, name) or name == LOCAL:
        wanted = "wanted up to 64 of a-z, 0-9, '.', '_', '@' and '-', a letter or digit first"
        raise Problem(422, "invalid", f"name: {name[:80]!r}; {wanted}, and not '{LOCAL}'")


def _sha256(secret: str) -> str:
    return hashlib.sha256(_bytes(secret)).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # what was typed on a terminal may be no UTF-8


def _missing(name: str, kind: str) -> Problem:
    return Problem(404, "not_found", f"{name}: no such {kind}; check the name")


def _wrong_login() -> Problem:
    return Problem(401, "wrong_login", "name or password is wrong, or the user is disabled; try again or ask an admin")


def _too_many(what: str, wait_s: float) -> Problem:
    seconds = max(1, math.ceil(wait_s))
    return Problem(429, "too_many", f"{what}; wait {seconds} s", {"Retry-After": str(seconds)})
