"""Recovery: the plaintext comes out as it went in, or it is said what is wrong."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessions.core.errors import VerificationError
from sessions.core.key_ring import KeyRing
from sessions.core.types import ChunkIndex, SessionId
from sessions.processor import crypt, recovery
from sessions.processor.keys import Dek, FileKeyWrapper
from sessions.processor.recovery import Recipient, RecoverableWrapper, RecoveryKey
from sessions.processor.restoring import EnvelopeFolder, Restored, restore
from sessions.runtime.errors import DomainError
from tests.unit.processor.recorded import Recorded, manifest_of, recorded

__all__ = ["recorded"]
PRIVATE, PUBLIC = recovery.generate()
WRAPPER = RecoverableWrapper(FileKeyWrapper({"k": bytes(32)}), Recipient(PUBLIC))
S = SessionId("s")


class _Envelopes:
    def __init__(self, envelopes: dict[int, bytes | None]) -> None:
        self._envelopes = envelopes

    def indexes(self) -> list[int]:
        return sorted(self._envelopes)

    def read(self, index: int) -> bytes | None:
        return self._envelopes[index]


def _restore(recorded: Recorded, envelopes: dict[int, bytes | None], **options) -> tuple[bytes, Restored]:
    out = bytearray()
    key = RecoveryKey(recorded.private.read_text())
    done = restore(recorded.ring, key, _Envelopes(envelopes), out.extend, **options)
    return bytes(out), done


def _all(recorded: Recorded) -> dict[int, bytes | None]:
    return {index: one.envelope for index, one in recorded.sealed.items()}


@given(st.lists(st.binary(max_size=200), max_size=6))
def test_what_is_sealed_comes_back(chunks: list[bytes]) -> None:
    dek = Dek.generate()
    sealed = {index: crypt.seal(dek, S, ChunkIndex(index), chunk, 3) for index, chunk in enumerate(chunks)}
    out = bytearray()
    done = restore(
        KeyRing(S, (WRAPPER.wrap(S, dek),)),
        RecoveryKey(PRIVATE),
        _Envelopes({index: one.envelope for index, one in sealed.items()}),
        out.extend,
        manifest=manifest_of(S, sealed, len(chunks)),
    )
    assert bytes(out) == b"".join(chunks)
    assert done == Restored(len(chunks), len(out), [], True)


def test_from_a_folder(recorded: Recorded) -> None:
    folder = EnvelopeFolder(recorded.envelopes)
    assert folder.indexes() == [0, 1, 2]
    seen: list[tuple[int, int]] = []
    out = bytearray()
    key = RecoveryKey(recorded.private.read_text())
    restore(recorded.ring, key, folder, out.extend, progress=lambda *at: seen.append(at))
    assert (bytes(out), seen) == (b"first second last", [(1, 3), (2, 3), (3, 3)])
    assert EnvelopeFolder(Path(recorded.envelopes / "none")).indexes() == []


def test_what_is_missing_or_corrupt(recorded: Recorded) -> None:
    whole = _all(recorded)
    damaged = bytearray(whole[1] or b"")
    damaged[-1] ^= 1
    cases = {
        "chunks-missing": [{0: whole[0], 2: whole[2]}, whole | {1: None}],
        "envelope-corrupt": [whole | {1: bytes(damaged)}, whole | {1: b"no envelope"}, whole | {1: whole[0]}],
    }
    for code, several in cases.items():
        for envelopes in several:
            with pytest.raises(DomainError) as caught:
                _restore(recorded, envelopes)
            assert caught.value.code == code
            out, done = _restore(recorded, envelopes, partial=True, manifest=recorded.manifest)
            assert (out, done) == (b"first last", Restored(2, 10, [[1, 1]], False))


def test_what_was_cut_off_is_seen_by_the_manifest(recorded: Recorded) -> None:
    envelopes = _all(recorded)
    del envelopes[2]
    assert _restore(recorded, envelopes)[0] == b"first second "
    with pytest.raises(DomainError, match="chunk 2 of session s is not there"):
        _restore(recorded, envelopes, manifest=recorded.manifest)
    with pytest.raises(VerificationError, match="another root"):
        _restore(recorded, _all(recorded), manifest=manifest_of(S, {0: recorded.sealed[0]}, 1))
    with pytest.raises(VerificationError):
        _restore(recorded, _all(recorded), manifest=replace(recorded.manifest, root=bytes(32)))


def test_a_session_that_was_sealed_with_gaps(recorded: Recorded) -> None:
    sealed = {index: one for index, one in recorded.sealed.items() if index != 1}
    manifest = manifest_of(S, sealed, 4)
    envelopes = {index: one.envelope for index, one in sealed.items()}
    with pytest.raises(DomainError, match="chunk 1 "):
        _restore(recorded, envelopes, manifest=manifest)
    out, done = _restore(recorded, envelopes, manifest=manifest, partial=True)
    assert (out, done) == (b"first last", Restored(2, 10, [[1, 1], [3, 3]], True))


def test_keys_that_do_not_open(recorded: Recorded) -> None:
    first, second = recorded.ring.keys
    for keys, reason in (((first,), "ring-corrupt"), ((first, replace(second, recovery=None)), "not-sealed")):
        recorded.ring = KeyRing(S, keys)
        with pytest.raises(DomainError) as caught:
            _restore(recorded, _all(recorded))
        assert (caught.value.code, caught.value.members["reason"]) == ("key-unavailable", reason)
        out, done = _restore(recorded, _all(recorded), partial=True)
        assert (out, done.lost) == (b"first second ", [[2, 2]])
    recorded.ring = KeyRing(S, ())
    with pytest.raises(DomainError, match="has no key"):
        _restore(recorded, _all(recorded), partial=True)


def test_no_chunk_at_all(recorded: Recorded) -> None:
    assert _restore(recorded, {}) == (b"", Restored(0, 0, [], False))
