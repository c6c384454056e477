import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from fastapi import APIRouter, Depends, Request

from sessions.runtime import auth
from sessions.runtime.auth import TOKEN_MAX_CHARACTERS, Authenticator, Principal, Role, allow, require
from sessions.runtime.errors import DomainError
from sessions.runtime.middleware import WHEN_ANSWERED
from tests.unit.runtime.apps import app_of, client_of


def _sha(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _entry(token: str, *roles: Role) -> tuple[bytes, Principal]:
    return _sha(token), Principal(token, frozenset(roles))


def test_a_known_token_is_its_holders() -> None:
    known = Authenticator([_entry("one", Role.RECORD), _entry("two", Role.AUDIT)])
    for header in ("Bearer two", "bearer two", "BEARER two"):
        assert known.authenticate(header).name == "two"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic one",
        "one",
        "Bearer three",
        "Bearer one ",
        "Bearer " + "x" * (TOKEN_MAX_CHARACTERS + 1),
        "Bearer \udcff\xe9",
    ],
)
def test_whatever_is_wrong_the_code_is_one(header: str | None) -> None:
    with pytest.raises(DomainError) as caught:
        Authenticator([_entry("one", Role.RECORD)]).authenticate(header)
    assert caught.value.code == "unauthorized"


@pytest.mark.parametrize("token", ["t0", "t7", "none"])
def test_all_entries_are_compared(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    compared: list[bytes] = []

    class Counting:
        @staticmethod
        def compare_digest(known: bytes, digest: bytes) -> bool:
            compared.append(known)
            return hmac.compare_digest(known, digest)

    entries = [_entry(f"t{number}", Role.RECORD) for number in range(8)]
    monkeypatch.setattr(auth, "hmac", Counting)
    try:
        Authenticator(entries).authenticate(f"Bearer {token}")
    except DomainError:
        assert token == "none"
    assert compared == [known for known, _ in entries]


def _request(token: str, **path_params: str) -> Request:
    return Request(
        {
            "type": "http",
            "headers": [(b"authorization", f"Bearer {token}".encode())],
            "path_params": path_params,
            WHEN_ANSWERED: [],
        }
    )


def test_one_of_the_roles_is_enough() -> None:
    known = Authenticator([_entry("t", Role.AUDIT, Role.ADMIN)])
    assert require(_request("t"), known, (Role.ADMIN, Role.PROCESSOR)).name == "t"
    with pytest.raises(DomainError, match="the role record or replay") as caught:
        require(_request("t"), known, (Role.REPLAY, Role.RECORD))
    assert caught.value.code == "forbidden"


async def test_the_dependency_and_its_answers() -> None:
    routes = APIRouter()

    @routes.get("/api/v1/x", dependencies=[Depends(allow(Role.AUDIT))])
    async def x() -> str:
        return "seen"

    known = Authenticator([_entry("a", Role.AUDIT), _entry("r", Role.RECORD)])
    async with client_of(app_of(routes, authenticator=known)) as client:
        assert (await client.get("/api/v1/x", headers={"authorization": "Bearer a"})).status_code == 200
        forbidden = await client.get("/api/v1/x", headers={"authorization": "Bearer r"})
        assert (forbidden.status_code, forbidden.json()["code"]) == (403, "forbidden")
        unauthorized = await client.get("/api/v1/x")
        assert (unauthorized.status_code, unauthorized.json()["code"]) == (401, "unauthorized")
        assert unauthorized.headers["www-authenticate"].startswith("Bearer ")
        assert "www-authenticate" not in forbidden.headers


def test_a_token_expires_and_only_its_holder_is_told() -> None:
    now = datetime.now(UTC)
    past, future = (now + timedelta(seconds=seconds) for seconds in (-1, 60))
    known = Authenticator(
        [
            (_sha("old"), Principal("old", frozenset({Role.AUDIT}), expires=past)),
            (_sha("new"), Principal("new", frozenset({Role.AUDIT}), expires=future)),
        ]
    )
    assert known.authenticate("Bearer new").name == "new"
    for token, detail in (("old", "has expired"), ("old2", "is not known here")):
        with pytest.raises(DomainError, match=detail) as caught:
            known.authenticate(f"Bearer {token}")
        assert caught.value.code == "unauthorized"


def _restricted() -> Authenticator:
    return Authenticator([(_sha("d"), Principal("d", frozenset({Role.AUDIT, Role.PROCESSOR}), sessions="desk-17-"))])


@pytest.mark.parametrize("name", ["desk-17-", "desk-17-x"])
def test_a_token_for_some_sessions_is_good_for_them(name: str) -> None:
    assert require(_request("d", session_id=name), _restricted(), (Role.AUDIT,)).name == "d"


@pytest.mark.parametrize("path", [{"session_id": "desk-17"}, {"session_id": "desk-18-x"}, {"root": "desk-17-"}, {}])
@pytest.mark.parametrize("role", [Role.AUDIT, Role.PROCESSOR])
def test_and_for_no_other_and_no_list(path: dict[str, str], role: Role) -> None:
    with pytest.raises(DomainError, match="whose ids begin with desk-17-") as caught:
        require(_request("d", **path), _restricted(), (role,))
    assert caught.value.code == "forbidden"


def test_a_session_in_a_body_is_the_callers_to_check() -> None:
    principal = require(_request("d"), _restricted(), (Role.AUDIT,), session_in_body=True)
    principal.require_session("desk-17-x")
    with pytest.raises(DomainError, match="begin with"):
        principal.require_session("desk-1")
    Principal("all", frozenset()).require_session(None)
