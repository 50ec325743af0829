"""URLs as text: which are read, and how they are shown.

Decides: schemes, and which parts of a URL are secret. Never: talks to a server.

    >>> shown("https://ana:secret@example.org/parts/a.csv.gz?token=secret")
    'https://example.org/parts/a.csv.gz'
    >>> shown("s3://bucket/part-*.csv")
    's3://bucket/part-*.csv'
"""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

WEB_SCHEMES = ("https", "http")
SCHEMES = ("s3", "gs", "hf", *WEB_SCHEMES)


def scheme_of(url: str) -> str:
    """Return the scheme, such as "s3"."""
    return url.partition("://")[0]


def is_web(url: str) -> bool:
    """Whether a web server serves the URL."""
    return scheme_of(url) in WEB_SCHEMES


def shown(url: str) -> str:
    """Return a URL without login, query and fragment, which may be secrets."""
    if not is_web(url):
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def host_of(url: str) -> str | None:
    """Return the host of a web URL, or None where the URL names none that can be reached."""
    try:
        parts = urlsplit(url)
        return None if parts.port == 0 else parts.hostname
    except ValueError:  # such as a port that is no number
        return None
