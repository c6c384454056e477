"""scripts/deploy-check against services that speak TLS."""

import argparse
import asyncio
from pathlib import Path
from typing import Any

import pytest

from scripts.deploy import check
from scripts.deploy.smoke import Service, SmokeError
from tests.certificates import Authority
from tests.unit.runtime.test_tls import served


def _options(**values: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"host": None, "ca": None, "cert": None, "key": None, **values})


def _config(bound: str, **environment: str) -> dict[str, Any]:
    service = {"ports": [{"host_ip": bound}], "environment": environment}
    return {"services": {"chunk-processor": service, "session-storage": service}}


def test_without_tls() -> None:
    for bound, host in (("0.0.0.0", "127.0.0.1"), ("192.0.2.1", "192.0.2.1")):
        found = check.reached(_config(bound, TLS_CERT_FILE=""), _options())
        assert found == {"chunk-processor": Service(host, 8085), "session-storage": Service(host, 8086)}


async def test_health_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair, shown = authority.issue("service.example"), authority.issue("operator")
    options = _options(host="127.0.0.1", ca=authority.file, cert=shown.cert, key=shown.key)
    one = check.reached(_config("192.0.2.1", TLS_CERT_FILE="x"), options)["chunk-processor"]
    strange = check.reached(_config("127.0.0.1", TLS_CERT_FILE="x"), _options())["session-storage"]
    async with served(pair, authority.file) as port:
        answer = await asyncio.to_thread(Service(one.host, port, one.tls).ask, "GET", "/health")
        assert (answer.status, answer.json["status"]) == (200, "ok")
        with pytest.raises(SmokeError, match=r"^https://127.0.0.1:.*CERTIFICATE_VERIFY_FAILED"):
            await asyncio.to_thread(Service(strange.host, port, strange.tls).ask, "GET", "/health")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        check.reached(_config("127.0.0.1", TLS_CERT_FILE="x"), _options(ca=tmp_path / "none"))
