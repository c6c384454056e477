"""What can be wrong with bytes, numbers and proofs.

    CoreError
    ├── InvalidSessionIdError   a session id that does not match the pattern
    ├── IndexOutOfRangeError    a chunk index below 0 or too large
    ├── FormatError             bytes that are not what they claim to be
    │   ├── EnvelopeFormatError
    │   ├── FrameFormatError
    │   ├── ManifestFormatError
    │   ├── ReceiptFormatError
    │   ├── ProofFormatError
    │   ├── KeyRingFormatError
    │   └── AuditFormatError
    └── VerificationError       well-formed, but it does not prove what it claims

None of them knows HTTP: the services map them at their edge.
"""


class CoreError(ValueError):
    """Base of every error of `sessions.core`."""


class InvalidSessionIdError(CoreError):
    """A session id that does not match the pattern."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"session id {text[:140]!r} is not 1 to 128 characters of A-Z a-z 0-9 . _ - starting with a letter or digit"
        )


class IndexOutOfRangeError(CoreError):
    """A chunk index that no session can have."""

    def __init__(self, value: int, largest: int) -> None:
        super().__init__(f"chunk index {value} is not within 0 .. {largest}")


class FormatError(CoreError):
    """Bytes that are not what they claim to be."""


class EnvelopeFormatError(FormatError):
    """Not an envelope v1."""


class FrameFormatError(FormatError):
    """Not a sequence of frames, or one that is larger than allowed."""


class ManifestFormatError(FormatError):
    """Not a manifest v1."""


class ReceiptFormatError(FormatError):
    """Not a receipt v1."""


class ProofFormatError(FormatError):
    """Not a chunk proof v1."""


class KeyRingFormatError(FormatError):
    """Not a key ring v1, or a key in it that is none."""


class AuditFormatError(FormatError):
    """Not an audit event v1, or no day of the trail."""


class VerificationError(CoreError):
    """Well-formed, but it does not prove what it claims."""
