"""Exit codes, and which error ends in which."""

from enum import IntEnum
from typing import Final

from sessions.client.errors import (
    BadAnswerError,
    BusyError,
    ClientError,
    NotFoundError,
    RefusedError,
    SourceChangedError,
    TargetTakenError,
    UnauthorizedError,
    UnreachableError,
)
from sessions.core.errors import CoreError, VerificationError


class ExitCode(IntEnum):
    """What the shell sees."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_AUTHORISED = 4
    NOT_FOUND = 5
    REFUSED = 6
    VERIFICATION_FAILED = 7
    PROVEN_IN_PART = 8
    INTERRUPTED = 130


MEANINGS: Final = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "something else failed",
    ExitCode.USAGE: "the command is not as documented",
    ExitCode.UNREACHABLE: "a service or node cannot be reached, or is too busy",
    ExitCode.NOT_AUTHORISED: "no valid token, or one without the role",
    ExitCode.NOT_FOUND: "no such session or chunk",
    ExitCode.REFUSED: "refused: a conflict with what is there",
    ExitCode.VERIFICATION_FAILED: "verification failed",
    ExitCode.PROVEN_IN_PART: "no anchor yet, or not checked, though it was asked for",
    ExitCode.INTERRUPTED: "interrupted",
}

HELP: Final = "\b\nExit codes:\n" + "\n".join(f"  {code.value:<4} {words}" for code, words in MEANINGS.items())


class CommandError(ClientError):
    """An error of a command itself, with the exit code that it ends in."""

    def __init__(self, message: str, hint: str = "", *, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message, hint)
        self.code = code


_CODES: Final[tuple[tuple[type[Exception], ExitCode], ...]] = (
    (UnreachableError, ExitCode.UNREACHABLE),
    (BusyError, ExitCode.UNREACHABLE),
    (UnauthorizedError, ExitCode.NOT_AUTHORISED),
    (NotFoundError, ExitCode.NOT_FOUND),
    (RefusedError, ExitCode.REFUSED),
    (SourceChangedError, ExitCode.REFUSED),
    (TargetTakenError, ExitCode.REFUSED),
    (VerificationError, ExitCode.VERIFICATION_FAILED),
    (CoreError, ExitCode.USAGE),
)


def exit_code(error: Exception) -> ExitCode:
    """The exit code that an error ends in."""
    if isinstance(error, CommandError):
        return error.code
    if isinstance(error, BadAnswerError) and isinstance(error.__cause__, VerificationError):
        return ExitCode.VERIFICATION_FAILED
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.FAILED)


def words(error: Exception) -> str:
    """An error in one line, `message (hint)`."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = str(error) or type(error).__name__
    hint = getattr(error, "hint", "")
    return " ".join(text.split()) + (f" ({hint})" if hint else "")
