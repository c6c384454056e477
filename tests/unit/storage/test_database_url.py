"""Every option of the database's URL: it is overridden, or refused at start with its name, or weakens no promise.

On a real replica set: tests/contract/stores/test_mongo_url.py.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest
from pymongo import ReadPreference
from pymongo.common import URI_OPTIONS_ALIAS_MAP, URI_OPTIONS_VALIDATOR_MAP
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from sessions.storage.mongo import connect
from sessions.storage.mongo_url import REFUSED

URL: Final = "mongodb://user:secret@127.0.0.1:1/"
Seen = Callable[[Any, Any], object]
_DECIDED: Final[Seen] = lambda _, db: (db.read_preference, db.read_concern, db.write_concern)  # noqa: E731
_AS_PROMISED: Final = (ReadPreference.PRIMARY, ReadConcern("majority"), WriteConcern("majority", j=True))


def _pool(name: str) -> Seen:
    return lambda client, _: getattr(client.options.pool_options, name)


OVERRIDDEN: Final[Mapping[str, tuple[list[str], Seen, object]]] = {
    "readPreference": (["secondary", "secondaryPreferred", "nearest", "primaryPreferred"], _DECIDED, _AS_PROMISED),
    "readConcernLevel": (["local", "available", "linearizable", "snapshot"], _DECIDED, _AS_PROMISED),
    "w": (["0", "1", "3", "zone"], _DECIDED, _AS_PROMISED),
    "journal": (["false"], _DECIDED, _AS_PROMISED),
    "wtimeoutMS": (["1"], _DECIDED, _AS_PROMISED),
    "fsync": (["true"], _DECIDED, _AS_PROMISED),
    "tz_aware": (["false"], lambda _, db: db.codec_options.tz_aware, True),
    "datetime_conversion": (["DATETIME_MS"], lambda _, db: db.codec_options.datetime_conversion.name, "DATETIME"),
    "uuidRepresentation": (["javaLegacy"], lambda _, db: db.codec_options.uuid_representation, 0),
    "unicode_decode_error_handler": (["ignore"], lambda _, db: db.codec_options.unicode_decode_error_handler, "strict"),
    "timeoutMS": (["0", "1", "86400000"], lambda client, _: client.options.timeout, 20.0),
    "serverSelectionTimeoutMS": (["1", "86400000"], lambda client, _: client.options.server_selection_timeout, 5.0),
    "connectTimeoutMS": (["0", "1", "86400000"], _pool("connect_timeout"), 5.0),
    "socketTimeoutMS": (["0", "1", "86400000"], _pool("socket_timeout"), 20.0),
    "waitQueueTimeoutMS": (["1", "86400000"], _pool("wait_queue_timeout"), 20.0),
    "maxPoolSize": (["0", "1", "1000"], _pool("max_pool_size"), 32),
    "minPoolSize": (["100"], _pool("min_pool_size"), 0),
    "retryWrites": (["false"], lambda client, _: client.options.retry_writes, True),
    "retryReads": (["false"], lambda client, _: client.options.retry_reads, True),
    "heartbeatFrequencyMS": (["86400000"], lambda client, _: client._topology_settings.heartbeat_frequency, 10),
    "serverMonitoringMode": (["poll"], lambda client, _: client.options.server_monitoring_mode, "auto"),
    "appname": (["other"], _pool("appname"), "session-storage"),
    "compressors": (["zlib", "snappy,zstd"], lambda client, _: _compressors(client), []),
}
"""Values of the URL, where the effect shows, and what it is whatever the URL says."""

NEUTRAL: Final[Mapping[str, str]] = {
    "authMechanism": "how the user proves who they are; MongoDB decides what it takes",
    "authMechanismProperties": "as authMechanism",
    "authSource": "as authMechanism",
    "connect": "a client of asyncio connects with its first call anyway",
    "driver": "no text sets it",
    "enableOverloadRetargeting": "which router is asked again when one is overloaded",
    "loadBalanced": "each write is waited for: topology and journal are unknown",
    "localThresholdMS": "which router is asked, or which secondary: none is",
    "maxStalenessSeconds": "how old a secondary may be: none is asked",
    "maxAdaptiveRetries": "how often a server that is overloaded is asked again",
    "maxConnecting": "how many connections are made at once",
    "maxIdleTimeMS": "a connection that was idle is made again",
    "readPreferenceTags": "which secondary is asked: none is",
    "replicaSet": "another set's name is not reached",
    "server_api": "no text sets it",
    "srvAllowedHostsSuffix": "where the name server may point to",
    "srvMaxHosts": "how many routers are asked",
    "srvServiceName": "how the routers are found",
    "tls": "SECURITY.md, net-mongodb: MongoDB may be in a network of its own",
    "tlsCAFile": "whom to trust",
    "tlsCRLFile": "whom not to trust any more",
    "tlsCertificateKeyFile": "who we are",
    "tlsCertificateKeyFilePassword": "as tlsCertificateKeyFile",
    "tlsDisableOCSPEndpointCheck": "revocation is still checked where the server shows it",
    "waitQueueMultiple": "has no effect on this driver",
    "zlibCompressionLevel": "nothing is compressed",
}


def _compressors(client: Any) -> list[str]:
    settings = client.options.pool_options._compression_settings
    return list(settings.compressors) if settings is not None else []


@pytest.mark.parametrize(
    ("option", "value"), [(option, value) for option, (values, _, _) in OVERRIDDEN.items() for value in values]
)
async def test_what_is_overridden(option: str, value: str) -> None:
    _, effect, expected = OVERRIDDEN[option]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the driver speaks of compressors that are not installed
        client, db = connect(f"{URL}?{option}={value}", "lucid")
    try:
        assert effect(client, db) == expected
    finally:
        await client.close()


@pytest.mark.parametrize("spelled", [str, str.lower, str.upper])
@pytest.mark.parametrize("option", sorted(REFUSED))
def test_what_is_refused_with_its_name(option: str, spelled: Callable[[str], str]) -> None:
    for query in (f"{spelled(option)}=true", f"tls=true&{spelled(option)}=true", f"tls=true;{spelled(option)}=true"):
        with pytest.raises(ValueError, match=rf"^{option}=true ") as caught:
            connect(f"{URL}?{query}", "lucid")
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", sorted(REFUSED))
async def test_what_is_switched_off_is_not_refused(option: str) -> None:
    client, _ = connect(f"{URL}?tls=true&{option}=false", "lucid")
    await client.close()


@pytest.mark.parametrize("query", ["w=0&journal=true", "maxStalenessSeconds=90", "tls=true&ssl=false"])
def test_what_contradicts_itself_ends_the_start(query: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError) as caught:
            connect(f"{URL}?{query}", "lucid")
    assert "secret" not in str(caught.value)


def test_each_option_of_the_driver_is_decided() -> None:
    """A new version of the driver may have one more: it has to be looked at."""
    aliases = {alias.lower() for names in URI_OPTIONS_ALIAS_MAP.values() for alias in names}
    decided = {name.lower() for name in (*OVERRIDDEN, *REFUSED, *NEUTRAL)}
    assert set(URI_OPTIONS_VALIDATOR_MAP) - aliases - decided == set()
    assert len(decided) == len(OVERRIDDEN) + len(REFUSED) + len(NEUTRAL)
