"""Gives session-storage a user of its own in MongoDB: it may read and write its one database, and nothing else.

python -m sessions.storage.provision.database

What it may change is said collection by collection, since rights only ever add up in MongoDB: `audit_events` is not
among them, so there it can read and insert. It may make no index there either (one can let documents expire), nor drop
or rename any collection, nor grant itself more.

Safe to repeat; a new password in MONGODB_URL_FILE takes the place of the old one. The administrator's password is
mounted into this program alone, so session-storage never holds it.
"""

import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import ConfigurationError as UrlError
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.uri_parser import parse_uri

from sessions.runtime.settings import ConfigurationError, exit_with, load, read_secret

_ADMIN: Final = "MONGODB_ADMIN_URL_FILE"
_URL: Final = "MONGODB_URL_FILE"
_POLL_SECONDS: Final = 1.0
_SELECT_SERVER_MS: Final = 3_000
_USER_NOT_FOUND: Final = 11
_ROLE_NOT_FOUND: Final = 31
ROLE: Final = "sessionStorage"
CHANGED: Final = (
    "sessions",
    "chunks",
    "bodies",
    "tiles",
    "batches",
    "leases",
    "findings",
    "scrubs",
    "processors",
    "uptime",
)
"""The collections that session-storage updates, deletes from and makes indexes in."""
_EVERYWHERE: Final = ("find", "insert", "createCollection", "listCollections", "listIndexes", "collStats", "dbStats")
_IN_CHANGED: Final = ("update", "remove", "createIndex", "collMod")
_AUTHENTICATION_FAILED: Final = 18


class DatabaseSettings(BaseSettings):
    """What this program is told."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    mongodb_admin_url_file: Path
    mongodb_url_file: Path
    mongodb_database: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,38}$")] = "lucid_sessions"
    wait_seconds: Annotated[float, Field(ge=0)] = 120


def provision(admin_url: str, url: str, database: str, wait_seconds: float) -> str:
    """Make the user of `url`, or bring its password and rights up to date.

    Args:
        admin_url: MongoDB URL of an administrator.
        url: MongoDB URL that session-storage will use, with user name and password.
        database: The one that it may use.
        wait_seconds: How long the server may take to come up.

    Returns:
        The user's name.

    Raises:
        ConfigurationError: names the setting that cannot work.
    """
    name, password, source = _credentials(url)
    rights: dict[str, Any] = {"roles": [{"role": ROLE, "db": database}]}
    with _client(_ADMIN, admin_url) as admin:
        _wait(admin, wait_seconds)
        _bring(admin.get_database(database), "Role", ROLE, _ROLE_NOT_FOUND, {**_privileges(database), "roles": []})
        _bring(admin.get_database(source), "User", name, _USER_NOT_FOUND, {"pwd": password, **rights})
    with _client(_URL, url) as own:
        try:
            own.get_database(database).command("dbStats")
        except PyMongoError as error:
            raise ConfigurationError(_URL, f"does not work for the user just made: {_reason(error)}") from None
    return name


def _bring(where: Database[dict[str, Any]], what: str, name: str, not_found: int, options: dict[str, Any]) -> None:
    """Bring a user or role up to date, or make it."""
    try:
        try:
            where.command({f"update{what}": name, **options})
        except OperationFailure as error:
            if error.code != not_found:
                raise
            where.command({f"create{what}": name, **options})
    except OperationFailure as error:
        raise ConfigurationError(_ADMIN, f"may not make users and roles: {_reason(error)}") from None


def _privileges(database: str) -> dict[str, Any]:
    def on(collection: str, actions: tuple[str, ...]) -> dict[str, Any]:
        return {"resource": {"db": database, "collection": collection}, "actions": list(actions)}

    return {"privileges": [on("", _EVERYWHERE), *(on(name, _IN_CHANGED) for name in CHANGED)]}


def _client(setting: str, url: str) -> MongoClient[dict[str, Any]]:
    try:
        return MongoClient(url, appname="provision", serverSelectionTimeoutMS=_SELECT_SERVER_MS)
    except (PyMongoError, ValueError) as error:
        raise ConfigurationError(setting, f"is no MongoDB URL: {_reason(error)}") from None


def _credentials(url: str) -> tuple[str, str, str]:
    """Name, password and database of the user."""
    try:
        parts = parse_uri(url, warn=False)
    except (UrlError, PyMongoError, ValueError):
        raise ConfigurationError(_URL, "does not hold a MongoDB URL") from None
    name, password = parts["username"], parts["password"]
    if not name or not password:
        raise ConfigurationError(_URL, "should hold mongodb://NAME:PASSWORD@HOST/ with the user's name and password")
    return name, password, parts["options"].get("authsource") or parts["database"] or "admin"


def _wait(admin: MongoClient[dict[str, Any]], wait_seconds: float) -> None:
    """Wait until the server answers the administrator."""
    until = time.monotonic() + wait_seconds
    while True:
        try:
            admin.admin.command("listDatabases", nameOnly=True)
        except OperationFailure as error:
            if error.code != _AUTHENTICATION_FAILED:
                raise ConfigurationError(_ADMIN, _reason(error)) from None
            raise ConfigurationError(
                _ADMIN,
                "MongoDB refuses this password. A database keeps the passwords of its first start: put back the "
                "secrets that it was made with, or restore a backup into an empty volume",
            ) from None
        except PyMongoError as error:
            if time.monotonic() > until:
                raise ConfigurationError(_ADMIN, f"MongoDB does not answer: {_reason(error)}") from None
            time.sleep(_POLL_SECONDS)
        else:
            return


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


def main() -> int:
    """Do it once; the exit code."""
    try:
        settings = load(DatabaseSettings)
        name = provision(
            read_secret(_ADMIN, settings.mongodb_admin_url_file),
            read_secret(_URL, settings.mongodb_url_file),
            settings.mongodb_database,
            settings.wait_seconds,
        )
    except ConfigurationError as error:
        exit_with(error)
    print(f"the user {name} may use the database {settings.mongodb_database}")  # noqa: T201 - for `docker compose logs`
    return 0


if __name__ == "__main__":
    sys.exit(main())
