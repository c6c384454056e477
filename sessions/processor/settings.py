"""What chunk-processor is told by its environment."""

import os
import ssl
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AnyHttpUrl, Field

from sessions.runtime import tls
from sessions.runtime.settings import MIB, ConfigurationError, ServiceSettings


class ProcessorSettings(ServiceSettings):
    """Settings of chunk-processor. Sizes in bytes, times in seconds."""

    service_name: str = "chunk-processor"
    port: Annotated[int, Field(ge=0, le=65535)] = 8085
    kek_file: Path
    recovery_public_key_file: Path | None = None
    storage_url: AnyHttpUrl
    storage_token_file: Path
    storage_ca_file: Path | None = None
    storage_client_cert_file: Path | None = None
    storage_client_key_file: Path | None = None
    storage_timeout_seconds: Annotated[float, Field(gt=0)] = 30
    dek_cache_max_sessions: Annotated[int, Field(ge=1)] = 10_000
    dek_cache_seconds: Annotated[float, Field(ge=1)] = 900
    batch_body_max_bytes: Annotated[int, Field(ge=MIB)] = 64 * MIB
    replay_max_bytes: Annotated[int, Field(ge=MIB)] = 256 * MIB
    seal_threads: Annotated[int, Field(ge=1, le=256)] = Field(default_factory=lambda: os.cpu_count() or 1)
    spool: Literal["on", "off"] = "on"
    spool_dir: Path = Path("/spool")
    spool_max_bytes: Annotated[int, Field(ge=MIB)] = 4096 * MIB
    spool_free_min_bytes: Annotated[int, Field(ge=0)] = 1024 * MIB
    spool_quarantine_max_bytes: Annotated[int, Field(ge=MIB)] = 1024 * MIB
    spool_delivery_attempts: Annotated[int, Field(ge=1)] = 10
    zstd_level: Annotated[int, Field(ge=1, le=19)] = 3

    def storage_tls(self) -> ssl.SSLContext | None:
        """What the connection to session-storage needs; None when it is without TLS.

        Raises:
            ConfigurationError: a file that cannot work, or one that would not be used.
        """
        authority = ("STORAGE_CA_FILE", self.storage_ca_file)
        certificate = ("STORAGE_CLIENT_CERT_FILE", self.storage_client_cert_file)
        key = ("STORAGE_CLIENT_KEY_FILE", self.storage_client_key_file)
        if self.storage_url.scheme == "https":
            return tls.client_context(authority, certificate, key)
        for name, path in (authority, certificate, key):
            if path is not None:
                raise ConfigurationError(name, "is for TLS, and STORAGE_URL is without: make it https://")
        return None
