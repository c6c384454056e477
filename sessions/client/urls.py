"""The one check of URLs that are settings."""

from typing import Final

import httpx

from sessions.client.errors import ClientError

_MAX_PORT: Final = 65_535


def checked_url(text: str, what: str) -> httpx.URL:
    """An http or https URL with a host. It is not quoted in the error: it may hold an access key.

    Raises:
        ClientError: it is none.
    """
    problem = ClientError(f"the URL of {what} is not one", "give it as http://host:port or https://host")
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        raise problem from None
    if url.scheme not in ("http", "https") or not url.host or (url.port or 0) > _MAX_PORT:
        raise problem
    return url
