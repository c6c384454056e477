"""Proxy variables of the environment: one that cannot be used is named, and never quoted."""

import pytest

from sessions.client.errors import ClientError
from sessions.client.retry import RetryPolicy
from sessions.client.rpc import JsonRpc
from sessions.client.transport import Transport

NAMES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _none_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks://user:secret@proxy:1080"),
        ("all_proxy", "socks5://user:secret@proxy:1080"),
        ("HTTP_PROXY", "ftp://user:secret@proxy"),
        ("https_proxy", "http://user:secret@proxy:port"),
        ("HTTPS_PROXY", "htps://user:secret@proxy:3128"),
        ("https_proxy", "ws://user:secret@proxy:3128"),
        ("http_proxy", "socks4://user:secret@proxy:1080"),
        ("all_proxy", "http://[::1:3128"),
        ("NO_PROXY", "secret,::1/128"),
        ("NO_PROXY", "secret,[::1]"),
        ("no_proxy", "secret,fd07::/64"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """B48: the error named no variable, and from the library it was no `ClientError`."""
    monkeypatch.setenv(name, value)
    for make in (
        lambda: Transport("the processor", "http://127.0.0.1:8085", None, RetryPolicy()),
        lambda: JsonRpc("http://127.0.0.1:8545"),
    ):
        with pytest.raises(ClientError) as caught:
            make()
        assert name in str(caught.value)
        assert name in caught.value.hint
        assert "secret" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(("name", "value"), [("HTTP_PROXY", "proxy:3128"), ("NO_PROXY", "127.0.0.1,localhost")])
def test_one_that_can_be_used_is_used(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    JsonRpc("http://127.0.0.1:8545").close()


def test_a_token_that_cannot_be_sent_is_no_fault_of_a_proxy() -> None:
    with pytest.raises(ClientError, match="the token holds characters"):
        Transport("the processor", "http://127.0.0.1:8085", "\u20ac", RetryPolicy())
