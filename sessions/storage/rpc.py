"""One node of an EVM chain, asked in JSON-RPC 2.0 over HTTP POST (Ethereum Execution APIs).

Every answer is bounded in size and checked in form here. A node's URL often holds an API key, so messages and log lines
name its host and port alone.
"""

import json
import re
from itertools import count
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientSession, ClientTimeout

from sessions.storage.anchor import ChainMisconfiguredError, ChainUnavailableError

MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
"""Largest body that is read, in bytes. A block with all its transaction hashes has about one mebibyte."""
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMETERS: Final = (METHOD_NOT_FOUND, -32602)
"""JSON-RPC 2.0: the node does not know the method, or not what it was asked for."""

_HTTP_ERROR: Final = 400
_COUNT_MAX: Final = 2**63 - 1
_QUANTITY: Final = re.compile(r"0x[0-9a-fA-F]{1,64}")
_DATA: Final = re.compile(r"0x(?:[0-9a-fA-F]{2})*")


class RpcError(ChainUnavailableError):
    """The node answered with an error."""

    def __init__(self, node: str, method: str, code: int, message: str) -> None:
        super().__init__(f"{node}: {method}: {message[:200]}")
        self.code, self.message = code, message


class Node:
    """One RPC endpoint."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        """Connects with the first call.

        Raises:
            ChainMisconfiguredError: the URL is none of HTTP(S).
        """
        try:
            parts = urlsplit(url)
            port, host = parts.port, parts.hostname
        except ValueError:
            parts, port, host = None, None, None
        if parts is None or parts.scheme not in ("http", "https") or not host:
            raise ChainMisconfiguredError("CHAIN_RPC_URLS", "each is an http:// or https:// URL")
        self.name = host if port is None else f"{host}:{port}"
        self.verified = False
        self._url, self._timeout = url, ClientTimeout(total=timeout_seconds)
        self._ids = count(1)
        self._http: ClientSession | None = None

    async def call(self, method: str, *parameters: object) -> Any:
        """Make a call and return its result. The next node is the retry.

        A JSON-RPC answer counts under any HTTP status: some nodes report their errors with 400, 429 or 500.

        Raises:
            RpcError: the node answers with an error.
            ChainUnavailableError: it does not answer in time, with too much, or not in JSON-RPC.
        """
        status, body = await self._post(method, parameters)
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if isinstance(answer, dict) and isinstance(refusal := answer.get("error"), dict):
            code = refusal.get("code")
            raise RpcError(self.name, method, code if isinstance(code, int) else 0, str(refusal.get("message", "")))
        if not isinstance(answer, dict) or "result" not in answer or answer.get("error") is not None:
            said = "not an answer in JSON-RPC" if status < _HTTP_ERROR else f"HTTP {status}"
            raise ChainUnavailableError(f"{self.name}: {method}: {said}")
        return answer["result"]

    async def _post(self, method: str, parameters: tuple[object, ...]) -> tuple[int, bytes]:
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": parameters}
        if self._http is None:
            # Asked for and read as it is: what is unpacked could be any size.
            self._http = ClientSession(auto_decompress=False, headers={"Accept-Encoding": "identity"})
        body = bytearray()
        try:
            async with self._http.post(self._url, json=request, timeout=self._timeout) as answer:
                async for part in answer.content.iter_any():
                    body += part
                    if len(body) > MAX_ANSWER_BYTES:
                        raise ChainUnavailableError(f"{self.name}: {method}: more than {MAX_ANSWER_BYTES} bytes")
        except (ClientError, TimeoutError, OSError, ValueError) as error:
            raise ChainUnavailableError(f"{self.name}: {method}: {type(error).__name__}") from None
        return answer.status, bytes(body)

    async def number(self, method: str, *parameters: object) -> int:
        """Make a call that answers with a quantity."""
        return self.quantity(await self.call(method, *parameters))

    async def count(self, method: str, *parameters: object) -> int:
        """Make a call that answers with a count; see `small`."""
        return self.small(await self.call(method, *parameters))

    async def data(self, method: str, *parameters: object) -> bytes:
        """Make a call that answers with bytes."""
        return self.octets(await self.call(method, *parameters))

    async def members(self, method: str, *parameters: object) -> dict[str, Any] | None:
        """Make a call that answers with an object, or with null."""
        answer = await self.call(method, *parameters)
        if answer is not None and not isinstance(answer, dict):
            raise ChainUnavailableError(f"{self.name}: {method}: not an object")
        return answer

    def quantity(self, value: object) -> int:
        """Read a quantity such as `0x1f` (Ethereum JSON-RPC, "Quantities").

        Raises:
            ChainUnavailableError: the node answers with something else, such as the JSON number 1326, which read as
                hex would be another number.
        """
        if not isinstance(value, str) or _QUANTITY.fullmatch(value) is None:
            raise ChainUnavailableError(f"{self.name}: answers with something that is not a quantity")
        return int(value, 16)

    def small(self, value: object) -> int:
        """Read a quantity that counts or numbers something: a block, a nonce (EIP-2681), seconds or gas.

        Raises:
            ChainUnavailableError: it is no quantity, or larger than what the database stores, which is 2^63-1.
        """
        number = self.quantity(value)
        if number > _COUNT_MAX:
            raise ChainUnavailableError(f"{self.name}: answers with a number that is absurd")
        return number

    def octets(self, value: object) -> bytes:
        """Read bytes such as `0x00ff` (Ethereum JSON-RPC, "Unformatted data").

        Raises:
            ChainUnavailableError: the node answers with something else.
        """
        if not isinstance(value, str) or _DATA.fullmatch(value) is None:
            raise ChainUnavailableError(f"{self.name}: answers with something that is not hex")
        return bytes.fromhex(value[2:])

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.close()
            self._http = None
