"""What chunk-processor answers to a seal."""

from dataclasses import dataclass

from sessions.client.answers import AnswerFormatError, hash_of, known_members, strings, unheard
from sessions.core import manifest as manifests
from sessions.core.manifest import Manifest
from sessions.core.types import Hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """A sealed session: its manifest (whose hash was checked) and root.

    `unheard` are processors that the seal did not wait for, since they were lost: it may lack chunks that these hold.
    """

    manifest: Manifest
    manifest_sha256: Hash
    root: Hash
    unheard: tuple[str, ...] = ()


def seal(value: object) -> Seal:
    """Read the answer to a seal, and check that hash and root are those of the manifest.

    Raises:
        FormatError: it is not such an answer.
    """
    read = known_members("seal answer", value, (name for name in Seal.__dataclass_fields__ if name != "unheard"))
    manifest = manifests.from_json(read.value("manifest"))
    answer = Seal(
        manifest=manifest,
        manifest_sha256=hash_of(read, "manifest_sha256"),
        root=hash_of(read, "root"),
        unheard=unheard(read, value),
    )
    if (answer.manifest_sha256, answer.root) != (manifest.sha256(), manifest.root):
        raise AnswerFormatError("the seal answer's hash or root is not that of its manifest")
    return answer


def waiting_for(value: object) -> tuple[str, ...]:
    """Read the names of the processors that a kept seal waits for; an older service does not say them.

    Raises:
        FormatError: it is not such an answer.
    """
    read = known_members("kept seal", value, ())
    return strings(read, "waiting_for", value.get("waiting_for", []) if isinstance(value, dict) else [])
