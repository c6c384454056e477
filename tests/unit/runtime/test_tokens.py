"""The tokens file: what its lines may say."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sessions.runtime.auth import Principal, Role
from sessions.runtime.settings import ConfigurationError
from sessions.runtime.tokens import load_tokens


def _sha(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


_HEX = "ab" * 32


def _file(folder: Path, text: str) -> Path:
    path = folder / "tokens"
    path.write_text(text)
    return path


def test_a_tokens_file(tmp_path: Path) -> None:
    text = f"# who\nr-1 roles=record,replay sha256={_sha('one').hex()}\n\na.2 sha256={_HEX} roles=audit\n"
    (digest, principal), _ = load_tokens(_file(tmp_path, text))
    assert (digest, principal) == (_sha("one"), Principal("r-1", frozenset({Role.RECORD, Role.REPLAY})))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2027-01-31T00:00:00Z", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T01:30:00.5+01:30", datetime(2027, 1, 31, 0, 0, 0, 500_000, tzinfo=UTC)),
        ("2020-01-31T00:00:00Z", datetime(2020, 1, 31, tzinfo=UTC)),
    ],
)
def test_what_a_token_is_limited_to(tmp_path: Path, text: str, moment: datetime) -> None:
    line = f"d expires={text} roles=record sha256={_HEX} sessions=desk-17."
    ((_, principal),) = load_tokens(_file(tmp_path, line))
    assert principal == Principal("d", frozenset({Role.RECORD}), "desk-17.", moment)


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
        *(
            (f"name roles=record sha256={_HEX} {field}", "is not 'NAME roles")
            for field in ("a", "sessions=a sessions=a")
        ),
        *(
            (f"name roles=record sha256={_HEX} sessions={prefix}", "sessions is what session ids begin with")
            for prefix in ("", "-a", "a/b", "a*", "a" * 129)
        ),
        *(
            (f"name roles=record sha256={_HEX} expires={time}", "expires is a time as RFC 3339 writes it")
            for time in (
                *("", "tomorrow", "2027-01-31", "2027-01-31T00:00:00", "2027-01-31T00:00Z", "20270131T000000Z"),
                *("2027-02-30T00:00:00Z", "2027-01-31T24:00:01Z", "0001-01-01T00:00:00+23:59", "2027-W01-1T00:00:00Z"),
            )
        ),
    ],
)
def test_a_line_that_is_wrong(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^TOKENS_FILE: .* line 2.*{message}"):
        load_tokens(_file(tmp_path, f"# who\n{line}\n"))


@pytest.mark.parametrize("second", [f"one roles=audit sha256={'cd' * 32}", f"two roles=audit sha256={_HEX}"])
def test_a_name_or_hash_twice(tmp_path: Path, second: str) -> None:
    with pytest.raises(ConfigurationError, match="line 2: this name or hash is there twice"):
        load_tokens(_file(tmp_path, f"one roles=record sha256={_HEX}\n{second}\n"))
