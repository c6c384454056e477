import base64
import hmac
import os
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from sessions.core.key_ring import WrappedDek
from sessions.core.types import DekId, SessionId
from sessions.processor import recovery
from sessions.processor.key_files import load_keks, load_recipient
from sessions.processor.key_rings import OpenRing
from sessions.processor.keys import Dek, FileKeyWrapper, check_value
from sessions.runtime.errors import DomainError
from sessions.runtime.settings import ConfigurationError
from tests import strategies

A = SessionId("a")
_KEY = bytes(range(32))
_deks = st.builds(Dek, st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32))


@given(strategies.session_ids, _deks)
def test_what_is_wrapped_is_unwrapped(session: SessionId, dek: Dek) -> None:
    wrapper = FileKeyWrapper({"k": _KEY})
    wrapped = wrapper.wrap(session, dek)
    assert (wrapped.dek_id, wrapped.kek_id, len(wrapped.wrapped)) == (dek.dek_id, "k", 1 + 8 + 12 + 32 + 16)
    assert dek.key not in wrapped.wrapped
    assert wrapper.unwrap(session, wrapped) == dek
    assert wrapper.wrap(session, dek).wrapped != wrapped.wrapped


def test_the_first_kek_wraps_and_all_unwrap() -> None:
    old = FileKeyWrapper({"old": _KEY})
    dek = Dek.generate()
    wrapped = old.wrap(A, dek)
    rotated = FileKeyWrapper({"new": os.urandom(32), "old": _KEY})
    assert rotated.unwrap(A, wrapped) == dek
    assert rotated.wrap(A, dek).kek_id == rotated.active_id == "new"
    assert rotated.kek_ids == ("new", "old")


_V1_BYTES, _V2_BYTES = 61, 69


def _refused(wrapper: FileKeyWrapper, session: SessionId, wrapped: WrappedDek) -> DomainError:
    with pytest.raises(DomainError) as caught:
        wrapper.unwrap(session, wrapped)
    assert caught.value.code == "key-unavailable"
    assert caught.value.members["session_id"] == session
    return caught.value


def test_what_does_not_unwrap() -> None:
    wrapper = FileKeyWrapper({"k": _KEY})
    wrapped = wrapper.wrap(A, Dek.generate())
    assert len(wrapped.wrapped) == _V2_BYTES
    corrupt = [
        (SessionId("b"), wrapped),
        (A, replace(wrapped, dek_id=DekId(os.urandom(16)))),
        (A, replace(wrapped, wrapped=b"\x01" + wrapped.wrapped[1:])),
        (A, replace(wrapped, wrapped=b"\x03" + wrapped.wrapped[1:])),
        *((A, replace(wrapped, wrapped=wrapped.wrapped[:size])) for size in range(len(wrapped.wrapped))),
        *((A, replace(wrapped, wrapped=_flipped(wrapped.wrapped, at))) for at in (0, *range(9, _V2_BYTES))),
    ]
    for session, one in corrupt:
        refused = _refused(wrapper, session, one)
        assert refused.members["reason"] == "ring-corrupt"
        assert "corrupt key ring" in refused.detail


def _flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def test_a_missing_kek_another_kek_and_a_corrupt_ring_are_told_apart() -> None:
    wrapper = FileKeyWrapper({"k": _KEY})
    wrapped = wrapper.wrap(A, Dek.generate())
    missing = _refused(wrapper, A, replace(wrapped, kek_id="gone"))
    assert missing.members == {"session_id": A, "kek_id": "gone", "reason": "kek-missing"}
    assert "'gone', which is not in KEK_FILE" in missing.detail
    other = _refused(FileKeyWrapper({"k": os.urandom(32)}), A, wrapped)
    assert other.members == {"session_id": A, "kek_id": "k", "reason": "kek-differs"}
    assert "the KEK named 'k' in KEK_FILE is another key than the one that wrapped this" in other.detail


def test_a_check_value_explains_and_decides_nothing() -> None:
    wrapper = FileKeyWrapper({"k": _KEY})
    dek = Dek.generate()
    wrapped = wrapper.wrap(A, dek)
    assert wrapped.wrapped[1:9] == check_value(_KEY) == hmac.new(_KEY, b"lucid/kek-check/v1", "sha256").digest()[:8]
    for at in range(1, 9):
        assert wrapper.unwrap(A, replace(wrapped, wrapped=_flipped(wrapped.wrapped, at))) == dek


def test_rings_of_before_the_check_value_are_read() -> None:
    wrapper = FileKeyWrapper({"k": _KEY})
    dek = Dek.generate()
    sealed = AESGCM(_KEY).encrypt(b"n" * 12, dek.key, b"\x01" + b"a" + dek.dek_id)
    old = WrappedDek(dek.dek_id, "k", b"\x01" + b"n" * 12 + sealed)
    assert len(old.wrapped) == _V1_BYTES
    assert wrapper.unwrap(A, old) == dek
    for at in range(1, _V1_BYTES):
        refused = _refused(wrapper, A, replace(old, wrapped=_flipped(old.wrapped, at)))
        assert refused.members["reason"] == "kek-or-ring"
    assert "too old to tell" in _refused(FileKeyWrapper({"k": os.urandom(32)}), A, old).detail


def test_an_id_cannot_be_shifted_into_the_session() -> None:
    wrapper = FileKeyWrapper({"k": _KEY})
    dek = Dek(DekId(b"b" * 16), _KEY)
    wrapped = wrapper.wrap(SessionId("a"), dek)
    _refused(wrapper, SessionId("ab"), replace(wrapped, dek_id=DekId(b"b" * 15)))


def test_no_repr_shows_a_key() -> None:
    dek = Dek.generate()
    wrapped = FileKeyWrapper({"k": _KEY}).wrap(A, dek)
    text = repr(dek) + repr(wrapped) + repr(OpenRing({dek.dek_id: dek}, wrapped)) + repr(FileKeyWrapper({"k": _KEY}))
    for secret in (dek.key, wrapped.wrapped, _KEY):
        assert repr(secret)[2:-1] not in text
        assert secret.hex() not in text


def _line(name: str, key: bytes = _KEY) -> str:
    return f"{name}:{base64.b64encode(key).decode()}"


def test_a_kek_file(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    path.write_text(f"# keys\n\n{_line('A.b_c-9')}\n{_line('old', bytes(32))}\n")
    wrapper = load_keks(path)
    assert wrapper.active_id == "A.b_c-9"
    dek = Dek.generate()
    assert FileKeyWrapper({"A.b_c-9": _KEY}).unwrap(A, wrapper.wrap(A, dek)) == dek
    assert wrapper.unwrap(A, FileKeyWrapper({"old": bytes(32)}).wrap(A, dek)) == dek


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("key", "line 2 is not 'ID:BASE64'"),
        (_line(""), "line 2 is not"),
        (_line("a b"), "line 2 is not"),
        (_line("x" * 65), "line 2 is not"),
        ("k:secret!", "line 2: the key is not base64"),
        ("k:c2VjcmV0é", "line 2: the key is not base64"),
        ("k:c2Vjcm", "line 2: the key is not base64"),
        ("k:", "a key has 32 bytes, not 0"),
        (_line("k", bytes(31)), "a key has 32 bytes, not 31"),
        (_line("k", bytes(33)), "a key has 32 bytes, not 33"),
        (_line("first"), "line 2: the id first is there twice"),
    ],
)
def test_a_kek_file_that_is_wrong(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "kek"
    path.write_text(f"{_line('first', bytes(32))}\n{line}\n")
    with pytest.raises(ConfigurationError) as caught:
        load_keks(path)
    assert str(caught.value).startswith("KEK_FILE: ")
    assert message in str(caught.value)
    secret = line.partition(":")[2]
    assert not secret or secret not in str(caught.value)


def test_no_kek_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="KEK_FILE: cannot read"):
        load_keks(tmp_path / "none")


def test_the_recipients_file(tmp_path: Path) -> None:
    private, public = recovery.generate()
    path = tmp_path / "recovery"
    assert load_recipient(None) is None
    path.write_text(public + "\n")
    assert load_recipient(path).recipient_id == recovery.Recipient(public).recipient_id
    for content in (private, "nonsense", public + "\n" + public):
        path.write_text(content)
        with pytest.raises(ConfigurationError, match=r"^RECOVERY_PUBLIC_KEY_FILE: ") as caught:
            load_recipient(path)
        assert private.partition(":")[2] not in str(caught.value)
