"""How collections of MongoDB are created; it can be told then alone."""

from collections.abc import Mapping
from typing import Any, Final

OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    # Ciphertext does not shrink.
    "bodies": {"storageEngine": {"wiredTiger": {"configString": "block_compressor=none"}}},
}
"""By collection; others have none."""
