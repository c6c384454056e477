"""Both services of a stack, each reached directly and through HAProxy, and the words of a row there."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

import pytest

from scripts.devstack.replicas import balanced, wait_balanced
from scripts.devstack.stack import Stack
from tests.conformance.row import SERVICES, TARGETS, Service, Words, body
from tests.conformance.wire import Address, ask, converse
from tests.conftest import measured, own_stack

Door: TypeAlias = Literal["direct", "haproxy"]
_JSON: Final = b"\r\nContent-Type: application/json"
RECORDING: Final = b"0123456789" * 10


@dataclass
class Doors:
    """Addresses of both services, and a sealed session."""

    stack: Stack
    sealed: str = ""
    addresses: dict[tuple[Service, Door], Address] = field(default_factory=dict)

    def authorization(self, role: str) -> bytes:
        """Return the field that shows a token of this role."""
        return f"Authorization: Bearer {self.stack.tokens[role]}".encode()

    def paths(self, service: Service, name: str) -> list[str]:
        """Return the targets of PUT of a session; of session-storage, each is a session of its own."""
        if service == "processor":
            return [f"/api/v1/sessions/{name}/chunks/{number}" for number in range(TARGETS)]
        return [f"/api/v1/sessions/{name}-{number}" for number in range(TARGETS)]

    def words(self, service: Service) -> Words:
        """Return the words of a row, with a session that no other row uses."""
        writer, reader, other = (
            ("record", "replay", "audit") if service == "processor" else ("processor", "audit", "record")
        )
        paths = self.paths(service, f"conformance-{token_hex(8)}")
        read = f"/api/v1/sessions/{self.sealed}" + ("/content" if service == "processor" else "")
        words = {
            "HOST": "{}:{}".format(*self.addresses[service, "direct"]).encode(),
            "AUTH": self.authorization(writer) + (_JSON if service == "storage" else b""),
            "JSON": _JSON if service == "storage" else b"",
            "TOKEN": self.stack.tokens[writer].encode(),
            "READER": self.authorization(reader),
            "OTHER": self.authorization(other),
            "ADMIN": self.authorization("admin"),
            "SESSION": f"/api/v1/sessions/{self.sealed}".encode(),
            "READ": read.encode(),
            "AFTERAPI0": paths[0].removeprefix("/api").encode(),
            "ENCODED": paths[0][1:].replace("/", "%2F").encode(),
            "WRONG": base64.b64encode(hashlib.sha256(b"another").digest()),
        }
        for number, path in enumerate(paths):
            data = body(number)
            words |= {
                f"PATH{number}": path.encode(),
                f"BODY{number}": data,
                f"LEFT{number}": data[: len(data) // 2],
                f"DRIP{number}": b"".join(b"1\r\n%c\r\n" % byte for byte in data),
                f"RIGHT{number}": data[len(data) // 2 :],
            }
        words["SHA"] = base64.b64encode(hashlib.sha256(words["BODY0"]).digest())
        return Words(words)

    def check_stored(self, service: Service, words: Words, expected: list[bytes]) -> None:
        """Check that these bodies are stored at the first targets, byte for byte, and that nothing is at the next."""
        address = self.addresses[service, "direct"]
        role = "replay" if service == "processor" else "audit"
        for number in range(len(expected) + 1):
            path = words[f"@PATH{number}"].decode()
            answer = ask(address, path, self.authorization(role))
            if number == len(expected):
                assert answer.status == 404, f"{path} was refused, and is stored"
                return
            assert answer.status == 200, f"{path} was acknowledged, and is not stored"
            if service == "processor":
                assert answer.content == expected[number], f"{path}: other bytes are stored than were sent"
            else:
                stored = json.loads(answer.content)["metadata"]
                assert stored == json.loads(expected[number])["metadata"], f"{path}: other metadata than were sent"


@pytest.fixture(scope="session")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """A stack of their own: rows open sessions at session-storage under keys that nobody has."""
    with ExitStack() as ending:
        with measured():
            stack = ending.enter_context(contextmanager(own_stack)(tmp_path_factory))
        found = Doors(stack, f"sealed-{token_hex(6)}")
        for service in SERVICES:
            found.addresses[service, "direct"] = _address(getattr(stack, f"{service}_url"))
        _record(found)
        yield found


@pytest.fixture(scope="session")
def proxied(doors: Doors) -> Iterator[Doors]:
    """The same, with HAProxy before it."""
    ports = {service: [doors.addresses[service, "direct"][1]] * 2 for service in SERVICES}
    with balanced(doors.stack, ports["processor"], ports["storage"]) as balancer:
        assert wait_balanced(balancer)
        doors.addresses["processor", "haproxy"] = _address(balancer.processors)
        doors.addresses["storage", "haproxy"] = _address(balancer.storages)
        yield doors


def _address(url: str) -> Address:
    split = urlsplit(url)
    assert split.hostname is not None
    assert split.port is not None
    return split.hostname, split.port


def _record(doors: Doors) -> None:
    recorder = doors.authorization("record")
    for line, content in (("PUT {}/chunks/0", RECORDING), ("POST {}/seal", b'{"chunk_count":1}')):
        request = f"{line.format(f'/api/v1/sessions/{doors.sealed}')} HTTP/1.1\r\nHost: x\r\n".encode()
        request += recorder + _JSON + b"\r\nContent-Length: %d\r\n\r\n" % len(content) + content
        (answer,) = converse(doors.addresses["processor", "direct"], [request], 1)
        assert answer.status in (200, 201), answer
