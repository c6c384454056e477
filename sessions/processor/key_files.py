"""The files with keys that chunk-processor's settings name."""

import base64
import binascii
import re
from pathlib import Path
from typing import Final

from sessions.core.key_ring import KEK_ID_PATTERN, KEY_BYTES
from sessions.processor.keys import FileKeyWrapper
from sessions.processor.recovery import Recipient, RecoveryKeyError
from sessions.runtime.settings import ConfigurationError, content_lines, read_secret

_KEKS: Final = "KEK_FILE"
_RECOVERY: Final = "RECOVERY_PUBLIC_KEY_FILE"
_KEK_ID = re.compile(KEK_ID_PATTERN[1:-1])


def load_keks(path: Path) -> FileKeyWrapper:
    """Read a KEK file: one `ID:BASE64` a line, 32 bytes each.

    Raises:
        ConfigurationError: a line is not that, or an id is there twice. The message holds no key.
    """
    keks: dict[str, bytes] = {}
    for number, line in content_lines(_KEKS, path):
        kek_id, colon, encoded = line.partition(":")
        if not colon or not _KEK_ID.fullmatch(kek_id):
            raise ConfigurationError(_KEKS, f"{path} line {number} is not 'ID:BASE64'")
        try:
            key = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise ConfigurationError(_KEKS, f"{path} line {number}: the key is not base64") from None
        if len(key) != KEY_BYTES:
            raise ConfigurationError(_KEKS, f"{path} line {number}: a key has {KEY_BYTES} bytes, not {len(key)}")
        if kek_id in keks:
            raise ConfigurationError(_KEKS, f"{path} line {number}: the id {kek_id} is there twice")
        keks[kek_id] = key
    return FileKeyWrapper(keks)


def load_recipient(path: Path | None) -> Recipient | None:
    """Read the file of the recovery recipient's public key, if the setting names one.

    Raises:
        ConfigurationError: it holds anything else, such as the private half.
    """
    if path is None:
        return None
    try:
        return Recipient(read_secret(_RECOVERY, path))
    except RecoveryKeyError as error:
        raise ConfigurationError(_RECOVERY, f"{path}: {error}") from None
