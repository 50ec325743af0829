"""Tar shards give the samples that tar wrote into them, by position; archives that cannot be trusted are refused."""

from __future__ import annotations

import io
import json
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from distrain.data.by_position.transforms import Transform
from distrain.data.positional import positional_examples
from distrain.errors import ConfigurationError, DataError
from distrain.formats import decode_image, webdataset

NUM = 30
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (NUM, 8, 9, 3), dtype=np.uint8)
VECTORS = RNG.normal(size=(NUM, 5)).astype("float32")


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def sample(row):
    return {
        "png": png(PIXELS[row]),
        "cls": b"%d\n" % (row % 4),
        "vec.npy": npy(VECTORS[row]),
        "json": json.dumps({"row": row}).encode(),
        "txt": f"Bild {row} ä".encode(),
    }


def members(rows, folder="train"):
    return [(f"{folder}/{row:05}.{field}", content) for row in rows for field, content in sample(row).items()]


def write(path, files, **options):
    with tarfile.open(path, "w", **options) as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture(params=[tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["ustar", "gnu", "pax"])
def folder(tmp_path, request):
    long = "l" * (150 if request.param != tarfile.USTAR_FORMAT else 20)
    write(tmp_path / "b.tar", members(range(20, NUM), folder=f"ä/{long}"), format=request.param)
    extra = [("README", b"hello"), ("train/.hidden.jpg", b""), ("__index__.json", b"{}")]
    write(tmp_path / "a.tar", [*extra, *members(range(20))], format=request.param)
    return tmp_path


def test_the_examples_are_the_files_of_each_sample(folder):
    source = webdataset(folder, features={"picture": "png", "vector": "vec.npy"}, size=(4, 4))
    source = pickle.loads(pickle.dumps(source))
    assert len(source) == NUM
    examples = positional_examples(source)
    chosen = np.array([29, 0, 21, 19, 20, 3])
    features, labels, _ = examples.load(np.array([[0, NUM]]), chosen)(0, 6)
    assert labels.tolist() == (chosen % 4).tolist()
    np.testing.assert_array_equal(features["vector"], VECTORS[chosen])
    for found, row in zip(features["picture"], chosen, strict=True):
        np.testing.assert_array_equal(found, decode_image(png(PIXELS[row]), size=(4, 4)))
    neighbours, _, _ = examples.load(np.array([[0, NUM]]), np.arange(15, 25))(0, 10)
    np.testing.assert_array_equal(neighbours["vector"], VECTORS[15:25])


def test_pictures_keep_their_size_and_other_fields_go_through_map(folder):
    source = webdataset(folder, features={"picture": "png", "about": "json", "text": "txt"})
    assert source[7][0]["about"] == {"row": 7}

    def numbers(element):
        features, label = element
        return (features["picture"], np.array([features["about"]["row"], int(features["text"].split()[1])])), label

    examples = positional_examples(source, transform=Transform(numbers, seed=0))
    (pixels, rows), labels, _ = examples.load(np.array([[0, NUM]]), np.arange(NUM))(0, NUM)
    np.testing.assert_array_equal(pixels, PIXELS)
    assert rows.tolist() == [[row, row] for row in range(NUM)]
    assert labels.tolist() == [row % 4 for row in range(NUM)]


def test_a_missing_field_is_named(tmp_path):
    files = [file for file in members(range(5)) if file[0] != "train/00003.cls"]
    source = webdataset(write(tmp_path / "a.tar", files), features="vec.npy")
    with pytest.raises(DataError, match=r"a\.tar: sample 'train/00003' has no 'cls'"):
        source.read(0, 5)
    with pytest.raises(ConfigurationError, match="names the column 'jpg', but the columns are 'png', 'cls'"):
        webdataset(tmp_path, features="jpg")


@pytest.mark.parametrize(
    ("field", "content", "message"),
    [
        ("cls", b"cat", "damaged 'cls': invalid literal"),
        ("cls", b"9" * 100, "damaged 'cls': it is no whole number"),
        ("cls", b"9" * 20, "no whole number of 64 bits"),
        ("png", b"no picture", r"a\.tar: sample '0': the 'png' is no JPEG"),
        ("npy", npy(np.array([{}], object)), "damaged 'npy': Object arrays cannot be loaded"),
        ("npy", npy(np.zeros(3))[:-1], "damaged 'npy'"),
        ("npy", npy(np.zeros(3)).replace(b"(3,)", b"(9**9,)"), "damaged 'npy'"),
        ("npy", npy(np.zeros(3)).replace(b"(3,), }", b"(3,,(, "), "damaged 'npy'"),
        ("json", b"[" * 100_000, "damaged 'json'"),
        ("txt", b"\xff", "damaged 'txt'"),
    ],
)
def test_damaged_content_is_named(tmp_path, field, content, message):
    path = write(tmp_path / "a.tar", [("0.x", b"1"), (f"0.{field}", content)])
    with pytest.raises(DataError, match=message) as raised:
        webdataset(path, features=field, label="x", size=(4, 4))[0]
    assert str(raised.value).startswith(str(path))


def header(name=b"0.jpg", size=b"00000000001", kind=b"0"):
    """A header of tar, with its checksum."""
    raw = bytearray(512)
    raw[: len(name)] = name
    raw[100:108], raw[124 : 124 + len(size)] = b"0000644\0", size
    raw[156:157], raw[257:265] = kind, b"ustar\x0000"
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


END = bytes(1024)
NEGATIVE = b"\xff" * 10 + b"\xfe\x00"  # minus 512, in base 256
GOOD = header() + b"x".ljust(512, b"\0")
REFUSED = {
    "empty": (b"", "cannot be read as a tar archive"),
    "no samples": (END, "has no samples"),
    "text": (b"hello" * 300, "cannot be read as a tar archive"),
    "link": (GOOD + header(b"0.cls", b"00000000000", b"2") + END, "'0.cls', which is no plain file"),
    "hard link": (GOOD + header(b"0.cls", b"00000000000", b"1") + END, "'0.cls', which is no plain file"),
    "device": (GOOD + header(b"0.cls", b"00000000000", b"3") + END, "'0.cls', which is no plain file"),
    "sparse": (GOOD + header(b"0.cls", b"00000000000", b"S") + END, "'0.cls', which is no plain file"),
    "huge": (GOOD + header(b"0.cls", b"77777777777") + END, "ends within '0.cls'"),
    "huge name": (GOOD + header(b"long", b"77777777777", b"L") + END, "a header of 8,589,934,"),
    "huge pax": (GOOD + header(b"long", b"77777777777", b"x") + END, "a header of 8,589,934,"),
    "negative": (GOOD + header(b"0.cls", NEGATIVE) + END, "a.tar "),
    "negative, of no sample": (GOOD + header(b"README", NEGATIVE) + END, "'README' lies before the file"),
    "negative pax": (GOOD + header(b"long", NEGATIVE, b"x") + END, "a.tar "),
    "twice": (GOOD + GOOD + END, "'0.jpg' twice in one sample"),
    "cut": (GOOD + header(b"1.jpg", b"00000001750") + b"x" * 99, "ends within '1.jpg'"),
    "cut in its padding": (GOOD[:600], "cannot be read as a tar archive"),
    "no end": (GOOD, "ends without the end marker"),
    "damaged header": (GOOD + b"\1" + GOOD[1:] + END, "is damaged at byte 1,024"),
    "two archives": (GOOD + END + bytes(2**20) + GOOD, "goes on behind its end marker"),
    "many endings": (b"".join(header(b"0.%d" % i, b"00000000000") for i in range(70)) + END, "over 64 endings"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("case", REFUSED)
def test_archives_that_are_refused(tmp_path, case):
    content, message = REFUSED[case]
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        webdataset(path, features="jpg", label="cls", size=(4, 4))


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_compressed_archives_are_refused_with_their_cure(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tar", f"w:{kind}") as archive:
        archive.addfile(tarfile.TarInfo("0.cls"))
    with pytest.raises(DataError, match=r"is compressed by .*Unpack it"):
        webdataset(tmp_path)


def test_the_index_is_kept_and_fits_its_shard_alone(tmp_path):
    path = write(tmp_path / "a.tar", members(range(5)))
    assert len(webdataset(path, features="vec.npy")) == 5
    (index,) = tmp_path.glob(".*index")
    stamp = index.stat().st_mtime_ns
    assert len(webdataset(path, features="vec.npy")) == 5
    assert index.stat().st_mtime_ns == stamp
    write(path, members(range(10, 17)))
    np.testing.assert_array_equal(webdataset(path, features="vec.npy")[6][0], VECTORS[16])
