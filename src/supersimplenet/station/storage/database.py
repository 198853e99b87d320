"""Opens a station's database, SQLite or PostgreSQL, and brings its tables up to date."""

from __future__ import annotations

import secrets
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, NoSuchModuleError, OperationalError, SQLAlchemyError

from supersimplenet.errors import ConfigError, StationError
from supersimplenet.utils.formatting import first_line

_BUSY_S = 30.0  # for which a connection waits until another one has written
_CONNECT_S = 5
_AGAIN_S = 0.5  # between two attempts to reach a database for the first time; who asks meanwhile has the same answer
_MIGRATIONS = Path(__file__).parent / "migrations"


class NotReachedError(OperationalError):
    """The database was not reached since the start, or its tables could not be brought up to date.

    Args:
        reason: why.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(None, None, ConnectionError(reason))
        self.reason = reason

    def __str__(self) -> str:
        """Return the reason alone."""
        return self.reason


def open_database(url: str, *, may_come_later: bool = False) -> Engine:
    """Open a database and bring its tables up to date; tables of a newer version are left alone.

    Args:
        url: such as ``sqlite:////var/lib/station/station.db`` or ``postgresql://user@host/station``.
        may_come_later: whether one that cannot be reached now is opened when it comes. Until its tables are up to date
            each use raises `NotReachedError`.

    Raises:
        ConfigError: the URL is not one of a database that is supported, or its driver is not installed.
        StationError: the database cannot be reached, or was made by a newer version.
    """
    engine = _engine(url)
    try:
        _migrate(engine)
    except (SQLAlchemyError, StationError) as error:
        engine.dispose()
        if isinstance(error, StationError):
            raise
        if may_come_later and isinstance(error, (OperationalError, InterfaceError)):
            event.listen(engine, "do_connect", _Gate(url).check)
            return engine
        raise StationError(
            f"{_shown(engine)}: the database cannot be used ({first_line(error)}); check URL and server"
        ) from error
    return engine


def writing(engine: Engine) -> AbstractContextManager[Connection]:
    """Return a transaction that writes: committed at the end, rolled back after an error."""
    return engine.execution_options(writes=True).begin()


def now_ms() -> int:
    """Return the time in milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


class Ids:
    """Ids that rise in the order in which they are made: 32 hexadecimal digits of time, number, run and chance.

    Those of a run have ten digits in common, which are drawn when it starts.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._run = secrets.token_hex(5)
        self._at_ms, self._number = 0, 0

    def new(self, at_ms: int) -> str:
        """Return an id for a time; a clock that was set back does not change the order."""
        with self._lock:
            if at_ms > self._at_ms:
                self._at_ms, self._number = at_ms, 0
            else:
                self._number += 1
            return f"{self._at_ms:012x}{self._number:06x}{self._run}{secrets.token_hex(2)}"

    def has_made(self, id: str) -> bool:  # noqa: A002
        """Return whether an id was made here, and not by an earlier run; whatever the clock was then."""
        return id[18:28] == self._run


class _Gate:
    """Lets nobody connect to a database before its tables are up to date."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._is_open = False
        self._reason, self._again_at = "", 0.0

    def check(self, *arguments: object) -> None:
        """Bring the tables up to date, once; raise `NotReachedError` where that fails, or did so just now."""
        del arguments  # of the event
        with self._lock:
            if self._is_open:
                return
            if time.monotonic() >= self._again_at:
                self._reason = self._failure()
                self._is_open = not self._reason
                self._again_at = time.monotonic() + _AGAIN_S
            if self._reason:
                raise NotReachedError(self._reason)

    def _failure(self) -> str:
        engine = _engine(self._url)
        try:
            _migrate(engine)
        except (SQLAlchemyError, StationError) as error:
            return first_line(error)
        finally:
            engine.dispose()
        return ""


def _engine(url: str) -> Engine:
    try:
        address = make_url(url)
    except ArgumentError as error:
        raise ConfigError("database: not a URL; wanted one such as postgresql://user@host/station") from error
    backend = address.get_backend_name()
    if backend == "postgresql":
        # psycopg 3 unless a driver is named; SQLAlchemy's own choice would be psycopg 2.
        address = address.set(drivername="postgresql+psycopg") if address.drivername == "postgresql" else address
        options: dict[str, Any] = {"connect_args": {"connect_timeout": _CONNECT_S}, "pool_pre_ping": True}
    elif backend == "sqlite":
        options = {"connect_args": {"timeout": _BUSY_S}}
    else:
        hint = "; write postgresql:// in place of postgres://" if backend == "postgres" else ""
        raise ConfigError(f"database: '{backend}'; wanted sqlite or postgresql{hint}")
    try:
        engine = create_engine(address, **options)
    except (ImportError, NoSuchModuleError) as error:
        raise ConfigError(
            f"database: {backend} needs a driver ({first_line(error)}); pip install 'psycopg[binary]'"
        ) from error
    if backend == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, record: object) -> None:
    del record
    connection.isolation_level = None  # the driver begins no transaction of its own: see `_begin_sqlite`
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers do not wait for the writer
    cursor.execute("PRAGMA synchronous=FULL")  # what was committed survives a power cut
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later fails where another one has written meanwhile.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def _shown(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=True)


def _migrate(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with writing(engine) as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        if current is not None and current not in known:
            raise StationError(
                f"{_shown(engine)}: made by a newer version of this package (revision "
                f"{current}); install that version, or restore the backup that was made before the upgrade"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
