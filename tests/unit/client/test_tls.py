"""The client over TLS: whom it trusts."""

from pathlib import Path

import pytest

from sessions.client import AsyncClient
from sessions.client.errors import AnswerError, UnreachableError
from sessions.client.retry import RetryPolicy
from tests.certificates import Authority
from tests.unit.runtime.test_tls import served


async def test_it_trusts_the_authority_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    async with served(authority.issue("service.example")) as port:
        url, once = f"https://127.0.0.1:{port}", RetryPolicy(budget_seconds=0)
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        async with AsyncClient(url, token="t", retry=once) as client:
            with pytest.raises(UnreachableError, match="CERTIFICATE_VERIFY_FAILED"):
                await client.status("a")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        async with AsyncClient(url, token="t", retry=once) as client:
            with pytest.raises(AnswerError) as caught:  # this small service has no sessions
                await client.status("a")
            assert caught.value.status == 404
