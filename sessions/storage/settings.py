"""What session-storage is told by its environment."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from sessions.runtime.settings import MIB, ORIGIN, ConfigurationError, ServiceSettings, read_secret
from sessions.runtime.times import Clock, now
from sessions.storage.anchor_pace import BATCHES_PER_INTERVAL
from sessions.storage.retention import MAX_DAYS, Terms


class StorageSettings(ServiceSettings):
    """Settings of session-storage. Sizes in bytes, times in seconds, fees in gwei."""

    service_name: str = "session-storage"
    port: Annotated[int, Field(ge=0, le=65535)] = 8086
    tls_client_ca_file: Path | None = None
    mongodb_url: SecretStr | None = None
    mongodb_url_file: Path | None = None
    mongodb_database: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,38}$")] = "lucid_sessions"
    database_free_min_bytes: Annotated[int, Field(ge=0)] = 1024 * MIB
    retain_days: Annotated[int, Field(ge=0, le=MAX_DAYS)] = 0
    delete_after_days: Annotated[int, Field(ge=0, le=MAX_DAYS)] = 0
    reads_max_bytes: Annotated[int, Field(ge=4 * MIB)] = 128 * MIB
    session_idle_seal_seconds: Annotated[int, Field(ge=0)] = 86_400
    processor_wait_seconds: Annotated[int, Field(ge=5)] = 3600
    scrub_bytes_per_second: Annotated[int, Field(ge=0)] = 0
    console_processor_url: str = ""
    anchoring: Literal["on", "off"] = "on"
    chain_rpc_urls: str = ""
    chain_id: int | None = None
    chain_contract: Annotated[str, Field(pattern=r"^(0x[0-9A-Fa-f]{40})?$")] = ""
    chain_key_file: Path | None = None
    chain_max_fee_gwei: Annotated[float, Field(gt=0)] = 200
    anchor_interval_seconds: Annotated[float, Field(gt=0)] = 60
    anchor_batches_per_interval: Annotated[int, Field(ge=1)] = BATCHES_PER_INTERVAL
    anchor_confirmations: Annotated[int, Field(ge=1)] | Literal["finalized"] = "finalized"
    anchor_batch_max_sessions: Annotated[int, Field(ge=1, le=16_384)] = 10_000

    def database_url(self) -> str:
        """The MongoDB URL, from wherever it was given.

        Raises:
            ConfigurationError: neither or both of MONGODB_URL and MONGODB_URL_FILE are set.
        """
        if (self.mongodb_url is None) == (self.mongodb_url_file is None):
            raise ConfigurationError(
                "MONGODB_URL", "set this, or MONGODB_URL_FILE to a file that holds it (one of both)"
            )
        if self.mongodb_url is not None:
            return self.mongodb_url.get_secret_value()
        assert self.mongodb_url_file is not None
        return read_secret("MONGODB_URL_FILE", self.mongodb_url_file)

    def processor_origin(self) -> str | None:
        """Where browsers reach the processor, for replays in the console; None: they do not.

        Raises:
            ConfigurationError: it is no address of a server.
        """
        if not self.console_processor_url:
            return None
        origin = self.console_processor_url.removesuffix("/")
        if not ORIGIN.fullmatch(origin):
            raise ConfigurationError("CONSOLE_PROCESSOR_URL", "give an address like https://desk.example:8085")
        return origin

    def terms(self, clock: Clock = now) -> Terms:
        """How long sessions are kept, unless they have terms of their own.

        Raises:
            ConfigurationError: sessions would be deleted before they may be.
        """
        if 0 < self.delete_after_days < self.retain_days:
            raise ConfigurationError("DELETE_AFTER_DAYS", f"is below RETAIN_DAYS, which is {self.retain_days}")
        return Terms(self.retain_days, self.delete_after_days, clock)

    def require_chain(self) -> None:
        """Check that anchoring has all that it needs.

        Raises:
            ConfigurationError: names the first setting that is missing.
        """
        for name in ("chain_rpc_urls", "chain_id", "chain_contract", "chain_key_file"):
            if not getattr(self, name):
                raise ConfigurationError(name.upper(), "is required for anchoring (or set ANCHORING=off)")
