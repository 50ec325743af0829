"""Files that are no text: pictures, sounds, films, documents, arrays and archives.

Decides: how such a file is recognized, and what its refusal says. Never: opens a file.

    >>> kind_of("cat.JPG"), kind_of("review.txt"), kind_of("review", b"%PDF-1.7")
    ('a picture', '', 'a PDF document')
"""

from __future__ import annotations

import re
from pathlib import PurePath

from distrain.errors import DataError

_KINDS = {
    "a picture": (
        ".jpg .jpeg .png .webp .bmp .gif .tif .tiff .heic .heif .avif .jp2 .ico .psd .dng",
        rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|II\*\0|MM\0\*|BM....\0\0\0\0|....ftyp(avif|heic|mif1)",
    ),
    "a sound": (".wav .mp3 .flac .ogg .opus .m4a .aac .aiff", rb"RIFF....WAVE|ID3[\x02-\x04]|fLaC\0|OggS\0"),
    "a film": (".mp4 .avi .mov .mkv .webm .mpg .mpeg .wmv", rb"RIFF....AVI |....ftyp|\x1aE\xdf\xa3"),
    "a PDF document": (".pdf", rb"%PDF-"),
    "an office document": (".doc .docx .xls .xlsx .ppt .pptx .odt .ods .odp .epub", rb"(?!)"),
    "a file of arrays": (
        ".npy .npz .h5 .hdf5 .mat .zarr .pt .pth .pkl .safetensors .tfrecord .tfrecords .parquet .arrow .feather",
        rb"\x93NUMPY|\x89HDF\r\n\x1a\n|ARROW1\0",
    ),
    "an archive": (".zip .tar .tgz .rar .7z", rb"Rar!\x1a\x07|7z\xbc\xaf"),
}
_WAY = (
    "Data that is no text goes to distrain train by --data module:function, or through distrain prepare --source "
    "module:function"
)
_OWN_WAYS = {"a picture": "; for a folder of pictures the function returns distrain.formats.images(folder)"}


def kind_of(name: str, head: bytes = b"") -> str:
    """Return what a file is by its name, or else by its first 16 bytes; empty if it may be text."""
    suffix = PurePath(name.lower()).suffix
    for kind, (suffixes, magic) in _KINDS.items():
        if (suffix and suffix in suffixes.split()) or re.match(magic, head, re.DOTALL):
            return kind
    return ""


def refuse_no_text(path: object, kind: str) -> None:
    """Raise the error for a file of a kind that `kind_of` has found; an empty kind is no error.

    Raises:
        DataError: `kind` is not empty.
    """
    if kind:
        raise DataError(f"{path} is {kind}, no text. {_WAY}{_OWN_WAYS.get(kind, '')}.")
