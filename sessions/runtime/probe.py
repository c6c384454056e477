"""The images' health check: asks this container's own `/health`, and prints what it said for `docker inspect`.

Run by its path with `-I -S`, so that a probe loads nothing but a little of the standard library.
"""

import http.client
import os
import sys
from typing import Final

_TIMEOUT_SECONDS: Final = 8
_SHOWN_BYTES: Final = 2000
_ANY_ADDRESS: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what HOST may say


def main() -> int:
    """Ask once; 0 for an answer of 200, else 1, as Docker wants it."""
    host = os.environ.get("HOST", "")
    connection = http.client.HTTPConnection(
        _ANY_ADDRESS.get(host, host), int(os.environ["PORT"]), timeout=_TIMEOUT_SECONDS
    )
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        print(answer.read(_SHOWN_BYTES).decode(errors="replace"))  # noqa: T201 - kept by the engine
    except OSError as error:
        print(f"no answer: {error}")  # noqa: T201
        return 1
    return 0 if answer.status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
