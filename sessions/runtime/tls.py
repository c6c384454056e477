"""TLS, from files in PEM that settings name; what is wrong with them is found at the start."""

import ssl
from pathlib import Path
from typing import Final, TypeAlias

from sessions.runtime.settings import ConfigurationError, ServiceSettings, read_file

_NO_PASSWORD: Final = ""
"""Or OpenSSL would ask for the password of an encrypted key on the terminal, and wait."""

File: TypeAlias = tuple[str, Path | None]
"""A setting's name, and the file that it names."""


def server_context(settings: ServiceSettings, client_ca_file: Path | None = None) -> ssl.SSLContext | None:
    """What a service needs to speak TLS; None without a certificate.

    With `client_ca_file`, a client that shows a certificate has to show one of that authority. Whether it has to show
    one is for the server to see to, since this host's own health check has none.

    Raises:
        ConfigurationError: one of a pair without the other, or a file that cannot work.
    """
    certificate, key = ("TLS_CERT_FILE", settings.tls_cert_file), ("TLS_KEY_FILE", settings.tls_key_file)
    client_ca = ("TLS_CLIENT_CA_FILE", client_ca_file)
    _pair(certificate, key)
    if certificate[1] is None:
        if client_ca[1] is not None:
            raise ConfigurationError(client_ca[0], f"needs {certificate[0]} and {key[0]}: without TLS nobody shows one")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_chain(context, certificate, key)
    if client_ca[1] is not None:
        _load_authority(context, client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(authority: File, certificate: File, key: File) -> ssl.SSLContext:
    """What a client needs: whom it trusts (no file: whom the system trusts), and what it shows, if anything.

    Raises:
        ConfigurationError: as `server_context`.
    """
    _pair(certificate, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies the certificate and the name in it
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if authority[1] is None:
        context.load_default_certs()
    else:
        _load_authority(context, authority)
    if certificate[1] is not None:
        _load_chain(context, certificate, key)
    return context


def _pair(certificate: File, key: File) -> None:
    for (name, path), (other, there) in ((certificate, key), (key, certificate)):
        if path is None and there is not None:
            raise ConfigurationError(name, f"is required, since {other} is set")


def _load_chain(context: ssl.SSLContext, certificate: File, key: File) -> None:
    assert certificate[1] is not None
    assert key[1] is not None
    _load_authority(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate)  # tells which of the two files is wrong
    read_file(key[0], key[1])
    try:
        context.load_cert_chain(certificate[1], key[1], _NO_PASSWORD)
    except (ssl.SSLError, ValueError):
        problem = f"{key[1]} is not the key of {certificate[0]}, in PEM and without a password"
        raise ConfigurationError(key[0], problem) from None


def _load_authority(context: ssl.SSLContext, authority: File) -> None:
    name, path = authority
    assert path is not None
    try:
        context.load_verify_locations(cadata=read_file(name, path))
    except (ssl.SSLError, ValueError):
        raise ConfigurationError(name, f"{path} is no certificate in PEM") from None
