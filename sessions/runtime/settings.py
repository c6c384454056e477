"""Settings: built once from the environment, frozen, passed in. Nothing else reads the environment."""

import re
import sys
from pathlib import Path
from typing import Annotated, Final, Literal, NoReturn, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from sessions.core.types import CHUNK_MAX_BYTES_LIMIT
from sessions.runtime.http.edge import Edge
from sessions.runtime.limits import Limits

MIB = 1024 * 1024
EXIT_CONFIGURATION = 78
"""Exit code of a service whose settings cannot work (EX_CONFIG of sysexits.h)."""
# As browsers send it: lower case, no path, no slash at the end. `*` is none: whose pages may read is to be said.
ORIGIN: Final = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
SECRET_FILE_MAX_BYTES = 1 * MIB


class ConfigurationError(Exception):
    """A setting that cannot work: names it and says what to do."""

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting}: {problem}")
        self.setting = setting


class ServiceSettings(BaseSettings):
    """What both services are told. Sizes in bytes, times in seconds."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    service_name: str = Field(min_length=1, max_length=64)
    host: str = "0.0.0.0"  # noqa: S104 - inside a container the network is the compose file's business
    port: Annotated[int, Field(ge=0, le=65535)]
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    debug: bool = False
    tokens_file: Path
    chunk_max_bytes: Annotated[int, Field(ge=1, le=CHUNK_MAX_BYTES_LIMIT)] = 16 * MIB
    inflight_max_bytes: Annotated[int, Field(ge=MIB)] = 256 * MIB
    shutdown_seconds: Annotated[int, Field(ge=1)] = 30
    cors_origins: str = ""
    rate_per_second: Annotated[int, Field(ge=0)] = 5000
    connections_max_per_token: Annotated[int, Field(ge=0)] = 1024
    head_max_bytes: Annotated[int, Field(ge=4096, le=MIB)] = 32 * 1024
    head_seconds: Annotated[float, Field(gt=0)] = 10
    idle_seconds: Annotated[float, Field(gt=0)] = 75
    stall_seconds: Annotated[float, Field(gt=0)] = 30
    bytes_per_second_min: Annotated[int, Field(ge=1)] = 1024
    connections_max: Annotated[int, Field(ge=16)] = 4096
    connections_max_per_address: Annotated[int, Field(ge=8)] = 2048
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None

    def limits(self) -> Limits:
        """What each token may use."""
        return Limits(self.rate_per_second, self.connections_max_per_token)

    def edge(self) -> Edge:
        """What a client may take before and while it is served."""
        return Edge(
            head_max_bytes=self.head_max_bytes,
            head_seconds=self.head_seconds,
            idle_seconds=self.idle_seconds,
            stall_seconds=self.stall_seconds,
            bytes_per_second_min=self.bytes_per_second_min,
            connections_max=self.connections_max,
            connections_max_per_address=self.connections_max_per_address,
        )

    def origins(self) -> list[str]:
        """The origins whose web pages may call.

        Raises:
            ConfigurationError: one of them is none.
        """
        origins = [origin.strip() for origin in self.cors_origins.split(",")] if self.cors_origins else []
        for origin in origins:
            if not ORIGIN.fullmatch(origin):
                raise ConfigurationError("CORS_ORIGINS", "give origins like https://desk.example, with commas between")
        return origins


SettingsT = TypeVar("SettingsT", bound=BaseSettings)


def load(settings: type[SettingsT]) -> SettingsT:
    """Read the settings from the environment.

    Raises:
        ConfigurationError: the first one that is missing or wrong, by its name in the environment.
    """
    try:
        return settings()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = str(first["loc"][0]).upper() if first["loc"] else "settings"
        problem = "is required" if first["type"] == "missing" else first["msg"]
        raise ConfigurationError(name, problem) from None


def read_file(setting: str, path: Path) -> str:
    """Text of a file that a setting names, without reading more than 1 MiB of it.

    Raises:
        ConfigurationError: it is not there, not readable, too large or not text.
    """
    try:
        with path.open("rb") as file:
            data = file.read(SECRET_FILE_MAX_BYTES + 1)
        if len(data) > SECRET_FILE_MAX_BYTES:
            raise ConfigurationError(setting, f"{path} is larger than {SECRET_FILE_MAX_BYTES} bytes")
        return data.decode()
    except OSError as error:
        raise ConfigurationError(setting, f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(setting, f"{path} is not text") from None


def read_secret(setting: str, path: Path) -> str:
    """A secret of one line.

    Raises:
        ConfigurationError: as `read_file`, or the file is empty or has several lines.
    """
    secret = read_file(setting, path).strip()
    if not secret or len(secret.split()) != 1:
        raise ConfigurationError(setting, f"{path} should hold one line with the secret, and nothing else")
    return secret


def content_lines(setting: str, path: Path) -> list[tuple[int, str]]:
    """Line numbers and texts of a file, without blank lines and `#` comments.

    Raises:
        ConfigurationError: as `read_file`, or there is no such line.
    """
    lines = [(number, line.strip()) for number, line in enumerate(read_file(setting, path).splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if not lines:
        raise ConfigurationError(setting, f"{path} has no entry")
    return lines


def exit_with(error: ConfigurationError) -> NoReturn:
    """End the process with one line for the operator."""
    print(f"configuration error: {error}", file=sys.stderr)  # noqa: T201 - the log is not set up yet
    sys.exit(EXIT_CONFIGURATION)
