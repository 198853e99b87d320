"""The routes of login, users, tokens and the audit trail."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from supersimplenet.station.access import audit
from supersimplenet.station.access.accounts import (
    LOCAL,
    MAX_PASSWORD,
    MIN_PASSWORD,
    NAME_PATTERN,
    Accounts,
    Identity,
    Role,
    Token,
    User,
)
from supersimplenet.station.access.guards import Guard, require
from supersimplenet.station.api.routes import StrictRoute
from supersimplenet.station.api.shapes import Body, IsoTime
from supersimplenet.station.problems import Problem, problem_docs

_LARGEST = 2**63 - 1

NewPassword = Annotated[
    str, Field(min_length=MIN_PASSWORD, max_length=MAX_PASSWORD, examples=["correct horse battery"])
]
Name = Annotated[str, Field(pattern=NAME_PATTERN, examples=["anna"])]
NameInPath = Annotated[str, Path(pattern=NAME_PATTERN, examples=["anna"])]
RoleField = Annotated[Role, Field(description="each may do what those before it may", examples=["operator"])]


class Login(Body):
    """Name and password."""

    name: str = Field(max_length=MAX_PASSWORD, examples=["anna"])
    password: str = Field(max_length=MAX_PASSWORD, examples=["correct horse battery"])


class Me(BaseModel):
    """Who sends the request."""

    name: str = Field(description="a user, 'token:' and a token's name, or 'local'", examples=["anna"])
    role: RoleField
    csrf: str | None = Field(description="for a session: what the header X-CSRF-Token must hold", examples=["ptXb…"])


class NewUser(Body):
    """A user to add."""

    name: Name
    role: RoleField
    password: NewPassword


class UserChange(Body):
    """What to change of a user; what is not given stays."""

    role: RoleField | None = None
    disabled: StrictBool | None = Field(None, description="a disabled user cannot log in; it ends all sessions")
    password: NewPassword | None = Field(None, description="the new password; it ends all sessions")
    old_password: str | None = Field(None, max_length=MAX_PASSWORD, description="to change one's own password")


class NewToken(Body):
    """A token to add."""

    name: Annotated[str, Field(pattern=NAME_PATTERN, examples=["line-1"])]
    role: RoleField


class AddedToken(BaseModel):
    """A token that was added."""

    name: str
    role: RoleField
    token: str = Field(description="shown this once; it is not stored", examples=["ssn_4mX…"])


class UserAnswer(BaseModel):
    """A user, without the password."""

    name: str
    role: RoleField
    disabled: bool
    created_at: IsoTime


class TokenAnswer(BaseModel):
    """A machine's token, without the token itself."""

    name: str
    role: RoleField
    created_at: IsoTime


class EntryAnswer(BaseModel):
    """An entry of the audit trail. Its hash is of the stored form, in which ``at`` is in milliseconds since 1970."""

    model_config = ConfigDict(from_attributes=True)

    number: int
    at: IsoTime
    who: str
    what: str
    details: dict[str, Any]
    previous: str
    hash: str


class AuditPage(BaseModel):
    """Entries of the audit trail, the newest first."""

    entries: list[EntryAnswer]
    next: int | None = Field(description="the next page is ?before= this; null at the end", examples=[17])


def _guard(request: Request) -> Guard:
    guard: Guard = request.app.state.access
    return guard


def _accounts(request: Request) -> Accounts:
    return _guard(request).accounts


def _json_only(request: Request) -> None:
    """Refuse what a form of another site can send."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "wrong_content_type", "send the header 'Content-Type: application/json'")


GuardHere = Annotated[Guard, Depends(_guard)]
AccountsHere = Annotated[Accounts, Depends(_accounts)]
Anyone = Annotated[Identity, Depends(require("operator"))]
Admin = Annotated[Identity, Depends(require("admin"))]

router = APIRouter(
    prefix="/v1", route_class=StrictRoute, tags=["access"], responses=problem_docs(400, 401, 403, 422, 503)
)


@router.post("/login", dependencies=[Depends(_json_only)], responses=problem_docs(415, 429))
def log_in(body: Login, request: Request, answer: Response, guard: GuardHere) -> Me:
    """Begin a session: the answer sets its cookie. After too many wrong attempts: 429 with Retry-After."""
    address = request.client.host if request.client else "unknown"
    cookie, who = guard.accounts.log_in(body.name, body.password, address=address)
    guard.set_cookie(request, answer, cookie)
    return _me(who)


@router.post("/logout", status_code=204)
def log_out(request: Request, answer: Response, who: Anyone, guard: GuardHere) -> None:
    """End the session."""
    if cookie := guard.cookie(request):
        guard.accounts.log_out(cookie, by=who.name)
    guard.set_cookie(request, answer, "")


@router.get("/me")
def me(who: Anyone) -> Me:
    """Say who sends the request."""
    return _me(who)


@router.get("/users", response_model=list[UserAnswer])
def users(who: Admin, accounts: AccountsHere) -> list[User]:
    """List all users."""
    del who
    return accounts.users()


@router.post("/users", response_model=UserAnswer, status_code=201, responses=problem_docs(409))
def add_user(body: NewUser, who: Admin, accounts: AccountsHere) -> User:
    """Add a user. The first one is an admin: from then on everybody needs to log in."""
    _check_first(who, body.role == "admin")
    return accounts.add_user(body.name, body.role, body.password, by=who.name)


@router.patch("/users/{name}", response_model=UserAnswer, responses=problem_docs(404, 409, 429))
def change_user(name: NameInPath, body: UserChange, request: Request, who: Anyone, accounts: AccountsHere) -> User:
    """Change a user, as an admin; or one's own password, with the old one."""
    is_own = who.name == name
    if who.role != "admin" and (not is_own or body.role is not None or body.disabled is not None):
        raise Problem(403, "forbidden", f"{who.name} may only change their own password; ask an admin")
    if is_own and body.password is not None:
        address = request.client.host if request.client else "unknown"
        try:
            accounts.check_password(name, body.old_password or "", address=address)
        except Problem as problem:
            if problem.status_code != 401:
                raise
            raise Problem(403, "wrong_password", "old_password is not the password until now; send that") from None
    return accounts.change_user(name, by=who.name, role=body.role, disabled=body.disabled, password=body.password)


@router.get("/tokens", response_model=list[TokenAnswer])
def tokens(who: Admin, accounts: AccountsHere) -> list[Token]:
    """List all tokens; not the tokens themselves, which are not stored."""
    del who
    return accounts.tokens()


@router.post("/tokens", status_code=201, responses=problem_docs(409))
def add_token(body: NewToken, who: Admin, accounts: AccountsHere) -> AddedToken:
    """Add a token for a machine. The answer shows it this once."""
    _check_first(who, False)
    token = accounts.add_token(body.name, body.role, by=who.name)
    return AddedToken(name=body.name, role=body.role, token=token)


@router.delete("/tokens/{name}", status_code=204, responses=problem_docs(404))
def revoke_token(name: NameInPath, who: Admin, accounts: AccountsHere) -> None:
    """Revoke a token."""
    accounts.revoke_token(name, by=who.name)


@router.get("/audit")
def audit_page(
    who: Admin,
    guard: GuardHere,
    before: Annotated[int | None, Query(ge=1, le=_LARGEST, description="entries below this number")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> AuditPage:
    """Show the audit trail, the newest entries first."""
    del who
    with guard.engine.connect() as connection:
        entries = audit.entries(connection, before=before, limit=limit)
    more = len(entries) == limit and entries[-1].number > 1
    shown = [EntryAnswer.model_validate(entry) for entry in entries]
    return AuditPage(entries=shown, next=entries[-1].number if more else None)


@router.get("/audit/head")
def audit_head(who: Admin, guard: GuardHere) -> audit.Head:
    """Show the trail's head. Keep it elsewhere: `supersimplenet station audit --head FILE` compares it later."""
    del who
    with guard.engine.connect() as connection:
        return audit.head(connection)


def _me(who: Identity) -> Me:
    return Me(name=who.name, role=who.role, csrf=who.csrf)


def _check_first(who: Identity, is_admin: bool) -> None:
    """Refuse what would leave a station to which nobody has the keys."""
    if who.name == LOCAL and not is_admin:
        raise Problem(409, "admin_first", "without users everybody here is admin; add a user who is admin first")
