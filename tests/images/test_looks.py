"""Deep and odd images look as in an image viewer, or are refused by name."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metaprior.errors import InputError
from metaprior.images import read_classes
from metaprior.images.tree import Tree

# A ramp that is not symmetric, so that turning and mirroring show.
RAMP = np.arange(48, dtype=np.float64).reshape(6, 8) / 47
GREY = np.rint(255 * RAMP).astype(np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=2)
ALPHA = np.where(np.arange(8) < 4, 255, 51).astype(np.uint8) * np.ones((6, 1), np.uint8)


def saved(array, form: str, mode: str | None = None, **options) -> bytes:
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image = image.convert(mode) if mode else image
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    body = name + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(pixels: np.ndarray, bits: int, colour: int, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG of rows of bytes; `colour` is its kind: 0 grey, 2 colours, 4 grey with opacity, 6."""
    h, w = pixels.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", w, h, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", head), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def tiff(pixels: np.ndarray, bits: int, *, meaning: int = 1, form: int = 1, order: str = "<"):
    """A TIFF of one strip; `meaning` 0: zero is white; `form`: 1 whole, 2 signed, 3 float."""
    h, w = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if bits == 12:  # two numbers in three bytes
        a, b = pixels.reshape(-1, 2).T.astype(np.uint16)
        data = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], 1).astype(np.uint8).tobytes()
    else:
        data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    tags = {256: w, 257: h, 258: bits, 259: 1, 262: meaning, 273: 8 + 2 + 12 * 10 + 4}
    tags |= {277: channels, 278: h, 279: len(data), 339: form}
    entries = b""
    for tag, value in tags.items():
        kind = 4 if tag in (273, 279) else 3
        field = struct.pack(order + ("I" if kind == 4 else "H"), value).ljust(4, b"\0")
        entries += struct.pack(order + "HHI", tag, kind, 1) + field
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(order + "HI", 42, 8) + struct.pack(order + "H", len(tags))
    return head + entries + b"\0\0\0\0" + data


def over_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = (alpha / 255 if pixels.ndim == 2 else alpha[..., None] / 255).astype(np.float64)
    return np.rint(255 + (pixels.astype(float) - 255) * share)


def big(most: float) -> np.ndarray:
    return np.rint(most * RAMP)


def deep(pixels: np.ndarray) -> np.ndarray:
    """The same in 16 bits."""
    return (pixels.astype(int) * 257).astype(">u2")


def palette(**options) -> bytes:
    image = Image.fromarray(GREY // 64, "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 8, 7])
    return saved(image, "PNG", **options)


def turned(orientation: int, form: str = "PNG", **options) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    return saved(COLOUR, form, exif=exif, **options)


def frames() -> bytes:
    first, second = (Image.fromarray(a).convert("P") for a in (GREY, 255 - GREY))
    return saved(first, "GIF", save_all=True, append_images=[second])


NAMES = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]], np.uint8)
INKS = np.stack([GREY, GREY[::-1], 255 - GREY, GREY // 4], axis=2)
PRINTED = np.rint((255.0 - INKS[..., :3]) * (255.0 - INKS[..., 3:]) / 255)
LOOKS = {
    "16-bit PNG": (png(big(65535).astype(">u2"), 16, 0), GREY),
    "12 bits in a 16-bit PNG": (png(big(4095).astype(">u2"), 16, 0), GREY),
    "16-bit colours in PNG": (png(deep(COLOUR), 16, 2), COLOUR),
    "16-bit grey with opacity": (
        png(deep(np.stack([GREY, ALPHA], 2)), 16, 4),
        over_white(GREY, ALPHA),
    ),
    "16-bit TIFF": (tiff(big(65535).astype("u2"), 16), GREY),
    "16-bit TIFF, Motorola": (tiff(big(65535).astype("u2"), 16, order=">"), GREY),
    "16-bit TIFF, zero is white": (tiff(big(65535).astype("u2"), 16, meaning=0), 255 - GREY),
    "12-bit TIFF": (tiff(big(4095).astype("u2"), 12), GREY),
    "dim 12-bit TIFF": (tiff(big(1000).astype("u2"), 12), np.rint(GREY * (1000 / 4095))),
    "signed 16-bit TIFF": (tiff((big(60000) - 30000).astype("i2"), 16, form=2), GREY),
    "32-bit TIFF": (tiff(big(2**32 - 1).astype("u4"), 32), GREY),
    "32-bit TIFF of bytes": (tiff(big(255).astype("u4"), 32), GREY),
    "signed 32-bit TIFF": (tiff((big(2e9) - 1e9).astype("i4"), 32, form=2, order=">"), GREY),
    "float TIFF": (tiff(RAMP.astype("f4"), 32, form=3), GREY),
    "float TIFF, zero is white": (tiff(RAMP.astype("f4"), 32, form=3, meaning=0), 255 - GREY),
    "float TIFF of large numbers": (tiff((1e6 * RAMP - 3e5).astype("f4"), 32, form=3), GREY),
    "float TIFF of small numbers": (tiff((1e-5 * RAMP).astype("f4"), 32, form=3), GREY),
    "PGM up to 1000": (b"P5 8 6 1000\n" + big(1000).astype(">u2").tobytes(), GREY),
    "1 bit": (saved(GREY > 99, "PNG"), np.where(GREY > 99, 255, 0)),
    "1-bit TIFF": (saved(GREY > 99, "TIFF", compression="group4"), np.where(GREY > 99, 255, 0)),
    "palette": (palette(), NAMES[GREY // 64]),
    "palette, one transparent": (
        palette(transparency=1),
        np.where((GREY // 64 == 1)[..., None], 255, NAMES[GREY // 64]),
    ),
    "palette, half transparent": (
        palette(transparency=bytes([255, 51, 255, 255])),
        over_white(NAMES[GREY // 64], np.where(GREY // 64 == 1, 51, 255)),
    ),
    "grey with opacity": (saved(np.stack([GREY, ALPHA], 2), "PNG"), over_white(GREY, ALPHA)),
    "colours with opacity": (
        saved(np.concatenate([COLOUR, ALPHA[..., None]], 2), "PNG"),
        over_white(COLOUR, ALPHA),
    ),
    "one colour transparent": (
        saved(COLOUR, "PNG", transparency=tuple(map(int, COLOUR[2, 3]))),
        np.where((COLOUR == COLOUR[2, 3]).all(2, keepdims=True), 255, COLOUR),
    ),
    "printing inks": (saved(Image.fromarray(INKS, "CMYK"), "TIFF"), PRINTED),
    "animation": (frames(), GREY),
    "upside down": (turned(3), COLOUR[::-1, ::-1]),
    "on its side": (turned(6), np.rot90(COLOUR, -1)),
    "mirrored and on its side": (turned(5), COLOUR.swapaxes(0, 1)),
    "on its side in JPEG": (turned(6, "JPEG", quality=100, subsampling=0), np.rot90(COLOUR, -1)),
    "on its side in TIFF": (turned(8, "TIFF"), np.rot90(COLOUR)),
}
KIND = {b"\x89P": "png", b"II": "tif", b"MM": "tif", b"P5": "pgm", b"GI": "gif", b"\xff\xd8": "jpg"}


def placed(root: Path, data: bytes, name: str = "image") -> tuple[Tree, str]:
    file = f"{name}.{KIND[data[:2]]}"
    root.mkdir(exist_ok=True)
    (root / file).write_bytes(data)
    return Tree(root), file


@pytest.mark.parametrize("name", LOOKS)
def test_an_image_looks_as_in_a_viewer(name, tmp_path):
    data, expected = LOOKS[name]
    tree, file = placed(tmp_path, data)
    found = tree.pixels(file)
    assert found.dtype == np.uint8
    if found.ndim > expected.ndim:
        expected = np.repeat(expected[..., None], 3, 2)
    assert found.shape == expected.shape
    assert np.abs(found.astype(float) - expected).max() <= (8 if file.endswith("jpg") else 1)


@pytest.mark.parametrize("inks", [False, True])
def test_jpegs(inks, tmp_path):
    """Progressive, and of printing inks, which are stored inverted; compression costs a little."""
    if inks:
        image, expected = (
            Image.fromarray(np.kron(INKS, np.ones((8, 8, 1), np.uint8)), "CMYK"),
            PRINTED,
        )
    else:
        image, expected = Image.fromarray(np.kron(COLOUR, np.ones((8, 8, 1), np.uint8))), COLOUR
    tree, file = placed(tmp_path, saved(image, "JPEG", quality=95, progressive=True))
    found = tree.pixels(file).reshape(6, 8, 8, 8, 3).mean((1, 3))
    assert np.abs(found - expected).mean() < 5


REFUSED = {
    "cut off": (saved(COLOUR, "PNG")[:90], "is no readable image"),
    "JPEG cut off": (
        saved(np.kron(COLOUR, np.ones((9, 9, 1), np.uint8)), "JPEG")[:-300],
        "truncat",
    ),
    "no image": (b"\x89PNG and then nothing", "save it as PNG with 8 bits"),
    "colours as floats": (
        tiff(COLOUR.astype("f4"), 32, form=3, meaning=2),
        "save it as PNG with 8 bits",
    ),
    "NaN": (tiff(np.where(RAMP > 0.5, np.nan, RAMP).astype("f4"), 32, form=3), "no numbers"),
    "12-bit colours": (
        png(COLOUR.astype(">u2"), 16, 2),
        "16 bits a colour and uses at most the lower 12",
    ),
    "Lab": (tiff(COLOUR, 8, meaning=8), "holds LAB colours"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_shown_is_refused_by_name(name, tmp_path):
    data, words = REFUSED[name]
    tree, file = placed(tmp_path, data)
    with pytest.raises(InputError, match=f"{file}: .*{words}"):
        tree.pixels(file)


def test_what_is_white_is_decided_for_a_whole_set_and_said(tmp_path):
    """The dim image stays dimmer than the bright one; without the bright one it would be white."""
    for name, most in (("a", 1000), ("b", 4000)):
        placed(tmp_path / name, png(big(most).astype(">u2"), 16, 0))
        placed(tmp_path / name, tiff((most * RAMP).astype("f4"), 32, form=3), "float")
        placed(tmp_path / name, frames(), "moving")
    read = read_classes(tmp_path)
    brightest = read.pixels.max(axis=(1, 2, 3))
    assert brightest.tolist() == [64, 62, 255, 255, 249, 255]
    said = "; ".join(read.remarks)
    assert "2 images hold 16-bit numbers from 0 to 4000: 0 is drawn black and 4095 white" in said
    assert "2 images hold float numbers from 0 to 4000: 0 is drawn black and 4000 white" in said
    assert "2 files hold several images; the first of each is used" in said


def test_kinds_that_are_not_read_are_said(tmp_path):
    for name in ("a", "b"):
        placed(tmp_path / name, saved(COLOUR, "PNG"))
    (tmp_path / "a" / "2.HEIC").write_bytes(b"")
    said = "1 file is of kinds that are not read (.heic)"
    assert read_classes(tmp_path).remarks == (f"{said} and left out",)
    for file in tmp_path.rglob("*.png"):
        file.unlink()
    with pytest.raises(InputError, match=r"holds no images; .* \(.heic\): save them as PNG"):
        read_classes(tmp_path)
