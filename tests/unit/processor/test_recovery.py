"""The recovery recipient's key pair: both halves, as files hold them."""

import pytest
from cryptography.exceptions import InvalidTag

from sessions.processor import recovery
from sessions.processor.recovery import PRIVATE_KIND, PUBLIC_KIND, RecoveryKeyError


def test_what_is_sealed_to_the_public_half_the_private_half_opens():
    private, public = recovery.generate()
    sealed = recovery.SUITE.encrypt(b"a key", recovery.public_key(public), info=b"of session-1")
    assert recovery.SUITE.decrypt(sealed, recovery.private_key(private + "\n"), info=b"of session-1") == b"a key"
    with pytest.raises(InvalidTag):
        recovery.SUITE.decrypt(sealed, recovery.private_key(private), info=b"of session-2")
    other, _ = recovery.generate()
    with pytest.raises(InvalidTag):
        recovery.SUITE.decrypt(sealed, recovery.private_key(other), info=b"of session-1")


@pytest.mark.parametrize("line", ["", "no key", f"{PUBLIC_KIND}:", f"{PUBLIC_KIND}:!", f"{PUBLIC_KIND}:AAAA"])
def test_what_is_no_key_is_refused_without_being_shown(line):
    with pytest.raises(RecoveryKeyError, match=PUBLIC_KIND):
        recovery.public_key(line)
    secret = line.replace("public", "private") or "AAAA"
    with pytest.raises(RecoveryKeyError, match=PRIVATE_KIND) as refused:
        recovery.private_key(secret)
    assert "AAAA" not in str(refused.value)


def test_the_halves_are_not_mistaken_for_each_other():
    private, public = recovery.generate()
    with pytest.raises(RecoveryKeyError):
        recovery.public_key(private)
    with pytest.raises(RecoveryKeyError):
        recovery.private_key(public)


def test_a_public_key_that_is_out_of_range_is_refused():
    _, public = recovery.generate()
    with pytest.raises(RecoveryKeyError, match="not the key"):
        recovery.public_key(recovery._line(PUBLIC_KIND, b"\xff" * (1184 + 32)))
    assert recovery.public_key(public) is not None


def test_the_command_prints_private_then_public(capsys):
    assert recovery.main() == 0
    private, public = capsys.readouterr().out.splitlines()
    assert private.startswith(PRIVATE_KIND + ":")
    assert public.startswith(PUBLIC_KIND + ":")
    recovery.private_key(private)
    recovery.public_key(public)


@pytest.mark.parametrize("kind", [PUBLIC_KIND, PRIVATE_KIND])
def test_a_line_with_what_is_not_ascii(kind: str) -> None:
    """Found by fuzzing: it was a ValueError of the standard library, and so the end of a start in a traceback."""
    read = recovery.Recipient if kind == PUBLIC_KIND else recovery.RecoveryKey
    with pytest.raises(RecoveryKeyError, match="not base64"):
        read(f"{kind}:\xe9")
