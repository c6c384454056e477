"""One node of an EVM chain, spoken to in plain JSON-RPC (Ethereum Execution APIs) through web3's HTTP provider.

Plain, because web3's richer calls refuse blocks of proof-of-authority chains, and because what a node answers is
checked here once. A node's URL often holds an API key, so no message and no log line has more of it than the host.
"""

import logging
import re
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientResponseError, ClientTimeout
from web3 import AsyncHTTPProvider
from web3.exceptions import Web3Exception
from web3.types import RPCEndpoint

from sessions.storage.anchor import ChainMisconfiguredError, ChainUnavailableError

METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMETERS: Final = (METHOD_NOT_FOUND, -32602)
"""JSON-RPC 2.0: the node does not know the method, or not what it was asked for."""

_QUANTITY: Final = re.compile(r"0x[0-9a-fA-F]{1,64}")
_DATA: Final = re.compile(r"0x(?:[0-9a-fA-F]{2})*")

logging.getLogger("web3").setLevel(logging.WARNING)  # at DEBUG it logs URLs, and with them API keys


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
        self._provider = AsyncHTTPProvider(
            url,
            request_kwargs={"timeout": ClientTimeout(total=timeout_seconds)},
            exception_retry_configuration=None,  # the next node is the retry
        )

    async def call(self, method: str, *parameters: object) -> Any:
        """Make a call.

        Raises:
            RpcError: the node answers with an error.
            ChainUnavailableError: it does not answer, or not in JSON-RPC.
        """
        try:
            answer: Any = await self._provider.make_request(RPCEndpoint(method), parameters)
        except ClientResponseError as error:
            raise ChainUnavailableError(f"{self.name}: {method}: HTTP {error.status}") from None
        except (ClientError, TimeoutError, OSError, Web3Exception, ValueError) as error:
            raise ChainUnavailableError(f"{self.name}: {method}: {type(error).__name__}") from None
        if isinstance(answer, dict) and isinstance(refusal := answer.get("error"), dict):
            code = refusal.get("code")
            raise RpcError(self.name, method, code if isinstance(code, int) else 0, str(refusal.get("message", "")))
        if not isinstance(answer, dict) or "result" not in answer:
            raise ChainUnavailableError(f"{self.name}: {method}: not an answer in JSON-RPC")
        return answer["result"]

    async def number(self, method: str, *parameters: object) -> int:
        """Make a call that answers with a quantity."""
        return self.quantity(await self.call(method, *parameters))

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
        await self._provider.disconnect()
