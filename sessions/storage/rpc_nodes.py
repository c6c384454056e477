"""The nodes of CHAIN_RPC_URLS, tried in turn."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import structlog

from sessions.storage.anchor import ChainMisconfiguredError, ChainUnavailableError, HistoryLostError, UnderpricedError
from sessions.storage.rpc import Node

T = TypeVar("T")
_TELLING: Final = (HistoryLostError, UnderpricedError)
"""Failures that say more than that a node is away: one node's is the answer when no node has a better one."""
_log = structlog.get_logger()


class Nodes:
    """Asks one node after another; the one that answered last is asked first."""

    def __init__(self, urls: Sequence[str], timeout_seconds: float, verify: Callable[[Node], Awaitable[None]]) -> None:
        """`verify` is asked before a node's first use.

        Raises:
            ChainMisconfiguredError: a URL is none.
        """
        if not urls:
            raise ChainMisconfiguredError("CHAIN_RPC_URLS", "names no node")
        self._nodes = [Node(url, timeout_seconds) for url in urls]
        self._verify = verify

    @property
    def names(self) -> list[str]:
        """In the order in which they are asked."""
        return [node.name for node in self._nodes]

    async def close(self) -> None:
        """Close all connections."""
        for node in self._nodes:
            await node.close()

    async def check(self) -> None:
        """Verify all nodes that answer.

        Raises:
            ChainMisconfiguredError: one is not what it should be.
            ChainUnavailableError: none answers.
        """
        reasons = []
        for node in self._nodes:
            try:
                await self._admit(node)
            except ChainUnavailableError as error:
                reasons.append(str(error))
        if len(reasons) == len(self._nodes):
            raise ChainUnavailableError("; ".join(reasons))

    async def ask(self, question: Callable[[Node], Awaitable[T]]) -> T:
        """Put a question, of one or more calls, to one node after another until one answers it.

        Raises:
            ChainMisconfiguredError: none does, and one is not what it should be; or the question raises it.
            HistoryLostError, UnderpricedError: none does, and one raises it.
            ChainUnavailableError: none answers.
        """
        failures: list[ChainUnavailableError] = []
        wrong: ChainMisconfiguredError | None = None
        for node in list(self._nodes):
            try:
                await self._admit(node)
            except ChainUnavailableError as error:
                failures.append(error)
                continue
            except ChainMisconfiguredError as error:
                _log.warning("chain_node_wrong", node=node.name, reason=str(error))
                wrong = error
                continue
            try:
                answer = await question(node)
            except ChainUnavailableError as error:
                failures.append(error)
            else:
                self._nodes.remove(node)
                self._nodes.insert(0, node)
                return answer
        if wrong is not None:
            raise wrong
        kinds = (kind for kind in _TELLING if any(isinstance(failure, kind) for failure in failures))
        raise next(kinds, ChainUnavailableError)("; ".join(map(str, failures)))

    async def _admit(self, node: Node) -> None:
        if not node.verified:
            await self._verify(node)
            node.verified = True
