"""The files of a remote data set, fetched whole into the cache before they are mapped into memory.

Decides: when a file is fetched, and whether it is what the index says. Never: what a file means.

    folder = FetchedFolder(to_path("s3://bucket/data"), "dataset.json")
    folder.expect(records)                           # of all files, by name
    folder.want(["train-00000.labels.npy"])          # begins in the background
    folder.fetch(["train-00000.labels.npy"])         # waits; then it lies in folder.path

All processes of a machine share the files. A file enters under its name only after its SHA-256 was compared. A file
that is there already is compared by CRC-32, once in each process. The files stay as long as this object lives.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import BinaryIO

from distrain.errors import ConfigurationError, DataError
from distrain.files import MAX_JSON_BYTES
from distrain.fingerprints import Fingerprint, fault_of, size_fault
from distrain.remote.cache import FOLDER_VARIABLE, SIZE_VARIABLE, find_cache, locked, no_room
from distrain.remote.path import RemotePath
from distrain.remote.storage import MIN_BYTES_PER_SECOND, REQUEST_SECONDS
from distrain.remote.url import is_web

MAX_THREADS = 4  # one connection of an object store fills a fraction of a fast network
PIECE_BYTES = 2**24
TOLD_BYTES = 2**26  # a log line tells of larger transfers, which slow the first epoch
_NUM_LOCKS = 16  # files that processes of a machine may fetch at once; a lock for each file would be a file more
_CURE = "Copy the data set there anew."

_LOG = logging.getLogger(__name__)


class FetchedFolder:
    """See the module.

    Args:
        source: the remote folder.
        index_name: name of the file that lists the others; its content identifies the data set in the cache.

    Attributes:
        path: the local folder that the files are fetched into.

    Raises:
        DataError: the index cannot be read, or the cache cannot be written.
    """

    def __init__(self, source: RemotePath, index_name: str) -> None:
        self._source, self._cache = source, find_cache()
        index = source / index_name
        if index.stat().st_size > MAX_JSON_BYTES:
            raise DataError(f"{index} has over {MAX_JSON_BYTES:,} bytes. {_CURE}")
        with index.open() as file:
            content = file.read()
        self._entry = hashlib.sha256(content).hexdigest()
        self._records: Mapping[str, Fingerprint] = {}
        self._results: dict[str, Future[None]] = {}
        self._waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._num_threads = 0
        self._lock = threading.Lock()
        try:
            self.path = self._cache.pin(self._entry, self)
            if not self._cache.reserve(len(content)):
                raise no_room(self._cache, index)
            with self._cache.unfinished(self.path / index_name) as tmp_path:
                tmp_path.write_bytes(content)
        except OSError as error:
            raise self._unwritable(error) from None

    def expect(self, records: Mapping[str, Fingerprint]) -> None:
        """Learn which files there are.

        Raises:
            ConfigurationError: the cache is too small for all of them, which one epoch reads many times.
        """
        self._records = records
        num_bytes = sum(record.bytes for record in records.values())
        if num_bytes > self._cache.max_bytes:
            raise ConfigurationError(
                f"{self._source} has {num_bytes / 2**30:,.2f} GiB, and the cache {self._cache.root} may hold "
                f"{self._cache.max_bytes / 2**30:,.2f} GiB. Shuffled training reads all of it again and again: set "
                f"{SIZE_VARIABLE} to a larger number."
            )
        missing = sum(record.bytes for name, record in records.items() if size_fault(self.path / name, record))
        if missing >= TOLD_BYTES:
            _LOG.warning(
                f"{self._source}: {missing / 2**30:,.2f} of {num_bytes / 2**30:,.2f} GiB are not in the cache "
                f"{self._cache.root} and are fetched when they are needed, at the latest in the first epoch."
            )

    def want(self, names: Iterable[str]) -> None:
        """Begin to fetch files, if they are not fetched already."""
        with self._lock:
            for name in names:
                if name not in self._results:
                    self._results[name] = Future()
                    self._waiting.put(name)
                    if self._num_threads < MAX_THREADS:
                        self._num_threads += 1
                        threading.Thread(target=self._work, daemon=True).start()

    def fetch(self, names: Iterable[str]) -> None:
        """Wait until files lie in the local folder.

        Raises:
            DataError: a file cannot be fetched, or is not what its record says.
        """
        names = list(names)
        self.want(names)
        for name in names:
            self._results[name].result()

    def _work(self) -> None:
        while True:
            with self._lock:
                try:
                    name = self._waiting.get_nowait()
                except queue.Empty:
                    self._num_threads -= 1
                    return
            try:
                self._fetch_one(name, self._records[name])
            except BaseException as error:
                self._results[name].set_exception(error)
            else:
                self._results[name].set_result(None)

    def _fetch_one(self, name: str, record: Fingerprint) -> None:
        path = self.path / name
        if fault_of(path, record, fast=True) is None:
            return
        seconds = REQUEST_SECONDS + record.bytes / MIN_BYTES_PER_SECOND
        try:
            with locked(self.path / f".turn-{zlib.crc32(name.encode()) % _NUM_LOCKS}", seconds):
                if fault_of(path, record, fast=True) is None:  # another process has fetched it meanwhile
                    return
                if not self._cache.reserve(record.bytes):
                    raise no_room(self._cache, self._source / name)
                with self._cache.unfinished(path) as tmp_path, tmp_path.open("wb") as file:
                    compared_copy(self._source / name, record, file)
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> DataError:
        return DataError(
            f"the cache {self._cache.root} cannot be written: {error.strerror or error}. Free its disk, or name "
            f"another folder by {FOLDER_VARIABLE}."
        )


def compared_copy(source: RemotePath, record: Fingerprint, file: BinaryIO | None = None) -> None:
    """Read a remote file from its server, without the cache, and write it to `file`.

    Raises:
        DataError: the file cannot be read, or is not what `record` says.
    """
    found = source.described()
    if found.size != record.bytes:
        raise DataError(
            f"{source} has {found.size:,} bytes instead of {record.bytes:,}: it was cut or changed. {_CURE}"
        )
    digest = hashlib.sha256()

    def take(piece: bytes) -> None:
        digest.update(piece)
        if file is not None:
            file.write(piece)

    if found.has_ranges:
        _read_ranges(found.read, found.size, take)
    else:
        found.stream(take)
    if digest.hexdigest() != record.sha256:
        raise DataError(f"{source} was changed: its SHA-256 does not fit. {_CURE}")


def _read_ranges(read: Callable[[int, int], bytes], size: int, take: Callable[[bytes], None]) -> None:
    for start in range(0, size, PIECE_BYTES):
        take(read(start, min(start + PIECE_BYTES, size)))


def remote_names(folder: RemotePath, prefix: str = "") -> set[str]:
    """Return the files of a remote folder and its folders, by name; a web server lists none."""
    if is_web(folder.url):
        return set()
    names: set[str] = set()
    for entry in folder.iterdir():
        name = f"{prefix}{entry.name}"
        names |= remote_names(entry, f"{name}/") if entry.is_dir() else {name}
    return names
