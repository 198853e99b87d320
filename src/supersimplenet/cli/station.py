"""`supersimplenet station`: users, tokens, the audit trail and exports of a station."""

from __future__ import annotations

import getpass
import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import Namespace
from rich.table import Table
from rich.text import Text

from supersimplenet.cli.common import Command, OptionParser
from supersimplenet.cli.station_folder import BY, add_place, station_database
from supersimplenet.errors import ConfigError, StationError
from supersimplenet.station.config import StationConfig
from supersimplenet.utils.console import console, results
from supersimplenet.utils.documents import read_json
from supersimplenet.utils.files import exists, whole_file, write_text
from supersimplenet.utils.formatting import counted
from supersimplenet.utils.locks import LockedError, writing_file

if TYPE_CHECKING:
    from supersimplenet.station.access.audit import Head

RoleName = Literal["operator", "engineer", "admin"]  # `Role`, whose module needs the extra `serve`
_ROLE_HELP = "what it may do: an engineer also what an operator may, an admin everything"
_LONGEST_LINE = 4096
_SIGN_HELP = "private key, Ed25519 as PEM: write FILE.sig, the signature"
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
        Command(
            "audit",
            "check the audit trail",
            _audit_parser(),
            _audit,
            {"head": "file", "verify": "file", "sign": "file"},
            {"save": "file"},
        ),
        Command(
            "export", "write results into a table", _export_parser(), _export, {"sign": "file"}, {"output": "file"}
        ),
        Command("verify", "check the signature of a file", _verify_parser(), _verify, {"file": "file", "key": "file"}),
    ]


def _adding_parser(description: str, thing: str) -> OptionParser:
    parser = OptionParser(description=description)
    parser.add_argument("name", type=str, help=f"the {thing}'s name, in small letters")
    parser.add_argument("--role", type=RoleName, required=True, help=_ROLE_HELP)
    add_place(parser)
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
    add_place(parser)
    return parser


def _revoking_parser() -> OptionParser:
    parser = OptionParser(description="Take a token back: who sends it is refused from then on.")
    parser.add_argument("name", type=str, help="the token's name")
    add_place(parser)
    return parser


def _users_parser() -> OptionParser:
    parser = OptionParser(description="List the users and tokens of a station.")
    add_place(parser)
    return parser


def _outbox_parser() -> OptionParser:
    parser = OptionParser(description="List how many results wait for each sink of a station.")
    parser.add_argument(
        "--drop",
        type=str | None,
        help="name of a sink that the station does not have any more: what waits for it is dropped",
    )
    add_place(parser)
    return parser


def _audit_parser() -> OptionParser:
    parser = OptionParser(
        description="Check that the audit trail was not changed; exit status 1 where it was. Without a head that was "
        "kept elsewhere, a trail that was cut at its end or computed anew is not noticed."
    )
    parser.add_argument("--head", type=Path | None, help="file of an earlier head, to compare with")
    parser.add_argument("--verify", type=Path | None, help="public key: the head must be signed by its owner")
    parser.add_argument("--save", type=Path | None, help="file for the head, if the trail is whole; keep it elsewhere")
    parser.add_argument("--sign", type=Path | None, help=f"{_SIGN_HELP} of the saved head")
    add_place(parser)
    return parser


def _export_parser() -> OptionParser:
    parser = OptionParser(description="Write results into a table, oldest first, with the columns of /v1/results.csv.")
    parser.add_argument("--output", type=Path, required=True, help="the table, NAME.csv or NAME.parquet")
    parser.add_argument("--since", type=str | None, help="results from this time on, such as 2026-11-30T06:00:00Z")
    parser.add_argument("--until", type=str | None, help="results before this time")
    parser.add_argument("--product", type=str | None, help="results of this product alone")
    parser.add_argument("--sign", type=Path | None, help=f"{_SIGN_HELP} of the table")
    add_place(parser)
    return parser


def _verify_parser() -> OptionParser:
    parser = OptionParser(
        description="Check that a file is the one that was signed, by the signature beside it, FILE.sig; exit status 1 "
        "where it is not."
    )
    parser.add_argument("file", type=Path, help="the file, such as an export or the head of an audit trail")
    parser.add_argument("--key", type=Path, required=True, help="public key of who signed it: Ed25519, PEM")
    return parser


def _add_user(options: Namespace) -> int:
    from supersimplenet.station.access.accounts import Accounts

    password = _password()
    with station_database(options, create=True) as engine, _as_wrong_call():
        user = Accounts(engine).add_user(options.name, options.role, password, by=BY)
    results().print(f"{user.name}: added, {user.role}")
    return 0


def _change_user(options: Namespace) -> int:
    if options.role is None and options.disabled is None and not options.password:
        raise ConfigError("nothing to change; give --role, --password true or --disabled")
    with station_database(options) as engine, _as_wrong_call():
        from supersimplenet.station.access.accounts import Accounts

        password = _password() if options.password else None
        user = Accounts(engine).change_user(
            options.name, by=BY, role=options.role, disabled=options.disabled, password=password
        )
    now = [user.role, *(["new password"] if options.password else []), *(["disabled"] if user.disabled else [])]
    results().print(f"{user.name}: changed, {', '.join(now)}")
    return 0


def _add_token(options: Namespace) -> int:
    from supersimplenet.station.access.accounts import Accounts

    with station_database(options, create=True) as engine, _as_wrong_call():
        token = Accounts(engine).add_token(options.name, options.role, by=BY)
    results().print(token)
    console().print(f"{options.name}: added, {options.role}; keep the token now, it is not shown again")
    return 0


def _revoke_token(options: Namespace) -> int:
    with station_database(options) as engine, _as_wrong_call():
        from supersimplenet.station.access.accounts import Accounts

        Accounts(engine).revoke_token(options.name, by=BY)
    results().print(f"{options.name}: revoked; a station that runs takes it for some seconds more")
    return 0


def _users(options: Namespace) -> int:
    with station_database(options) as engine:
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
    if options.drop is not None and not exists(options.folder):
        raise ConfigError(f"--folder: {options.folder}: no such folder; it says which sinks the station has")
    with station_database(options) as engine:
        from supersimplenet.station.access.audit import append
        from supersimplenet.station.sinks.outbox import drop, holding, numbers_waiting
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
        try:
            with holding(options.folder, options.drop), writing(engine) as connection:
                number = drop(connection, options.drop)
                append(connection, who=BY, what="drop outbox", details={"sink": options.drop, "results": number})
        except LockedError as error:
            raise ConfigError(
                f"--drop: the station that runs has the sink '{options.drop}'{error.holder}; take the sink out of its "
                "setup and restart it, or stop it"
            ) from error
    results().print(f"{options.drop}: {counted(number, 'result')} dropped; they stay in the table of results")
    return 0


def _audit(options: Namespace) -> int:
    for option, needed in (("sign", "save"), ("verify", "head")):
        if getattr(options, option) is not None and getattr(options, needed) is None:
            raise ConfigError(f"--{option}: no --{needed}; name the file of the head")
    with station_database(options) as engine:
        from supersimplenet.station import signatures
        from supersimplenet.station.access import audit

        key = None if options.sign is None else signatures.read_signing_key(options.sign)
        if options.verify is not None and not _has_signature(options.head, options.verify):
            return 1
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
        place = {"at": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}", "station": _station_name(options)}
        write_text(options.save, json.dumps(asdict(head) | place) + "\n")
        results().print(f"head: {options.save}")
        if key is not None:
            results().print(f"signature: {signatures.sign(options.save, key)}")
    return 0


def _station_name(options: Namespace) -> str:
    """Return by which name people know a station: its computer and its database."""
    from sqlalchemy.engine import make_url

    url = make_url(StationConfig(folder=options.folder.absolute(), database=options.database).database_url)
    return f"{socket.gethostname()} {url.render_as_string(hide_password=True)}"


def _export(options: Namespace) -> int:
    if options.output.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"--output: {options.output.name}; wanted a name that ends in .csv or .parquet")
    with station_database(options) as engine:
        from supersimplenet.station import signatures
        from supersimplenet.station.storage.exports import write_table
        from supersimplenet.station.storage.results import Filter, every

        key = None if options.sign is None else signatures.read_signing_key(options.sign)
        wanted = Filter(since=_moment(options, "since"), until=_moment(options, "until"), product=options.product)
        with writing_file(options.output), whole_file(options.output) as temporary:
            number = write_table(every(engine, wanted), temporary, is_parquet=options.output.suffix == ".parquet")
        results().print(f"{options.output}: {counted(number, 'result')}")
        if key is not None:
            results().print(f"signature: {signatures.sign(options.output, key)}")
    return 0


def _moment(options: Namespace, name: str) -> int | None:
    from pydantic import TypeAdapter, ValidationError

    from supersimplenet.station.api.moments import Moment, in_ms

    text = getattr(options, name)
    try:
        return None if text is None else in_ms(TypeAdapter(Moment).validate_python(text))
    except ValidationError as error:
        raise ConfigError(f"--{name}: '{text}'; wanted a time such as 2026-11-30T06:00:00Z") from error


def _verify(options: Namespace) -> int:
    if not _has_signature(options.file, options.key):
        return 1
    results().print(f"{options.file}: as it was signed")
    return 0


def _has_signature(file: Path, key: Path) -> bool:
    """Return whether a file is as it was signed, and say so where it is not."""
    from supersimplenet.station import signatures

    is_signed = signatures.is_signed(file, signatures.read_public_key(key))
    if not is_signed:
        results().print(f"{file}: not as it was signed, or not by the owner of {key}", style="bold red")
    return is_signed


def _read_head(path: Path) -> Head:
    from supersimplenet.station.access.audit import Head

    found: Any = read_json(path, advice=_HEAD_ADVICE, error=StationError, max_bytes=_LONGEST_LINE)
    wanted = {"number": int, "hash": str}
    if not isinstance(found, dict) or any(type(found.get(name)) is not kind for name, kind in wanted.items()):
        raise StationError(f"{path}: not the head of an audit trail; {_HEAD_ADVICE}")
    return Head(**{name: found[name] for name in wanted})


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
def _as_wrong_call() -> Iterator[None]:
    """Report what accounts refuse, such as a name that is taken, as a wrong call."""
    from supersimplenet.station.problems import Problem

    try:
        yield
    except Problem as problem:
        raise ConfigError(problem.message) from problem
