"""Ways to change bytes and lists, and a node of a chain that answers for receipts."""

import dataclasses
from itertools import combinations

from sessions.core.receipt import ChainFacts


def bit_flips(data):
    """Every copy of the bytes with one bit changed."""
    for at in range(8 * len(data)):
        copy = bytearray(data)
        copy[at // 8] ^= 1 << at % 8
        yield bytes(copy)


def truncations(data):
    """Every beginning and every end of the bytes that is shorter."""
    for length in range(len(data)):
        yield data[:length]
        yield data[len(data) - length :]


def extensions(data):
    """The bytes with each possible byte before or after them, and doubled."""
    for number in range(256):
        yield data + bytes([number])
        yield bytes([number]) + data
    yield data + data


def block_swaps(data, size):
    """Every copy with two different blocks in each other's place."""
    blocks = [data[at : at + size] for at in range(0, len(data), size)]
    for one, other in combinations(range(len(blocks)), 2):
        if blocks[one] != blocks[other]:
            copy = list(blocks)
            copy[one], copy[other] = copy[other], copy[one]
            yield b"".join(copy)


def path_changes(path, foreign):
    """Every one-bit change, truncation, extension and swap of a path; `foreign` is a hash of another tree."""
    path = list(path)
    for at, node in enumerate(path):
        for flipped in bit_flips(node):
            yield [*path[:at], flipped, *path[at + 1 :]]
        yield [*path[:at], foreign, *path[at + 1 :]]
        yield path[:at]
        yield path[at + 1 :]
        yield [*path[:at], *path[at + 1 :]]
        yield [*path[:at], node[:-1], *path[at + 1 :]]
        yield [*path[:at], node + b"\0", *path[at + 1 :]]
        yield [*path[:at], node, *path[at:]]
    for at in range(len(path) + 1):
        yield [*path[:at], foreign, *path[at:]]
    for one, other in combinations(range(len(path)), 2):
        copy = list(path)
        copy[one], copy[other] = copy[other], copy[one]
        yield copy
    if len(path) > 1:
        yield path[::-1]


@dataclasses.dataclass
class Chain:
    """What one node knows: transactions by hash, blocks by number, and the contract's memory."""

    chain_id: int
    contract: bytes
    transactions: dict[bytes, tuple[bytes, bytes, bytes, int]] = dataclasses.field(default_factory=dict)
    blocks: dict[int, tuple[bytes, int]] = dataclasses.field(default_factory=dict)
    anchored: dict[tuple[bytes, bytes], int] = dataclasses.field(default_factory=dict)

    def include(self, transaction, publisher, root, block):
        number, block_hash, timestamp = block
        self.transactions[transaction] = (self.contract, publisher, root, number)
        self.blocks[number] = (block_hash, timestamp)
        self.anchored.setdefault((publisher, root), timestamp)

    def facts_for(self, receipt):
        """What an auditor reads from the node with nothing but the receipt in hand."""
        anchor = receipt.anchor
        contract, publisher, root, number = self.transactions.get(anchor.transaction, (None,) * 4)
        block_hash, timestamp = self.blocks.get(number, (None, None))
        genuine = anchor.contract == self.contract
        return ChainFacts(
            chain_id=self.chain_id,
            contract_is_genuine=genuine,
            anchored_at=self.anchored.get((anchor.publisher, receipt.batch and receipt.batch.root), 0)
            if genuine
            else 0,
            transaction_block=number,
            transaction_contract=contract,
            transaction_publisher=publisher,
            transaction_root=root,
            block_hash=block_hash,
            block_timestamp=timestamp,
        )
