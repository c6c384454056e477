import hashlib
import hmac
from pathlib import Path

import pytest
from fastapi import APIRouter, Depends

from sessions.runtime import auth
from sessions.runtime.auth import TOKEN_MAX_CHARACTERS, Authenticator, Principal, Role, allow, load_tokens, require
from sessions.runtime.errors import DomainError
from sessions.runtime.settings import ConfigurationError
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
        "Bearer  one",
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


def test_one_of_the_roles_is_enough() -> None:
    known = Authenticator([_entry("t", Role.AUDIT, Role.ADMIN)])
    assert require("Bearer t", known, (Role.ADMIN, Role.PROCESSOR)).name == "t"
    with pytest.raises(DomainError, match="the role record or replay") as caught:
        require("Bearer t", known, (Role.REPLAY, Role.RECORD))
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


_HEX = "ab" * 32


def _file(folder: Path, text: str) -> Path:
    path = folder / "tokens"
    path.write_text(text)
    return path


def test_a_tokens_file(tmp_path: Path) -> None:
    text = f"# who\nr-1 roles=record,replay sha256={_sha('one').hex()}\n\na.2 sha256={_HEX} roles=audit\n"
    known = load_tokens(_file(tmp_path, text))
    assert known.authenticate("Bearer one") == Principal("r-1", frozenset({Role.RECORD, Role.REPLAY}))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("name", "is not 'NAME roles"),
        (f"na/me roles=record sha256={_HEX}", "is not 'NAME roles"),
        (f"{'n' * 65} roles=record sha256={_HEX}", "is not 'NAME roles"),
        ("name roles=record", "is not 'NAME roles"),
        (f"name sha256={_HEX}", "is not 'NAME roles"),
        (f"name roles=record sha256={_HEX} more=1", "is not 'NAME roles"),
        (f"name roles=record roles=admin sha256={_HEX}", "is not 'NAME roles"),
        (f"name roles=root sha256={_HEX}", "the roles are record, replay, audit, admin, processor"),
        (f"name roles= sha256={_HEX}", "the roles are"),
        (f"name roles=record, sha256={_HEX}", "the roles are"),
        (f"name roles=record sha256={_HEX[:-1]}", "64 lower-case hex"),
        (f"name roles=record sha256={_HEX.upper()}", "64 lower-case hex"),
        ("name roles=record sha256=", "64 lower-case hex"),
    ],
)
def test_a_line_that_is_wrong(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^TOKENS_FILE: .* line 2.*{message}"):
        load_tokens(_file(tmp_path, f"# who\n{line}\n"))


@pytest.mark.parametrize("second", [f"one roles=audit sha256={'cd' * 32}", f"two roles=audit sha256={_HEX}"])
def test_a_name_or_hash_twice(tmp_path: Path, second: str) -> None:
    with pytest.raises(ConfigurationError, match="line 2: this name or hash is there twice"):
        load_tokens(_file(tmp_path, f"one roles=record sha256={_HEX}\n{second}\n"))
