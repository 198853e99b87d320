"""`supersimplenet station`: users, tokens and the audit trail of a station."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import Namespace
from rich.table import Table
from rich.text import Text

from supersimplenet.cli.common import Command, OptionParser
from supersimplenet.errors import ConfigError, StationError
from supersimplenet.station.config import DATABASE_FILE, StationConfig
from supersimplenet.utils.console import console, results
from supersimplenet.utils.documents import read_json
from supersimplenet.utils.files import write_text
from supersimplenet.utils.formatting import counted, first_line

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from supersimplenet.station.access.audit import Head

RoleName = Literal["operator", "engineer", "admin"]  # `Role`, whose module needs the extra `serve`
_ROLE_HELP = "what it may do: an engineer also what an operator may, an admin everything"
_BY = "command line"  # in the audit trail; no user can have this name
_LONGEST_LINE = 4096
_HEAD_ADVICE = "name a file that --save wrote"


def commands() -> list[Command]:
    """Return the commands below ``station``."""
    return [
        Command(
            "add-user",
            "add a user who may log in",
            _adding_parser("Add a user. The password is asked for twice, or is one line of standard input.", "user"),
            _add_user,
            writes={"folder": "folder"},
        ),
        Command(
            "change-user", "change a user's role or password, or disable the user", _changing_parser(), _change_user
        ),
        Command(
            "add-token",
            "add a token for a machine, and print it once",
            _adding_parser("Add a token for a machine. It is printed on standard output, and not stored.", "token"),
            _add_token,
            writes={"folder": "folder"},
        ),
        Command("revoke-token", "take a token back", _revoking_parser(), _revoke_token),
        Command("users", "list users and tokens", _users_parser(), _users),
        Command("outbox", "list what waits for sinks, or drop it", _outbox_parser(), _outbox),
        Command("audit", "check the audit trail", _audit_parser(), _audit, {"head": "file"}, {"save": "file"}),
    ]


def _adding_parser(description: str, thing: str) -> OptionParser:
    parser = OptionParser(description=description)
    parser.add_argument("name", type=str, help=f"the {thing}'s name, in small letters")
    parser.add_argument("--role", type=RoleName, required=True, help=_ROLE_HELP)
    _add_place(parser)
    return parser


def _changing_parser() -> OptionParser:
    parser = OptionParser(
        description="Change what is given of a user. A new password, and being disabled, end the user's sessions."
    )
    parser.add_argument("name", type=str, help="the user's name")
    parser.add_argument("--role", type=RoleName | None, help=_ROLE_HELP)
    parser.add_argument(
        "--password", type=bool, default=False, help="true: ask for a new password, or read a line of standard input"
    )
    parser.add_argument("--disabled", type=bool | None, help="true: the user cannot log in; false: may again")
    _add_place(parser)
    return parser


def _revoking_parser() -> OptionParser:
    parser = OptionParser(description="Take a token back: who sends it is refused from then on.")
    parser.add_argument("name", type=str, help="the token's name")
    _add_place(parser)
    return parser


def _users_parser() -> OptionParser:
    parser = OptionParser(description="List the users and tokens of a station.")
    _add_place(parser)
    return parser


def _outbox_parser() -> OptionParser:
    parser = OptionParser(description="List how many results wait for each sink of a station.")
    parser.add_argument("--drop", type=str | None, help="name of a sink: what waits for it is dropped")
    _add_place(parser)
    return parser


def _audit_parser() -> OptionParser:
    parser = OptionParser(
        description="Check that the audit trail was not changed; exit status 1 where it was. Without a head that was "
        "kept elsewhere, a trail that was cut at its end or computed anew is not noticed."
    )
    parser.add_argument("--head", type=Path | None, help="file of an earlier head, to compare with")
    parser.add_argument("--save", type=Path | None, help="file for the head, if the trail is whole; keep it elsewhere")
    _add_place(parser)
    return parser


def _add_place(parser: OptionParser) -> None:
    parser.add_argument("--folder", type=Path, default=StationConfig.folder, help="the station's folder")
    parser.add_argument(
        "--database",
        type=str | None,
        help="URL of the database, such as postgresql://user@host/station; by default a file in the folder",
    )


def _add_user(options: Namespace) -> int:
    from supersimplenet.station.access.accounts import Accounts

    password = _password()
    with _database(options, create=True) as engine, _as_wrong_call():
        user = Accounts(engine).add_user(options.name, options.role, password, by=_BY)
    results().print(f"{user.name}: added, {user.role}")
    return 0


def _change_user(options: Namespace) -> int:
    if options.role is None and options.disabled is None and not options.password:
        raise ConfigError("nothing to change; give --role, --password true or --disabled")
    with _database(options) as engine, _as_wrong_call():
        from supersimplenet.station.access.accounts import Accounts

        password = _password() if options.password else None
        user = Accounts(engine).change_user(
            options.name, by=_BY, role=options.role, disabled=options.disabled, password=password
        )
    now = [user.role, *(["new password"] if options.password else []), *(["disabled"] if user.disabled else [])]
    results().print(f"{user.name}: changed, {', '.join(now)}")
    return 0


def _add_token(options: Namespace) -> int:
    from supersimplenet.station.access.accounts import Accounts

    with _database(options, create=True) as engine, _as_wrong_call():
        token = Accounts(engine).add_token(options.name, options.role, by=_BY)
    results().print(token)
    console().print(f"{options.name}: added, {options.role}; keep the token now, it is not shown again")
    return 0


def _revoke_token(options: Namespace) -> int:
    with _database(options) as engine, _as_wrong_call():
        from supersimplenet.station.access.accounts import Accounts

        Accounts(engine).revoke_token(options.name, by=_BY)
    results().print(f"{options.name}: revoked; a station that runs takes it for some seconds more")
    return 0


def _users(options: Namespace) -> int:
    with _database(options) as engine:
        from supersimplenet.station.access.accounts import Accounts

        accounts = Accounts(engine)
        table = Table("name", "role", "", box=None, pad_edge=False)
        for user in accounts.users():
            table.add_row(Text(user.name), user.role, "disabled" if user.disabled else "")
        for token in accounts.tokens():
            table.add_row(Text(token.name), token.role, "token")
    results().print(table if table.row_count else "no users and no tokens")
    return 0


def _outbox(options: Namespace) -> int:
    with _database(options) as engine:
        from supersimplenet.station.access.audit import append
        from supersimplenet.station.sinks.outbox import drop, numbers_waiting
        from supersimplenet.station.storage.database import writing

        waiting = numbers_waiting(engine)
        if options.drop is None:
            table = Table("sink", "results that wait", box=None, pad_edge=False)
            for sink, number in sorted(waiting.items()):
                table.add_row(Text(sink), str(number))
            results().print(table if waiting else "nothing waits")
            return 0
        if options.drop not in waiting:
            known = f"; these have: {', '.join(sorted(waiting))}" if waiting else ""
            raise ConfigError(f"--drop: nothing waits for a sink '{options.drop}'{known}")
        with writing(engine) as connection:
            number = drop(connection, options.drop)
            append(connection, who=_BY, what="drop outbox", details={"sink": options.drop, "results": number})
    results().print(f"{options.drop}: {counted(number, 'result')} dropped; they stay in the table of results")
    return 0


def _audit(options: Namespace) -> int:
    with _database(options) as engine:
        from supersimplenet.station.access import audit

        kept = None if options.head is None else _read_head(options.head)
        with engine.connect() as connection:
            fault = audit.check(connection, head=kept)
            head = audit.head(connection)
    if fault is not None:
        results().print(f"audit trail: broken at entry {fault.number}: {fault.problem}", style="bold red")
        return 1
    since = "" if kept is None else f"; entry {kept.number} is that of {options.head}"
    results().print(f"audit trail: whole, {counted(head.number, 'entry', 'entries')}{since}")
    if options.save is not None:
        write_text(options.save, json.dumps(asdict(head)) + "\n")
        results().print(f"head: {options.save}")
    return 0


def _read_head(path: Path) -> Head:
    from supersimplenet.station.access.audit import Head

    found: Any = read_json(path, advice=_HEAD_ADVICE, error=StationError, max_bytes=_LONGEST_LINE)
    if not isinstance(found, dict) or {name: type(value) for name, value in found.items()} != {
        "number": int,
        "hash": str,
    }:
        raise StationError(f"{path}: not the head of an audit trail; {_HEAD_ADVICE}")
    return Head(**found)


def _password() -> str:
    if not sys.stdin.isatty():
        line = sys.stdin.readline(_LONGEST_LINE).rstrip("\r\n")
        if not line:
            raise ConfigError("password: standard input is empty; wanted the password in one line")
        return line
    password = getpass.getpass("password: ")
    if getpass.getpass("again: ") != password:
        raise ConfigError("password: the two differ; type the same one twice")
    return password


@contextmanager
def _database(options: Namespace, *, create: bool = False) -> Iterator[Engine]:
    """Yield the station's database; a file that is not there is made, or refused."""
    if options.database is None and not create and not (options.folder / DATABASE_FILE).is_file():
        raise ConfigError(f"--folder: {options.folder / DATABASE_FILE}: no such file; name the folder of a station")
    from sqlalchemy.exc import SQLAlchemyError

    from supersimplenet.station.storage.database import open_database

    if options.database is None:
        options.folder.mkdir(parents=True, exist_ok=True)
    engine = open_database(StationConfig(folder=options.folder, database=options.database).database_url)
    try:
        yield engine
    except SQLAlchemyError as error:
        raise StationError(f"the database cannot be used ({first_line(error)}); check URL and server") from error
    finally:
        engine.dispose()


@contextmanager
def _as_wrong_call() -> Iterator[None]:
    """Report what accounts refuse, such as a name that is taken, as a wrong call."""
    from supersimplenet.station.problems import Problem

    try:
        yield
    except Problem as problem:
        raise ConfigError(problem.message) from problem
