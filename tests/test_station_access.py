"""Users, sessions, tokens and the guards of requests: who may do what, and what pages of other sites cannot."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import pytest
from argon2 import PasswordHasher
from fastapi import Depends, FastAPI
from sqlalchemy import Engine, select, update
from sqlalchemy.exc import OperationalError
from starlette.responses import Response
from starlette.testclient import TestClient
from station_servers import fresh_database

from supersimplenet.cli.main import main
from supersimplenet.station.access import accounts as access
from supersimplenet.station.access import attempts, audit
from supersimplenet.station.access.accounts import Accounts, Identity
from supersimplenet.station.access.attempts import Attempts, Remembered
from supersimplenet.station.access.guards import Guard, SecureHeaders, require
from supersimplenet.station.api.access import router
from supersimplenet.station.problems import Problem, add_problem_handlers
from supersimplenet.station.storage.database import open_database
from supersimplenet.station.storage.schema import SESSIONS, TOKENS, USERS

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD = "correct horse battery"
HOUR_MS = 3600 * 1000


class Clock:
    def __init__(self) -> None:
        self.now_ms = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(f"sqlite:///{tmp_path / 'station.db'}")
    yield engine
    engine.dispose()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def accounts(engine: Engine, clock: Clock) -> Accounts:
    return Accounts(engine, hasher=CHEAP, now=clock)


def service(engine: Engine, **options: Any) -> FastAPI:
    """Return an app with the router, a route for engineers, one that fails and one that may be cached."""
    app = FastAPI()
    app.state.access = Guard(engine, hasher=CHEAP, **{"tls": False, "is_local": True, **options})
    app.include_router(router)
    add_problem_handlers(app)

    @app.post("/v1/models")
    def load(who: Annotated[Identity, Depends(require("engineer"))]) -> str:
        return who.name

    @app.get("/broken")
    def broken() -> None:
        raise ZeroDivisionError

    @app.get("/kept")
    def kept() -> Response:
        return Response("x", headers={"Cache-Control": "max-age=60", "Referrer-Policy": "unsafe-url"})

    return app


def browser(engine: Engine, base: str = "http://localhost:8700", **options: Any) -> TestClient:
    app = SecureHeaders(service(engine, **options), tls=base.startswith("https"))
    return TestClient(app, base_url=base, raise_server_exceptions=False)


def log_in(client: TestClient, name: str, password: str = PASSWORD) -> dict[str, str]:
    """Log in and return the headers that a page sends then."""
    answer = client.post("/v1/login", json={"name": name, "password": password})
    assert answer.status_code == 200, answer.text
    return {"X-CSRF-Token": answer.json()["csrf"]}


def code(answer: Any) -> tuple[int, str]:
    """Return an answer's status and its error's code; every error has the one form."""
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message"}
    assert body["error"]["message"]
    return answer.status_code, body["error"]["code"]


def trail(engine: Engine) -> list[tuple[str, str, dict[str, Any]]]:
    with engine.connect() as connection:
        assert audit.check(connection) is None
        return [(entry.who, entry.what, entry.details) for entry in reversed(audit.entries(connection, limit=1000))]


def test_passwords_cookies_and_tokens_are_stored_as_hashes_alone(engine, accounts):
    accounts.add_user("anna", "admin", PASSWORD, by="local")
    cookie, identity = accounts.log_in("anna", PASSWORD, address="10.0.0.1")
    token = accounts.add_token("line-1", "operator", by="anna")
    assert token.startswith("ssn_")
    assert len(token) >= 40
    with engine.connect() as connection:
        stored = [str(tuple(row)) for table in (USERS, SESSIONS, TOKENS) for row in connection.execute(select(table))]
    assert "$argon2id$" in stored[0]
    assert not any(secret in row for secret in (PASSWORD, cookie, token) for row in stored)
    assert accounts.of_session(cookie) == identity == Identity("anna", "admin", identity.csrf)
    assert accounts.of_token(token) == Identity("token:line-1", "operator")
    assert accounts.of_session(token) is accounts.of_token(cookie) is None


def test_every_change_is_in_the_trail_without_secrets(engine, accounts):
    accounts.add_user("anna", "admin", PASSWORD, by="command line")
    accounts.add_user("bert", "operator", PASSWORD, by="anna")
    accounts.change_user("bert", by="anna", role="engineer", password="another password")
    token = accounts.add_token("line-1", "operator", by="anna")
    accounts.revoke_token("line-1", by="anna")
    cookie, _ = accounts.log_in("bert", "another password", address="10.0.0.1")
    accounts.log_out(cookie, by="bert")
    accounts.change_user("bert", by="anna", disabled=True)
    for name in ("bert", "nobody", "no such\0name"):
        with pytest.raises(Problem):
            accounts.log_in(name, "wrong", address="10.0.0.2")
    found = trail(engine)
    assert found == [
        ("command line", "add user", {"user": "anna", "role": "admin"}),
        ("anna", "add user", {"user": "bert", "role": "operator"}),
        ("anna", "change user", {"user": "bert", "role": "engineer", "password": "changed"}),
        ("anna", "add token", {"token": "line-1", "role": "operator"}),
        ("anna", "revoke token", {"token": "line-1"}),
        ("bert", "log in", {"address": "10.0.0.1"}),
        ("bert", "log out", {}),
        ("anna", "change user", {"user": "bert", "disabled": True}),
        ("bert", "log in failed", {"address": "10.0.0.2"}),
        ("(unknown)", "log in failed", {"address": "10.0.0.2"}),  # what was typed may be a password
        ("(unknown)", "log in failed", {"address": "10.0.0.2"}),
    ]
    assert not any(secret in str(found) for secret in (PASSWORD, "another password", token, cookie))


def test_what_fails_leaves_no_entry(engine, accounts):
    accounts.add_user("anna", "admin", PASSWORD, by="local")
    accounts.add_token("line-1", "operator", by="anna")
    before = trail(engine)
    for status, wrong in (
        (422, lambda: accounts.add_user("bert", "operator", "short", by="anna")),
        (422, lambda: accounts.add_user("Bert", "operator", PASSWORD, by="anna")),
        (422, lambda: accounts.add_user("bert\n", "operator", PASSWORD, by="anna")),
        (422, lambda: accounts.add_user("local", "operator", PASSWORD, by="anna")),
        (422, lambda: accounts.add_user("b" * 65, "operator", PASSWORD, by="anna")),
        (409, lambda: accounts.add_user("anna", "operator", PASSWORD, by="anna")),
        (404, lambda: accounts.change_user("bert", by="anna", disabled=True)),
        (422, lambda: accounts.change_user("anna", by="anna")),
        (422, lambda: accounts.change_user("anna", by="anna", password="p" * 1001)),
        (422, lambda: accounts.add_token("line:1", "operator", by="anna")),
        (409, lambda: accounts.add_token("line-1", "admin", by="anna")),
        (404, lambda: accounts.revoke_token("line-2", by="anna")),
    ):
        with pytest.raises(Problem) as problem:
            wrong()
        assert problem.value.status_code == status
    assert trail(engine) == before
    assert [user.name for user in accounts.users()] == ["anna"]


def test_a_session_ends_after_12_idle_hours_or_7_days(accounts, clock):
    accounts.add_user("anna", "admin", PASSWORD, by="local")
    cookie, _ = accounts.log_in("anna", PASSWORD, address="10.0.0.1")
    clock.now_ms += 12 * HOUR_MS
    assert accounts.of_session(cookie) is not None
    clock.now_ms += 12 * HOUR_MS
    assert accounts.of_session(cookie, is_use=False) is not None  # a stream that is open is no use
    clock.now_ms += 1
    assert accounts.of_session(cookie) is None
    cookie, _ = accounts.log_in("anna", PASSWORD, address="10.0.0.1")
    for _ in range(14):
        clock.now_ms += 12 * HOUR_MS
        assert accounts.of_session(cookie) is not None
    clock.now_ms += 1
    assert accounts.of_session(cookie) is None


def test_ended_sessions_and_all_but_20_of_a_user_are_removed(engine, accounts, clock):
    accounts.add_user("anna", "admin", PASSWORD, by="local")
    accounts.log_in("anna", PASSWORD, address="10.0.0.1")
    clock.now_ms += 13 * HOUR_MS
    cookies = []
    for _ in range(22):
        clock.now_ms += 1
        cookies.append(accounts.log_in("anna", PASSWORD, address="10.0.0.1")[0])
    with engine.connect() as connection:
        assert len(connection.execute(select(SESSIONS)).all()) == 20
    assert [accounts.of_session(cookie) is None for cookie in cookies] == [True] * 2 + [False] * 20


def test_a_new_password_a_disabled_user_and_a_new_role_count_at_once(accounts):
    accounts.add_user("anna", "admin", PASSWORD, by="local")
    accounts.add_user("bert", "operator", PASSWORD, by="anna")
    cookie, _ = accounts.log_in("bert", PASSWORD, address="10.0.0.1")
    accounts.change_user("bert", by="anna", role="engineer")
    assert accounts.of_session(cookie).role == "engineer"
    accounts.change_user("bert", by="anna", password="another password")
    assert accounts.of_session(cookie) is None
    cookie, _ = accounts.log_in("bert", "another password", address="10.0.0.1")
    accounts.change_user("bert", by="anna", disabled=True)
    assert accounts.of_session(cookie) is None
    accounts.change_user("bert", by="anna", disabled=False)
    assert accounts.of_session(cookie) is None
    accounts.log_in("bert", "another password", address="10.0.0.1")


def test_the_last_admin_stays(accounts):
    accounts.add_user("anna", "admin", PASSWORD, by="local")
    accounts.add_user("bert", "admin", PASSWORD, by="anna")
    accounts.change_user("bert", by="anna", disabled=True)
    for change in ({"disabled": True}, {"role": "engineer"}):
        with pytest.raises(Problem, match="last admin") as problem:
            accounts.change_user("anna", by="anna", **change)
        assert problem.value.status_code == 409
    accounts.change_user("bert", by="anna", disabled=False)
    assert accounts.change_user("anna", by="anna", role="engineer").role == "engineer"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_of_two_admins_who_leave_at_once_one_stays(kind, tmp_path, request):
    postgresql = kind == "postgresql"
    url = fresh_database(request.getfixturevalue("postgres_url")) if postgresql else f"sqlite:///{tmp_path / 'a.db'}"
    engine = open_database(url)
    accounts = Accounts(engine, hasher=CHEAP)
    names = [f"admin-{number}" for number in range(4)]
    for name in names:
        accounts.add_user(name, "admin", PASSWORD, by="local")
    refused: list[Problem] = []

    def leave(name: str) -> None:
        try:
            accounts.change_user(name, by=name, disabled=True)
        except Problem as problem:
            refused.append(problem)

    threads = [threading.Thread(target=leave, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [problem.code for problem in refused] == ["last_admin"]
    assert [user.disabled for user in accounts.users()].count(False) == 1
    cookie, _ = accounts.log_in(next(u.name for u in accounts.users() if not u.disabled), PASSWORD, address="::1")
    assert accounts.of_session(cookie).role == "admin"
    assert accounts.of_token(accounts.add_token("line-1", "operator", by="local")).role == "operator"
    assert len(trail(engine)) == 4 + 3 + 1 + 1
    engine.dispose()


def test_unknown_and_disabled_users_take_the_same_work(accounts, monkeypatch):
    accounts.add_user("anna", "admin", PASSWORD, by="local")
    accounts.add_user("bert", "operator", PASSWORD, by="anna")
    accounts.change_user("bert", by="anna", disabled=True)
    verified = []
    monkeypatch.setattr(PasswordHasher, "verify", lambda self, hashed, password: verified.append(hashed) or True)
    messages = set()
    for name in ("bert", "nobody", "\ud800", ""):
        with pytest.raises(Problem) as problem:
            accounts.log_in(name, PASSWORD, address="10.0.0.1")
        messages.add((problem.value.status_code, problem.value.message))
    assert len(verified) == 4
    assert len({hashed.rpartition("$")[0].rpartition("$")[0] for hashed in verified}) == 1  # the same parameters
    assert len(messages) == 1


def test_logins_are_limited_by_name_and_by_address(engine, accounts, monkeypatch):
    time = [1000.0]
    monkeypatch.setattr(attempts.time, "monotonic", lambda: time[0])
    accounts.add_user("anna", "admin", PASSWORD, by="local")
    statuses = []
    for number in range(12):
        with pytest.raises(Problem) as problem:
            accounts.log_in("anna", "wrong", address=f"10.0.0.{number}")
        statuses.append(problem.value.status_code)
    assert statuses == [401] * 10 + [429] * 2
    assert problem.value.headers == {"Retry-After": "300"}
    with pytest.raises(Problem, match="wait 300 s"):  # the right password, too: else the limit tells it
        accounts.log_in("anna", PASSWORD, address="10.0.1.1")
    time[0] += 300
    for _ in range(40):  # right ones are not counted
        accounts.check_password("anna", PASSWORD, address="10.0.0.1")
    statuses = []
    for number in range(35):
        with pytest.raises(Problem) as problem:
            accounts.log_in(f"user-{number}", "wrong", address="10.0.9.9")
        statuses.append(problem.value.status_code)
    assert statuses == [401] * 30 + [429] * 5


def test_failed_logins_do_not_fill_the_trail(engine, accounts, monkeypatch):
    time = [1000.0]
    monkeypatch.setattr(attempts.time, "monotonic", lambda: time[0])
    accounts.add_user("anna", "admin", PASSWORD, by="local")
    for number in range(100):
        with pytest.raises(Problem):
            accounts.log_in(f"user-{number}", "wrong", address=f"10.0.0.{number}")
    assert len(trail(engine)) == 1 + 60
    time[0] += 3600
    with pytest.raises(Problem):
        accounts.log_in("anna", "wrong", address="10.0.0.1")
    assert trail(engine)[-1] == ("anna", "log in failed", {"address": "10.0.0.1", "left_out_before": 40})


def test_a_user_who_was_disabled_while_the_password_was_checked_gets_no_session(engine, accounts, monkeypatch):
    accounts.add_user("anna", "admin", PASSWORD, by="local")
    check = accounts.check_password

    def slow(*arguments: Any, **named: Any) -> str:
        hashed = check(*arguments, **named)
        with engine.begin() as connection:
            connection.execute(update(USERS).values(disabled=True))
        return hashed

    monkeypatch.setattr(accounts, "check_password", slow)
    with pytest.raises(Problem) as problem:
        accounts.log_in("anna", PASSWORD, address="10.0.0.1")
    assert problem.value.status_code == 401
    with engine.connect() as connection:
        assert connection.execute(select(SESSIONS)).all() == []


def test_at_most_so_many_passwords_are_hashed_at_once(accounts, monkeypatch):
    monkeypatch.setattr(access, "_HASHING_WAIT_S", 0.01)
    for _ in range(4):
        accounts._hashing.acquire()
    with pytest.raises(Problem, match="many log in at once") as problem:
        accounts.add_user("anna", "admin", PASSWORD, by="local")
    assert problem.value.status_code == 429


def test_the_memory_of_attempts_is_bounded(monkeypatch):
    monkeypatch.setattr(attempts, "_KEYS", 100)
    limit = Attempts(1, within_s=60)
    assert [limit.take(str(number)) for number in range(1000)] == [0.0] * 1000
    assert len(limit._times) == 100
    assert limit.take("999") > 59
    limit.give_back("999")
    assert limit.take("999") == 0


def test_what_the_database_said_outlasts_it(monkeypatch):
    time = [1000.0]
    monkeypatch.setattr(attempts.time, "monotonic", lambda: time[0])
    known: Remembered[str] = Remembered()
    asked: list[str] = []

    def away() -> str:
        asked.append("away")
        raise OperationalError("SELECT", {}, Exception("gone"))

    assert known.get("a", lambda: "yes") == "yes"
    assert known.get("a", away) == "yes"
    assert asked == []
    time[0] += 5
    assert [known.get("a", away), known.get("a", away)] == ["yes", "yes"]
    assert asked == ["away"]  # nobody else waits for the database meanwhile
    time[0] += 5
    assert known.get("a", lambda: None) is None
    with pytest.raises(OperationalError):
        known.get("a", away)
    known.get("b", lambda: "yes")
    known.forget()
    with pytest.raises(OperationalError):
        known.get("b", away)


def test_without_users_everybody_at_this_computer_is_admin(engine):
    client = browser(engine)
    assert client.get("/v1/me").json() == {"name": "local", "role": "admin", "csrf": None}
    assert client.post("/v1/models").json() == "local"
    assert code(browser(engine, is_local=False).get("/v1/me")) == (401, "unauthorized")
    proxied = browser(engine, hosts=["station.example.com"])  # whose users are at any computer
    assert code(proxied.get("/v1/me")) == (401, "unauthorized")
    # The first one added must be an admin, else nobody could add another.
    new = {"name": "anna", "role": "engineer", "password": PASSWORD}
    assert code(client.post("/v1/users", json=new)) == (409, "admin_first")
    assert code(client.post("/v1/tokens", json={"name": "line-1", "role": "admin"})) == (409, "admin_first")
    answer = client.post("/v1/users", json={**new, "role": "admin"})
    assert answer.status_code == 201
    assert set(answer.json()) == {"name", "role", "disabled", "created_at"}
    assert code(client.get("/v1/me")) == (401, "unauthorized")
    assert trail(engine)[0][0] == "local"


def test_pages_of_other_sites_cannot_use_an_open_station(engine):
    client = browser(engine)
    for headers, expected in (
        ({}, None),
        ({"Origin": "http://localhost:8700", "Sec-Fetch-Site": "same-origin"}, None),
        ({"Host": "127.0.0.1:8700", "Origin": "http://127.0.0.1:8700"}, None),
        ({"Host": "[::1]:8700"}, None),
        ({"Sec-Fetch-Site": "none"}, None),
        ({"Origin": "http://evil.example"}, (403, "other_origin")),
        ({"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"}, (403, "other_origin")),
        ({"Origin": "https://localhost:8700"}, (403, "other_origin")),
        ({"Origin": "null"}, (403, "other_origin")),
        ({"Sec-Fetch-Site": "cross-site"}, (403, "other_origin")),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, (400, "wrong_host")),
        ({"Host": "localhost.evil.example"}, (400, "wrong_host")),
        ({"Host": "127.0.0.1.evil.example"}, (400, "wrong_host")),
        ({"Host": "evil@localhost:8700"}, (400, "wrong_host")),
        ({"Host": "[bad"}, (400, "wrong_host")),
        ({"Host": ""}, (400, "wrong_host")),
    ):
        answer = client.post("/v1/models", headers=headers)
        assert (None if answer.status_code == 200 else code(answer)) == expected, headers
        if expected is not None and expected[0] == 400:  # reading too: to the browser the page has the same origin
            assert code(client.get("/v1/me", headers=headers)) == expected


def test_hosts_are_checked_where_there_are_users_too(engine):
    client = browser(engine, is_local=False, hosts=["Station.example.com"])
    assert code(client.get("/v1/me")) == (400, "wrong_host")
    assert code(client.get("/v1/me", headers={"Host": "station.example.com:443"})) == (401, "unauthorized")
    assert code(client.get("/v1/me", headers=[("Host", "station.example.com"), ("Host", "x")])) == (400, "wrong_host")


def test_a_session_in_the_browser(engine, accounts):
    accounts.add_user("anna", "engineer", PASSWORD, by="local")
    client = browser(engine)
    answer = client.post("/v1/login", json={"name": "anna", "password": PASSWORD})
    assert answer.json() == {"name": "anna", "role": "engineer", "csrf": answer.json()["csrf"]}
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("station-8700=")
    assert cookie.partition("; ")[2] == "HttpOnly; Max-Age=604800; Path=/; SameSite=strict"
    assert client.get("/v1/me").json() == answer.json()
    assert code(client.post("/v1/models")) == (403, "csrf")
    for wrong in ("", "x", "ü"):
        assert code(client.post("/v1/models", headers={"X-CSRF-Token": wrong.encode()})) == (403, "csrf")
    headers = {"X-CSRF-Token": answer.json()["csrf"]}
    assert client.post("/v1/models", headers=headers).json() == "anna"
    assert code(client.post("/v1/logout")) == (403, "csrf")
    stolen = client.cookies["station-8700"]
    answer = client.post("/v1/logout", headers=headers)
    assert answer.status_code == 204
    assert "Max-Age=0" in answer.headers["set-cookie"]
    client.cookies.set("station-8700", stolen)
    assert code(client.get("/v1/me")) == (401, "unauthorized")


def test_with_tls_the_cookie_is_bound_to_the_host(engine, accounts):
    accounts.add_user("anna", "engineer", PASSWORD, by="local")
    client = browser(engine, "https://station.example.com", tls=True, is_local=False, hosts=["station.example.com"])
    answer = client.post("/v1/login", json={"name": "anna", "password": PASSWORD})
    assert answer.headers["set-cookie"].startswith("__Host-station=")
    assert answer.headers["set-cookie"].endswith("; HttpOnly; Max-Age=604800; Path=/; SameSite=strict; Secure")
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert client.get("/v1/me").json()["name"] == "anna"
    assert client.post("/v1/logout", headers={"X-CSRF-Token": answer.json()["csrf"]}).status_code == 204
    assert client.cookies.get("__Host-station") is None


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_form_of_another_site_cannot_log_in(engine, accounts, kind):
    accounts.add_user("anna", "engineer", PASSWORD, by="local")
    content = f'{{"name": "anna", "password": "{PASSWORD}"}}'
    answer = browser(engine).post("/v1/login", content=content, headers={"Content-Type": kind} if kind else {})
    assert code(answer) == (415, "wrong_content_type")
    assert "set-cookie" not in answer.headers


def test_after_too_many_attempts_the_answer_says_when_to_come_back(engine, accounts):
    accounts.add_user("anna", "engineer", PASSWORD, by="local")
    client = browser(engine)
    wrong = {"name": "anna", "password": "wrong"}
    assert {code(client.post("/v1/login", json=wrong)) for _ in range(10)} == {(401, "wrong_login")}
    answer = client.post("/v1/login", json=wrong)
    assert code(answer) == (429, "too_many")
    assert 298 <= int(answer.headers["retry-after"]) <= 300


def test_tokens_of_machines(engine, accounts):
    token = accounts.add_token("line-1", "engineer", by="local")
    client = browser(engine)
    for scheme in ("Bearer", "bearer"):
        assert client.post("/v1/models", headers={"Authorization": f"{scheme} {token}"}).json() == "token:line-1"
    for wrong in (
        "Bearer",
        "Bearer ssn_x",
        f"Basic {token}",
        token,
        f"Bearer {token}x",
        "Bearer \xfc".encode("latin-1"),
    ):
        answer = client.get("/v1/me", headers={"Authorization": wrong})
        assert code(answer) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    for address in (f"?token={token}", "?access_token=x", "?Api_Key=x", f"?any={token}"):
        assert code(client.get(f"/v1/me{address}", headers={"Authorization": f"Bearer {token}"})) == (
            400,
            "token_in_address",
        )
    accounts.revoke_token("line-1", by="local")
    assert accounts.of_token(token) is None


def test_each_route_asks_for_its_role(engine, accounts):
    for role in ("operator", "engineer", "admin"):
        accounts.add_user(f"the-{role}", role, PASSWORD, by="local")
    user, token = {"name": "new", "role": "operator", "password": PASSWORD}, {"name": "new", "role": "operator"}
    calls: list[tuple[str, str, Any, int]] = [  # and how many of the three roles may
        ("GET", "/v1/me", None, 3),
        ("POST", "/v1/models", None, 2),
        ("GET", "/v1/users", None, 1),
        ("POST", "/v1/users", user, 1),
        ("PATCH", "/v1/users/new", {"role": "engineer"}, 1),
        ("PATCH", "/v1/users/new", {"password": PASSWORD}, 1),
        ("GET", "/v1/tokens", None, 1),
        ("POST", "/v1/tokens", token, 1),
        ("DELETE", "/v1/tokens/new", None, 1),
        ("GET", "/v1/audit", None, 1),
        ("GET", "/v1/audit/head", None, 1),
    ]
    own = {(route.path, method) for route in router.routes for method in route.methods}
    called = {(path.replace("/new", "/{name}"), method) for method, path, _, _ in calls}
    assert own - called == {("/v1/login", "POST"), ("/v1/logout", "POST")}
    nobody = browser(engine)
    for method, path, body, _ in calls:
        assert code(nobody.request(method, path, json=body)) == (401, "unauthorized"), path
    assert code(nobody.post("/v1/logout")) == (401, "unauthorized")
    for place, role in enumerate(("operator", "engineer", "admin")):
        client = browser(engine)
        headers = log_in(client, f"the-{role}")
        for method, path, body, may in calls:
            answer = client.request(method, path, json=body, headers=headers)
            if place >= 3 - may:
                assert answer.status_code in (200, 201, 204), (role, path, answer.text)
            else:
                assert code(answer) == (403, "forbidden"), (role, path)


def test_users_and_tokens_over_the_api(engine, accounts):
    accounts.add_user("anna", "admin", PASSWORD, by="local")
    client = browser(engine)
    headers = log_in(client, "anna")
    new = {"name": "bert", "role": "operator", "password": PASSWORD}
    assert client.post("/v1/users", json=new, headers=headers).status_code == 201
    assert code(client.post("/v1/users", json=new, headers=headers)) == (409, "exists")
    answer = client.patch("/v1/users/bert", json={"role": "engineer", "disabled": True}, headers=headers)
    assert (answer.json()["role"], answer.json()["disabled"]) == ("engineer", True)
    assert [user["name"] for user in client.get("/v1/users").json()] == ["anna", "bert"]
    assert code(client.patch("/v1/users/anna", json={"disabled": True}, headers=headers)) == (409, "last_admin")
    assert code(client.patch("/v1/users/carl", json={"disabled": True}, headers=headers)) == (404, "not_found")
    added = client.post("/v1/tokens", json={"name": "line-1", "role": "operator"}, headers=headers).json()
    machine = {"Authorization": f"Bearer {added['token']}"}
    assert client.get("/v1/me", headers=machine).json() == {"name": "token:line-1", "role": "operator", "csrf": None}
    (listed,) = client.get("/v1/tokens").json()
    assert {name: listed[name] for name in ("name", "role")} == {"name": "line-1", "role": "operator"}
    assert added["token"] not in str(listed)
    assert client.delete("/v1/tokens/line-1", headers=headers).status_code == 204
    assert code(client.delete("/v1/tokens/line-1", headers=headers)) == (404, "not_found")
    assert code(client.get("/v1/me", headers=machine)) == (401, "unauthorized")


def test_everybody_changes_their_own_password_with_the_old_one(engine, accounts):
    accounts.add_user("anna", "admin", PASSWORD, by="local")
    accounts.add_user("bert", "operator", PASSWORD, by="anna")
    for name in ("anna", "bert"):  # an admin needs the old one as well: a session may be stolen
        client = browser(engine)
        headers = log_in(client, name)
        change = {"password": "another password"}
        for old in ({}, {"old_password": "wrong"}):
            answer = client.patch(f"/v1/users/{name}", json={**change, **old}, headers=headers)
            assert code(answer) == (403, "wrong_password")
        change["old_password"] = PASSWORD
        assert client.patch(f"/v1/users/{name}", json=change, headers=headers).status_code == 200
        assert code(client.get("/v1/me")) == (401, "unauthorized")
        log_in(client, name, "another password")
    headers = log_in(client, "bert", "another password")
    for body in ({"role": "admin"}, {"disabled": False, "password": PASSWORD, "old_password": "another password"}):
        assert code(client.patch("/v1/users/bert", json=body, headers=headers)) == (403, "forbidden")
    wrong = {"password": PASSWORD, "old_password": "wrong"}
    answers = [code(client.patch("/v1/users/bert", json=wrong, headers=headers)) for _ in range(11)]
    assert answers[-1] == (429, "too_many")  # a stolen session cannot try passwords


def test_a_query_that_a_route_does_not_have_is_refused(engine, accounts):
    accounts.add_user("anna", "admin", PASSWORD, by="local")
    client = browser(engine)
    headers = log_in(client, "anna")
    for address, said in (
        (
            "/v1/audit?limt=5&x=1",
            "limt: no such parameter; did you mean limit?; x: no such parameter; this address takes",
        ),
        ("/v1/audit?limit=1&limit=2", "limit: given 2 times; wanted once"),
        ("/v1/me?name=anna", "name: no such parameter; this address takes none"),
    ):
        answer = client.get(address)
        assert code(answer) == (422, "query"), address
        assert answer.json()["error"]["message"].startswith(f"query: {said}")
    before = trail(engine)
    assert code(client.delete("/v1/tokens/line-1?forec=1", headers=headers)) == (422, "query")
    assert trail(engine) == before


def test_times_are_iso_8601_in_answers_and_milliseconds_in_the_database(engine, accounts):
    accounts.add_user("anna", "admin", PASSWORD, by="local")
    accounts.add_token("line-1", "operator", by="anna")
    client = browser(engine)
    headers = log_in(client, "anna")
    added = client.post("/v1/users", json={"name": "bert", "role": "operator", "password": PASSWORD}, headers=headers)
    assert added.json()["created_at"].endswith("Z")
    users, tokens = client.get("/v1/users").json(), client.get("/v1/tokens").json()
    assert users[0] == {"name": "anna", "role": "admin", "disabled": False, "created_at": "2027-01-15T08:00:00.000Z"}
    assert users[1] == added.json()
    assert tokens == [{"name": "line-1", "role": "operator", "created_at": "2027-01-15T08:00:00.000Z"}]
    shown = client.get("/v1/audit").json()["entries"]
    with engine.connect() as connection:
        stored = [asdict(entry) for entry in audit.entries(connection)]
        assert audit.check(connection) is None
    for entry in shown:
        assert entry["at"].endswith("Z")
        entry["at"] = round(datetime.fromisoformat(entry["at"].replace("Z", "+00:00")).timestamp() * 1000)
    assert shown == stored


def test_the_audit_trail_over_the_api(engine, accounts):
    accounts.add_user("anna", "admin", PASSWORD, by="local")
    client = browser(engine)
    log_in(client, "anna")
    page = client.get("/v1/audit", params={"limit": 1}).json()
    assert (page["entries"][0]["what"], page["next"]) == ("log in", 2)
    assert client.get("/v1/audit/head").json() == {"number": 2, "hash": page["entries"][0]["hash"]}
    page = client.get("/v1/audit", params={"limit": 1, "before": page["next"]}).json()
    assert (page["entries"][0]["what"], page["next"]) == ("add user", None)
    for wrong in ({"limit": 0}, {"limit": 1001}, {"before": 0}, {"before": 2**63}, {"before": "x"}):
        assert code(client.get("/v1/audit", params=wrong)) == (422, "invalid")


def test_every_error_has_the_one_form_and_repeats_nothing(engine):
    client = browser(engine)
    for expected, answer in (
        ((404, "not_found"), client.get("/nowhere")),
        ((405, "method_not_allowed"), client.put("/v1/me")),
        ((422, "invalid"), client.post("/v1/users", json={"name": "anna", "role": "admin", "password": "hunter2"})),
        ((422, "invalid"), client.post("/v1/users", json={"name": "anna", "rolle": "admin"})),
        ((422, "invalid"), client.post("/v1/users", content=b"{", headers={"Content-Type": "application/json"})),
        (
            (422, "invalid"),
            client.post("/v1/users", content=b'"\\ud800"', headers={"Content-Type": "application/json"}),
        ),
        ((422, "invalid"), client.delete("/v1/tokens/a%00b")),
        ((500, "internal"), client.get("/broken")),
    ):
        assert code(answer) == expected
        assert "hunter2" not in answer.text
    assert client.put("/v1/me").headers["allow"] == "GET"


def test_a_database_that_is_away_is_said(engine, accounts, monkeypatch):
    token = accounts.add_token("line-1", "operator", by="local")
    client = browser(engine)
    headers = {"Authorization": f"Bearer {token}"}
    assert client.get("/v1/me", headers=headers).status_code == 200

    def away(*arguments: Any) -> None:
        raise OperationalError("SELECT", {}, Exception("gone"))

    monkeypatch.setattr(Engine, "connect", away)
    time = [attempts.time.monotonic() + 100]
    monkeypatch.setattr(attempts.time, "monotonic", lambda: time[0])
    assert client.get("/v1/me", headers=headers).json()["name"] == "token:line-1"  # the line goes on
    answer = client.get("/v1/me", headers={"Authorization": "Bearer ssn_other"})
    assert code(answer) == (503, "database_away")
    assert answer.headers["retry-after"] == "5"


def test_strict_headers_are_on_every_answer(engine):
    client = browser(engine)
    for path, status in (("/v1/me", 200), ("/nowhere", 404), ("/broken", 500), ("/kept", 200)):
        answer = client.get(path)
        assert answer.status_code == status
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "camera=()" in answer.headers["permissions-policy"]
        assert answer.headers["cache-control"] == ("max-age=60" if path == "/kept" else "no-store")
        assert "strict-transport-security" not in answer.headers


def test_the_description_of_the_api_names_its_errors(engine):
    paths = service(engine).openapi()["paths"]
    for path, method in (("/v1/login", "post"), ("/v1/users/{name}", "patch"), ("/v1/audit", "get")):
        answers = paths[path][method]["responses"]
        for status in ("401", "422"):
            assert answers[status]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorAnswer")


def test_users_and_tokens_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(access, "PasswordHasher", lambda: CHEAP)
    place = ["--folder", str(tmp_path / "new" / "station")]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PASSWORD}\n"))
    assert main(["station", "add-user", "anna", "--role", "admin", *place]) == 0
    assert main(["station", "add-token", "line-1", "--role", "operator", *place]) == 0
    said = capsys.readouterr()
    added, token = said.out.splitlines()
    assert added == "anna: added, admin"
    engine = open_database(f"sqlite:///{tmp_path / 'new' / 'station' / 'station.db'}")
    accounts = Accounts(engine, hasher=CHEAP)
    assert accounts.of_token(token) == Identity("token:line-1", "operator")
    accounts.log_in("anna", PASSWORD, address="10.0.0.1")
    accounts.add_user("bert", "operator", PASSWORD, by="anna")
    accounts.change_user("bert", by="anna", disabled=True)
    assert [who for who, _, _ in trail(engine)][:2] == ["command line"] * 2
    engine.dispose()
    assert main(["station", "users", *place]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1:] == [["anna", "admin"], ["bert", "operator", "disabled"], ["line-1", "operator", "token"]]


def test_users_are_changed_and_tokens_revoked_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(access, "PasswordHasher", lambda: CHEAP)
    place = ["--folder", str(tmp_path)]
    engine = open_database(f"sqlite:///{tmp_path / 'station.db'}")
    accounts = Accounts(engine, hasher=CHEAP)
    accounts.add_user("anna", "admin", PASSWORD, by="local")
    accounts.add_user("bert", "operator", PASSWORD, by="anna")
    token = accounts.add_token("line-1", "operator", by="anna")
    cookie, _ = accounts.log_in("bert", PASSWORD, address="10.0.0.1")
    assert main(["station", "change-user", "bert", "--role", "engineer", *place]) == 0
    assert accounts.of_session(cookie).role == "engineer"
    monkeypatch.setattr("sys.stdin", io.StringIO("another password\n"))
    assert main(["station", "change-user", "bert", "--password", "true", *place]) == 0
    assert accounts.of_session(cookie) is None
    accounts.log_in("bert", "another password", address="10.0.0.1")
    assert main(["station", "change-user", "bert", "--disabled", "true", *place]) == 0
    with pytest.raises(Problem):
        accounts.log_in("bert", "another password", address="10.0.0.1")
    assert main(["station", "change-user", "bert", "--disabled", "false", "--role", "operator", *place]) == 0
    accounts.log_in("bert", "another password", address="10.0.0.1")
    assert main(["station", "revoke-token", "line-1", *place]) == 0
    assert Accounts(engine, hasher=CHEAP).of_token(token) is None
    assert capsys.readouterr().out.splitlines() == [
        "bert: changed, engineer",
        "bert: changed, engineer, new password",
        "bert: changed, engineer, disabled",
        "bert: changed, operator",
        "line-1: revoked; a station that runs takes it for some seconds more",
    ]
    assert [(what, details) for who, what, details in trail(engine) if who == "command line"] == [
        ("change user", {"user": "bert", "role": "engineer"}),
        ("change user", {"user": "bert", "password": "changed"}),
        ("change user", {"user": "bert", "disabled": True}),
        ("change user", {"user": "bert", "role": "operator", "disabled": False}),
        ("revoke token", {"token": "line-1"}),
    ]
    before = trail(engine)
    for call, message in (
        (["change-user", "anna", "--role", "operator"], "anna is the last admin; make another user an admin first"),
        (["change-user", "carl", "--role", "operator"], "carl: no such user; check the name"),
        (["change-user", "bert"], "nothing to change; give --role, --password true or --disabled"),
        (["revoke-token", "line-1"], "line-1: no such token; check the name"),
    ):
        assert main(["station", *call, *place]) == 2
        assert capsys.readouterr().err == f"supersimplenet station {call[0]}: {message}\n"
    assert trail(engine) == before
    engine.dispose()


@pytest.mark.parametrize(
    ("call", "typed", "message"),
    [
        (["add-user", "anna"], "short\n", "password: 5 characters; wanted 10 to 1,000"),
        (["add-user", "anna"], "", "password: standard input is empty"),
        (["add-user", "Anna"], f"{PASSWORD}\n", "name: 'Anna'; wanted up to 64 of a-z"),
        (["add-token", "a b"], "", "name: 'a b'; wanted up to 64 of a-z"),
    ],
)
def test_what_cannot_be_is_a_wrong_call(tmp_path, monkeypatch, capsys, call, typed, message):
    monkeypatch.setattr(access, "PasswordHasher", lambda: CHEAP)
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert main(["station", *call, "--role", "admin", "--folder", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"station {call[0]}: {message}" in line


def test_a_database_that_cannot_be_used_is_said_in_a_line(tmp_path, capsys):
    (tmp_path / "station.db").write_text("no database" * 1000)
    assert main(["station", "users", "--folder", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "the database cannot be used" in line
    assert main(["station", "users", "--folder", str(tmp_path / "none")]) == 2
    assert "no such file; name the folder of a station" in capsys.readouterr().err


def test_on_a_terminal_the_password_is_asked_for_twice(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(access, "PasswordHasher", lambda: CHEAP)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    typed = iter([PASSWORD, "another password", PASSWORD, PASSWORD])
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(typed))
    call = ["station", "add-user", "anna", "--role", "admin", "--folder", str(tmp_path)]
    assert main(call) == 2
    assert "the two differ" in capsys.readouterr().err
    assert main(call) == 0


@pytest.mark.parametrize("module", ["sqlalchemy", "argon2"])
def test_without_the_extra_the_command_says_which_one(tmp_path, module):
    code = f"import sys; sys.modules[{module!r}] = None; from supersimplenet.__main__ import main; sys.exit(main())"
    call = ["station", "add-token", "line-1", "--role", "operator", "--folder", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", code, *call], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"{module} is not installed" in done.stderr
    assert "pip install 'supersimplenet[serve]'" in done.stderr
