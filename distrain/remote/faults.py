"""What a failed request to a server means, in sentences.

Decides: which failures are worth another try, and the cure of each. Never: sends a request.

    raise fault_of(url, error)                      # DataError: "s3://bucket/a.csv: access is denied. ..."

Each library has exceptions of its own. They are told apart by HTTP status and class name, so that no library is loaded
for it.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from distrain.errors import ConfigurationError, DataError
from distrain.remote.url import scheme_of, shown

_CREDENTIALS = {
    "s3": (
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or for a public bucket "
        "FSSPEC_S3='{\"anon\": true}'"
    ),
    "gs": 'Set GOOGLE_APPLICATION_CREDENTIALS, or for a public bucket FSSPEC_GS=\'{"token": "anon"}\'',
    "hf": "Set HF_TOKEN to a token that may read the repository",
}
_WEB_CREDENTIALS = "Give a URL that may be read, or the login in ~/.netrc"
_INSTALL = "pip install 'distrain[remote]'"  # `extras` stands on the same line of rooms, so it is out of reach
_LIBRARIES = {
    "s3": ("s3fs", _INSTALL),
    "https": ("aiohttp", _INSTALL),
    "http": ("aiohttp", _INSTALL),
    "gs": ("gcsfs", f"{_INSTALL} gcsfs"),
    "hf": ("huggingface_hub", f"{_INSTALL} huggingface_hub"),
}
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError")
_TLS = ("ClientConnectorCertificateError", "ClientConnectorSSLError", "SSLError")
_UNKNOWN_HOST = ("gaierror", "ClientConnectorDNSError", "NameResolutionError")
_TIMEOUTS = ("Timeout", "TimedOut")
_BROKEN = (
    "ClientPayloadError", "ContentLengthError", "IncompleteRead", "IncompleteReadError", "ResponseStreamingError",
    "ServerDisconnectedError", "ConnectionClosedError", "ClientOSError", "EndpointConnectionError",
    "ClientConnectorError", "RemoteProtocolError", "ProtocolError",
)  # fmt: skip
_BUSY = (408, 425, 429)


class ChangedError(Exception):
    """The file is no longer what it was when it was described."""


class CutShortError(Exception):
    """The server sent fewer bytes than it announced."""


class UnsafeRedirectError(Exception):
    """The server of an https:// URL sends the reader on to http://."""


def missing(url: str) -> DataError:
    """Return the error for a URL that leads to nothing."""
    return DataError(f"{shown(url)} does not exist. Check bucket, folder and name.")


def missing_library(url: str, error: ImportError) -> ConfigurationError:
    """Return the error for a scheme whose library is not installed."""
    library, cure = _LIBRARIES[scheme_of(url)]
    name = error.name or library
    return ConfigurationError(f"{shown(url)} needs {name}, which is not installed. Install it with: {cure}")


def is_missing(error: BaseException) -> bool:
    """Whether the server says that nothing is there."""
    status = _status(error)
    return status in (404, 410) or (status is None and any(isinstance(one, FileNotFoundError) for one in _chain(error)))


def is_passing(error: BaseException) -> bool:
    """Whether another try may succeed."""
    if isinstance(error, (ChangedError, UnsafeRedirectError)) or _is_named(error, _TLS + _UNKNOWN_HOST):
        return False
    if isinstance(error, CutShortError):
        return True
    if _is_deadline(error):
        return False
    if (status := _status(error)) is not None:
        return status >= 500 or status in _BUSY
    return (
        _is_timeout(error)
        or _is_named(error, _BROKEN)
        or any(isinstance(one, ConnectionError) for one in _chain(error))
    )


def fault_of(url: str, error: BaseException) -> DataError:
    """Return the error for a request that failed for good."""
    path = shown(url)
    status = _status(error)
    if isinstance(error, ChangedError) or status in (412, 416):
        return DataError(
            f"{path} changed while it was read. Let nothing write it meanwhile, then start the same command again."
        )
    if isinstance(error, UnsafeRedirectError):
        return DataError(f"{path}: the server leads on to an http:// address. Give the address itself to allow it.")
    if _is_named(error, _NO_CREDENTIALS):
        return DataError(f"{path}: no credentials were found. {_cure(url)}.")
    if status in (401, 403) or (status is None and any(isinstance(one, PermissionError) for one in _chain(error))):
        return DataError(f"{path}: access is denied. {_cure(url)}, and check the name.")
    if is_missing(error):
        return missing(url)
    if status is not None:
        return DataError(f"{path}: the server answers with HTTP status {status}. Try again later, or check the URL.")
    if any(isinstance(one, ssl.SSLError) for one in _chain(error)) or _is_named(error, _TLS):
        return DataError(
            f"{path}: the server's TLS certificate is not trusted. Check the host's name, or name its authority in "
            "SSL_CERT_FILE (s3: AWS_CA_BUNDLE)."
        )
    if _is_named(error, _UNKNOWN_HOST):
        return DataError(f"{path}: the host is unknown. Check its name, and the network.")
    if _is_timeout(error):
        return DataError(f"{path}: the server did not answer in time. Check the network, then start again.")
    if isinstance(error, CutShortError):
        return DataError(f"{path}: the server sent fewer bytes than it announced. Check the file there, and try again.")
    if _is_named(error, _BROKEN) or any(isinstance(one, ConnectionError) for one in _chain(error)):
        return DataError(f"{path}: the connection cannot be made, or breaks. Check the address and the network.")
    return DataError(f"{path} cannot be read ({type(error).__name__}). Check the URL and its settings.")


def _cure(url: str) -> str:
    return _CREDENTIALS.get(scheme_of(url), _WEB_CREDENTIALS)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes; fsspec hides the library's own error behind a `FileNotFoundError`."""
    current: BaseException | None = error
    for _ in range(8):
        if current is None:
            return
        yield current
        current = current.__cause__ or current.__context__ or getattr(current, "os_error", None)


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that an error tells of, or None."""
    for one in _chain(error):
        response = getattr(one, "response", None)
        if isinstance(response, dict):  # of botocore
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            status = getattr(one, "status", None) or getattr(response, "status_code", None)
            if type(one).__module__.startswith("gcsfs"):  # aiohttp gives a code to the errors of its parser too
                status = getattr(one, "code", None)
        if isinstance(status, int) and 400 <= status < 600:
            return status
    return None


def _is_named(error: BaseException, names: tuple[str, ...]) -> bool:
    return any(kind.__name__ in names for one in _chain(error) for kind in type(one).__mro__)


def _is_deadline(error: BaseException) -> bool:
    """Whether the time of a whole request is over: the server sends, but too slowly."""
    return _is_timeout(error) and type([*_chain(error)][-1]).__name__ in ("TimeoutError", "CancelledError")


def _is_timeout(error: BaseException) -> bool:
    return any(
        isinstance(one, TimeoutError) or any(word in type(one).__name__ for word in _TIMEOUTS) for one in _chain(error)
    )
