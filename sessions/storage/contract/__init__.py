"""The contract LucidAnchors: source, compiled artefact, and how it gets onto a chain."""

import json
from functools import cache
from importlib import resources
from typing import Any


@cache
def artefact() -> dict[str, Any]:
    """The compiled contract as `build.mjs` wrote it: abi, bytecode, deployedBytecode, compiler, settings."""
    text = resources.files(__name__).joinpath("LucidAnchors.json").read_text("utf-8")
    members: dict[str, Any] = json.loads(text)
    return members
