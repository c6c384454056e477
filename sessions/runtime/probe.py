"""The images' health check: asks this container's own `/health`, and prints what it said for `docker inspect`.

Run by its path with `-I -S`, so that a probe loads nothing but a little of the standard library.
"""

import http.client
import os
import ssl
import sys
from typing import Final

_TIMEOUT_SECONDS: Final = 8
_SHOWN_BYTES: Final = 2000
_ANY_ADDRESS: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what HOST may say


def _unverified() -> ssl.SSLContext:
    """TLS that takes any certificate.

    Ours is for the name that others know this service by, not for the loopback. There is nothing to verify, either: the
    probe goes no further than its own host, sends no secret, and believes no more of the answer than its status.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def main() -> int:
    """Ask once; 0 for an answer of 200, else 1, as Docker wants it."""
    host = os.environ.get("HOST", "")
    address, port = _ANY_ADDRESS.get(host, host), int(os.environ["PORT"])
    if os.environ.get("TLS_CERT_FILE"):
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            address, port, timeout=_TIMEOUT_SECONDS, context=_unverified()
        )
    else:
        connection = http.client.HTTPConnection(address, port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        print(answer.read(_SHOWN_BYTES).decode(errors="replace"))  # noqa: T201 - kept by the engine
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer: {error}")  # noqa: T201
        return 1
    finally:
        connection.close()
    return 0 if answer.status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
