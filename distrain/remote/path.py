"""Paths of files that another machine serves: `s3://`, `gs://`, `hf://`, `https://` and `http://`.

Decides: which texts are URLs, how a URL is shown, and what fits a pattern. Never: writes, or talks to a server by
itself.

    >>> path = to_path("https://ana:secret@example.org/parts/a.csv.gz?token=secret")
    >>> str(path), path.name
    ('https://example.org/parts/a.csv.gz', 'a.csv.gz')
    >>> to_path("parts/a.csv")
    PosixPath('parts/a.csv')

A `RemotePath` has the reading part of `pathlib.Path`, so readers take either. A URL may hold a password or a signature:
`str` leaves both out. `text_of` returns the whole URL, for another process of the same user.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from functools import cached_property, total_ordering
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from distrain.errors import ConfigurationError
from distrain.remote.faults import missing
from distrain.remote.ranged_file import open_ranged
from distrain.remote.storage import Found, RemoteObject, entries_of, find_object, is_folder, matches_of
from distrain.remote.url import SCHEMES, host_of, is_web, scheme_of, shown

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_MAGIC = frozenset("*?[")
_COLLAPSED = re.compile(rf"({'|'.join(SCHEMES)}):/(?!/)")  # what `Path("s3://bucket")` makes of a URL

if TYPE_CHECKING:
    _Base = Path  # the type checker need not tell the two apart: readers use no more than these methods have
else:
    _Base = object


class _Status(NamedTuple):
    """The part of `os.stat_result` that readers use."""

    st_size: int


@total_ordering
class RemotePath(_Base):
    """A file or folder behind a URL.

    Args:
        url: the URL.
        found: the object behind the URL, where a listing has already described it.
        is_folder: whether a listing has shown the URL as a folder.
    """

    def __init__(self, url: str, *, found: RemoteObject | None = None, is_folder: bool = False) -> None:
        self.url = url if is_web(url) else url.rstrip("/")
        self._is_folder = is_folder
        if found is not None or is_folder:
            self._object = found

    def __str__(self) -> str:
        return shown(self.url)

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and self.url == other.url

    def __lt__(self, other: Any) -> bool:
        return self.url < other.url if isinstance(other, RemotePath) else str(self) < str(other)

    def __gt__(self, other: Any) -> bool:
        return not self == other and not self < other

    def __hash__(self) -> int:
        return hash(self.url)

    def __truediv__(self, name: Any) -> RemotePath:
        if is_web(self.url):
            parts = urlsplit(self.url)
            return RemotePath(urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}")))
        return RemotePath(f"{self.url}/{name}")

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "_is_folder": self._is_folder}

    @property
    def name(self) -> str:
        """Last part of the path, without a query."""
        path = urlsplit(self.url).path if is_web(self.url) else self.url.partition("://")[2]
        name = PurePosixPath(path).name
        return unquote(name) if is_web(self.url) else name

    @property
    def suffix(self) -> str:
        """Suffix of the name, as of `Path`."""
        return PurePosixPath(self.name).suffix

    @property
    def stem(self) -> str:
        """Name without its suffix, as of `Path`."""
        return PurePosixPath(self.name).stem

    @property
    def parent(self) -> RemotePath:
        """Folder of the file, without a query."""
        url = urlunsplit(urlsplit(self.url)._replace(query="", fragment="")) if is_web(self.url) else self.url
        return RemotePath(url.rpartition("/")[0], is_folder=True)

    @property
    def scheme(self) -> str:
        """Scheme of the URL, such as "s3"."""
        return scheme_of(self.url)

    def exists(self) -> bool:
        """Whether the URL leads to a file or a folder; raises `DataError` where the server does not say."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether the URL leads to a file."""
        return self._object is not None

    def is_dir(self) -> bool:
        """Whether the URL leads to a folder; a web server has none."""
        if is_web(self.url) or self._is_folder:
            return self._is_folder
        return self._object is None and is_folder(self.url)

    def resolve(self) -> RemotePath:  # type: ignore[override]  # a URL has no links to be strict about
        """Return this path, which is absolute already."""
        return self

    def stat(self) -> Any:  # type: ignore[override]  # of a URL only the size is known
        """Return the size of the file as `st_size`."""
        return _Status(self.described().size)

    def iterdir(self) -> Generator[Any, None, None]:
        """Yield what the folder holds."""
        yield from map(_path_of, entries_of(self.url))

    def matches(self) -> list[RemotePath]:
        """Return the files and folders that fit this path as a pattern, sorted; a web server lists nothing."""
        return [] if is_web(self.url) else sorted(map(_path_of, matches_of(self.url)))

    def open(self, mode: str = "rb", buffering: int = -1) -> BinaryIO:  # type: ignore[override]
        """Open the file for reading by range, through the cache.

        Raises:
            DataError: the file cannot be read; the message names the URL and the cure.
        """
        assert mode == "rb"
        return open_ranged(self.described(), buffered=buffering != 0)

    def described(self) -> RemoteObject:
        """Return size and identity of the file; raises `DataError` if there is none."""
        if self._object is None:
            raise missing(self.url)
        return self._object

    @cached_property
    def _object(self) -> RemoteObject | None:
        return find_object(self.url)


def is_url(value: Any) -> bool:
    """Whether a text begins with a scheme, as `s3://`, or is a path that was made of a URL."""
    if isinstance(value, RemotePath):
        return True
    pattern = _URL if isinstance(value, str) else _COLLAPSED
    return isinstance(value, str | os.PathLike) and pattern.match(os.fsdecode(value)) is not None


def to_path(value: Any) -> Path:
    """Return a URL as a `RemotePath`, and anything else as a `Path`.

    Raises:
        ConfigurationError: the URL has another scheme, or names no bucket or host.
    """
    if isinstance(value, RemotePath):
        return value
    if not is_url(value):
        return Path(value)
    url = value if isinstance(value, str) else _COLLAPSED.sub(r"\1://", os.fsdecode(value))
    scheme, _, rest = url.partition("://")
    path = RemotePath(scheme.lower() + "://" + rest)
    if path.scheme not in SCHEMES:
        known = ", ".join(f"{one}://" for one in SCHEMES)
        raise ConfigurationError(f"{scheme}:// is not read: give a local path, or a URL with {known}.")
    if not (host_of(path.url) if is_web(path.url) else rest.strip("/")):
        raise ConfigurationError(f"{scheme}://... names no {'host' if is_web(path.url) else 'bucket'}. Check the URL.")
    return path


def text_of(path: Any) -> str:
    """Return a path as `to_path` takes it, with the secrets of a URL; never print this."""
    return path.url if isinstance(path, RemotePath) else str(path)


def is_pattern(path: Path) -> bool:
    """Whether a path has the characters of a pattern, such as "part-*.csv"."""
    return not _MAGIC.isdisjoint(str(path))


def matching(pattern: Path) -> list[Path]:
    """Return the files and folders that fit a pattern, sorted; nothing fits what cannot be a pattern."""
    if isinstance(pattern, RemotePath):
        return [*pattern.matches()]
    base = Path(pattern.anchor)
    try:
        return sorted(base.glob(str(pattern.relative_to(base))))
    except (ValueError, NotImplementedError):  # such as "**a": two stars beside other characters
        return []


def _path_of(found: Found) -> RemotePath:
    url, described = found
    return RemotePath(url, found=described, is_folder=described is None)
