"""Counts of what a reader read and repaired, and the bounds of an input.

Decides: which bytes are repaired, and when an input is too large. Never: opens a file.

    tally = Tally(bounds=Bounds(max_expansion=100))
    tally.clean(raw, Path("train.csv"), line=7)               # text; counts a line with invalid bytes
    tally.count_text(Path("train.csv.gz"), 2**20)             # DataError once the text passes a bound
    tally.sentences(Path("train.csv.gz"))                     # messages about repaired lines
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from distrain.config import PrepareConfig
from distrain.errors import DataError

BOM = b"\xef\xbb\xbf"
FREE_BYTES = 2**26  # text that any file may expand to: reading it takes about a second


@dataclass(frozen=True)
class Bounds:
    """Bounds of an input, over all its files.

    Attributes:
        max_rows: largest number of rows.
        max_text_gib: largest size of the decompressed text in GiB.
        max_expansion: decompressed bytes for each byte on disk, beyond the first 64 MiB.
    """

    max_rows: int = PrepareConfig.max_rows
    max_text_gib: int = PrepareConfig.max_text_gib
    max_expansion: int = PrepareConfig.max_expansion


@dataclass
class Tally:
    """Counts of rows and bytes read, and of lines repaired.

    Attributes:
        rows: rows read.
        num_bytes: bytes read from disk.
        text_bytes: bytes of text, after decompression.
        bounds: bounds of `rows` and `text_bytes`.
        invalid: lines with bytes that are not UTF-8.
        nul: lines with NUL bytes.
        empty: rows with an empty text.
        notes: other messages for the user.
        names_files: whether messages name the file of a line, because several files are read.
    """

    rows: int = 0
    num_bytes: int = 0
    invalid: int = 0
    nul: int = 0
    empty: int = 0
    notes: list[str] = field(default_factory=list)
    names_files: bool = False
    text_bytes: int = 0
    bounds: Bounds = Bounds()
    _first: dict[str, str] = field(default_factory=dict)

    def clean(self, raw: bytes, path: Path, line: int) -> str:
        """Decode bytes, and repair and count invalid bytes; messages name `path` and `line` (0: no line)."""
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text = raw.decode(errors="replace")
            self.invalid += 1
            self._first.setdefault("invalid", self._line(path, line))
        if "\0" in text:
            text = text.replace("\0", " ")
            self.nul += 1
            self._first.setdefault("nul", self._line(path, line))
        return text

    def clean_lines(self, chunk: bytes, path: Path, number: int) -> bytes:
        """Make whole lines valid UTF-8 without NUL, and count repaired lines; the first line has this `number`."""
        if number == 1:
            chunk = chunk.removeprefix(BOM)
        if b"\0" not in chunk and (chunk.isascii() or _is_utf8(chunk)):
            return chunk
        lines = enumerate(chunk.split(b"\n"), start=number)
        return "\n".join([self.clean(line, path, at) for at, line in lines]).encode()

    def count_rows(self, path: Path, rows: int) -> None:
        """Count rows.

        Raises:
            DataError: the input has more rows than its bounds allow.
        """
        self.rows += rows
        if self.rows > self.bounds.max_rows:
            raise DataError(
                f"{path}: the input has over {self.bounds.max_rows:,} rows. A larger --max-rows allows more."
            )

    def count_text(self, path: Path, num_bytes: int, disk_bytes: int | None = None) -> None:
        """Count bytes of text that come from `disk_bytes` bytes of the input, by default those read so far.

        Raises:
            DataError: the input has more text than its bounds allow.
        """
        self.text_bytes += num_bytes
        self.check_expansion(path, self.text_bytes, disk_bytes or self.num_bytes)
        if self.text_bytes > self.bounds.max_text_gib * 2**30:
            raise DataError(
                f"{path}: the input has over {self.bounds.max_text_gib:,} GiB of text. "
                "A larger --max-text-gib allows more."
            )

    def check_expansion(self, path: Path, text_bytes: int, disk_bytes: int) -> None:
        """Raise `DataError` if so many bytes on disk must not become so many bytes of text."""
        if text_bytes > FREE_BYTES + self.bounds.max_expansion * disk_bytes:
            raise DataError(
                f"{path} expands {disk_bytes:,} bytes to over {text_bytes:,}, more than {self.bounds.max_expansion:,} "
                "times: it may be made to fill the disk. If the text is real, a larger --max-expansion allows it."
            )

    def count_empty(self, location: str) -> None:
        """Count a row with an empty text."""
        self.empty += 1
        self._first.setdefault("empty", location)

    def _line(self, path: Path, line: int) -> str:
        if line and self.names_files:
            return f"{path}, line {line:,}"
        return f"line {line:,}" if line else str(path)

    def sentences(self, path: Path | str) -> list[str]:
        """Return a message for each kind of repair, and the notes; `path` names the input."""
        kinds = {
            "invalid": (self.invalid, "line", "with bytes that are not UTF-8, replaced by U+FFFD"),
            "nul": (self.nul, "line", "with NUL bytes, replaced by spaces"),
            "empty": (self.empty, "row", "with an empty text, kept as they are"),
        }
        return [
            f"{path}: {count:,} {thing}{'s' * (count != 1)} {what}; the first: {self._first[kind]}."
            for kind, (count, thing, what) in kinds.items()
            if count
        ] + self.notes


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
