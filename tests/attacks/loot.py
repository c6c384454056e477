"""What a thief does with what he carries off: looks for secrets in files and in memory, and tries all as keys."""

import base64
import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from scripts.devstack.stack import Stack
from sessions.core import envelope as envelopes
from sessions.core.types import SessionId
from sessions.processor.keys import FileKeyWrapper
from sessions.storage.key_documents import key_of

KEY_BYTES = 32
_BLOCK_BYTES = 1024 * 1024
_NOTHING = bytes(2 * _BLOCK_BYTES)
_OVERLAP_BYTES = 512


def spellings(secret: bytes) -> set[bytes]:
    """A secret as bytes, in hex, and in base64 wherever in a group of three bytes it begins."""
    found = {secret, secret.hex().encode(), secret.hex().upper().encode()}
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + secret)
        inner = encoded[4 if shift else 0 : len(encoded) // 4 * 4 - 4]
        found |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return found


def marked(secret: bytes) -> bytes:
    """A chunk that has the secret in it as bytes, in hex and in base64."""
    return b"raw " + secret + b" hex " + secret.hex().encode() + b" base64 " + base64.b64encode(secret) + b" end"


def file_blocks(*folders: Path) -> Iterator[bytes]:
    """All bytes of all files, in blocks that overlap."""
    for folder in folders:
        for path in [folder] if folder.is_file() else sorted(folder.rglob("*")):
            # MongoDB takes files away while we look.
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    with path.open("rb") as file:
                        tail = b""
                        while block := file.read(_BLOCK_BYTES):
                            yield tail + block
                            tail = block[-_OVERLAP_BYTES:]


def memory_blocks(pid: int) -> Iterator[bytes]:
    """All that a process has in memory and may read itself; see proc(5)."""
    descriptor = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    try:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, permissions, *others = line.split()
            if not permissions.startswith("r") or others[-1] in ("[vvar]", "[vsyscall]", "[vvar_vclock]"):
                continue
            at, end = (int(edge, 16) for edge in span.split("-"))
            tail = b""
            while at < end:
                try:
                    block = os.pread(descriptor, min(_BLOCK_BYTES, end - at), at)
                except OSError:  # it was unmapped meanwhile, or is a device's
                    break
                if not block:
                    break
                yield tail + block
                tail, at = block[-_OVERLAP_BYTES:], at + len(block)
    finally:
        os.close(descriptor)


def found(secrets: Mapping[str, bytes], blocks: Iterable[bytes]) -> set[str]:
    """The names of the secrets that are there, in any spelling."""
    patterns = [(name, word) for name, secret in secrets.items() for word in spellings(secret)]
    names: set[str] = set()
    for block in blocks:
        if block == _NOTHING[: len(block)]:  # a journal that is not written yet, and much of a memory
            continue
        names |= {name for name, word in patterns if name not in names and word in block}
    return names


def wrapper(stack: Stack) -> FileKeyWrapper:
    """What the KEK file opens."""
    return FileKeyWrapper({"stack-1": kek(stack)})


def kek(stack: Stack) -> bytes:
    """The KEK of a stack."""
    name, _, key = (stack.folder / "secrets" / "kek").read_text().strip().partition(":")
    assert name == "stack-1"
    return base64.b64decode(key)


def dek(stack: Stack, document: Mapping[str, Any]) -> bytes:
    """The key of a session, out of its document in the database and the KEK file."""
    (key,) = document["keys"]
    return wrapper(stack).unwrap(SessionId(document["_id"]), key_of(key)).key


def candidates(value: Any) -> Iterator[bytes]:
    """All that could be a key in a document: each 32 bytes of each field, or what 64 hex digits or base64 stand for."""
    if isinstance(value, Mapping):
        for one in value.values():
            yield from candidates(one)
    elif isinstance(value, list):
        for one in value:
            yield from candidates(one)
    elif isinstance(value, bytes):
        for at in range(len(value) - KEY_BYTES + 1):
            yield bytes(value[at : at + KEY_BYTES])
    elif isinstance(value, str):
        for decode in (bytes.fromhex, base64.b64decode):
            with contextlib.suppress(ValueError):
                yield from candidates(decode(value))


def opens(key: bytes, envelope: bytes) -> bool:
    """Whether a key opens an envelope."""
    parsed = envelopes.parse(envelope)
    try:
        AESGCM(key).decrypt(parsed.header.nonce, parsed.sealed, parsed.aad)
    except InvalidTag:
        return False
    return True
