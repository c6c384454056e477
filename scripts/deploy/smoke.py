"""One small recording through a deployment, as a recorder and an auditor would: nothing but HTTP and the core."""

import base64
import hashlib
import http.client
import json
import secrets
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sessions.core.envelope import fingerprint
from sessions.core.merkle import root
from sessions.core.types import SessionId

_TIMEOUT_SECONDS: Final = 60
_POLL_SECONDS: Final = 1.0
_CHUNKS: Final = (70_000, 0, 1)
_SHOWN_CHARACTERS: Final = 300

Tell = Callable[[str, str], None]


class SmokeError(Exception):
    """A step that did not give what it should."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body."""

    status: int
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The body as a JSON object."""
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass(frozen=True, slots=True)
class Service:
    """One of the two, at an address."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None

    def ask(self, method: str, path: str, token: str = "", body: bytes = b"", digest: bool = False) -> Answer:
        """Make a request.

        Raises:
            SmokeError: there is no answer.
        """
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if digest:
            headers["Content-Type"] = "application/octet-stream"
            headers["Content-Digest"] = f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"
        if self.tls is None:
            connection = http.client.HTTPConnection(self.host, self.port, timeout=_TIMEOUT_SECONDS)
        else:
            connection = http.client.HTTPSConnection(self.host, self.port, timeout=_TIMEOUT_SECONDS, context=self.tls)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.read())
        except (OSError, http.client.HTTPException) as error:
            raise SmokeError(
                f"http{'s' if self.tls else ''}://{self.host}:{self.port}{path} does not answer: {error}"
            ) from None
        finally:
            connection.close()

    def expect(self, status: int, method: str, path: str, token: str = "", **options: Any) -> Answer:
        """Make a request that must have this status.

        Raises:
            SmokeError: it has another.
        """
        answer = self.ask(method, path, token, **options)
        if answer.status != status:
            said = answer.body.decode(errors="replace")[:_SHOWN_CHARACTERS]
            raise SmokeError(f"{method} {path} gave {answer.status} instead of {status}: {said}")
        return answer


def read_tokens(folder: Path) -> dict[str, str]:
    """The tokens of people, by role.

    Raises:
        SmokeError: they are not there, or not for this user.
    """
    try:
        return {role: (folder / f"{role}-token").read_text().strip() for role in ("record", "replay", "audit", "admin")}
    except OSError as error:
        raise SmokeError(
            f"cannot read {error.filename}: {error.strerror}; run this as the user who ran init-secrets, or name the "
            "folder with the four tokens: --tokens DIR"
        ) from None


def run(processor: Service, storage: Service, tokens: dict[str, str], anchor_seconds: float, tell: Tell) -> None:
    """Record, seal, replay, verify, ask for the receipt, shred.

    Raises:
        SmokeError: a step did not give what it should.
    """
    name = f"deploy-check-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
    path = f"/api/v1/sessions/{name}"
    chunks = [secrets.token_bytes(size) for size in _CHUNKS]
    try:
        for index, chunk in enumerate(chunks):
            processor.expect(201, "PUT", f"{path}/chunks/{index}", tokens["record"], body=chunk, digest=True)
        tell("record", f"{len(chunks)} chunks of {name}")
        sealed = processor.expect(200, "POST", f"{path}/seal", tokens["record"], body=b"{}").json
        tell("seal", f"root {sealed['root'][:16]}…")
        if processor.expect(200, "GET", f"{path}/content", tokens["replay"]).body != b"".join(chunks):
            raise SmokeError("what is replayed differs from what was recorded")
        tell("replay", "identical, byte for byte")
        leaves = []
        for index in range(len(chunks)):
            envelope = storage.expect(200, "GET", f"{path}/chunks/{index}/envelope", tokens["audit"]).body
            leaves.append(fingerprint(SessionId(name), index, envelope).leaf_hash)
        if root(leaves).hex() != sealed["root"]:
            raise SmokeError("the root recomputed from the envelopes is not the sealed one")
        tell("verify", "root recomputed from the envelopes, without a key")
        tell("anchor", _anchor(storage, path, tokens["audit"], anchor_seconds))
    finally:
        # Whatever went wrong, nothing is left behind but the record that it was.
        processor.ask("POST", f"{path}/seal", tokens["record"], b"{}")
        shredded = processor.ask("DELETE", path, tokens["admin"])
    if shredded.status != http.client.OK:
        raise SmokeError(f"the session could not be shredded: {shredded.body.decode(errors='replace')}")
    processor.expect(410, "GET", f"{path}/content", tokens["replay"])
    tell("clean up", "shredded; its manifest and proofs remain")


def _anchor(storage: Service, path: str, token: str, seconds: float) -> str:
    until = time.monotonic() + seconds
    while True:
        anchor: dict[str, Any] = storage.expect(200, "GET", f"{path}/receipt", token).json["anchor"]
        if anchor["state"] == "confirmed":
            return f"confirmed in block {anchor['block_number']} of chain {anchor['chain_id']}"
        if time.monotonic() >= until:
            break
        time.sleep(_POLL_SECONDS)
    if seconds:
        raise SmokeError(f"the anchor is still {anchor['state']} after {seconds:.0f} seconds: see ANCHORING in .env")
    return f"{anchor['state']}; batches come every ANCHOR_INTERVAL_SECONDS (--wait-anchor SECONDS waits for it)"
