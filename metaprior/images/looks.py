"""How an image file looks: its pixels as bytes, as an image viewer shows them.

Files of more than 8 bits a value say how many bits they have, but rarely what is white in them. So
what is white is decided for all images of a set together, and said.
"""

import io
import struct
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from metaprior.errors import InputError

DEPTHS = (8, 10, 12, 14, 16)  # bits of cameras, scanners and microscopes
DIM = 0.1  # numbers from 0 to less than this are not meant as shares of white
_TRANSPARENT = ("LA", "La", "RGBA", "RGBa", "PA")
# Tags of TIFF.
_BITS, _MEANING, _FORMAT, _WHITE_IS_ZERO, _SIGNED = 258, 262, 339, 0, 2


@dataclass(frozen=True)
class Picture:
    """One image as its file has it, upright.

    Args:
        values: bytes, `(h, w)` grey or `(h, w, 3)`; or the file's numbers, `(h, w)`, of `kind`.
        kind: `""` for bytes; else what the file holds: `"16-bit"`, `"32-bit"` or `"float"`
            numbers, or `"16-bit colour"`, of which the upper 8 bits are read.
        white: what is white in numbers, where the file says it.
        inverted: whether large numbers are dark.
        frames: whether the file holds more images than this one.
    """

    values: np.ndarray
    kind: str = ""
    white: float | None = None
    inverted: bool = False
    frames: bool = False

    @property
    def ready(self) -> bool:
        """Whether the values are bytes already."""
        return self.values.dtype == np.uint8

    def shown(self, black: float, white: float) -> np.ndarray:
        """Bytes, with these numbers black and white."""
        share = (self.values.astype(np.float64) - black) / (white - black)
        grey = np.rint(255 * share.clip(0, 1)).astype(np.uint8)
        return 255 - grey if self.inverted else grey


@dataclass
class Span:
    """What all images of one kind hold.

    Args:
        low, high: smallest and largest number.
        images: how many there are.
        first: where the first of them is.
    """

    low: float
    high: float
    images: int
    first: str

    def scale(self, kind: str) -> tuple[float, float]:
        """The numbers that are black and white."""
        whole = kind != "float" and self.low >= 0
        if whole and self.high < 1 << DEPTHS[-1]:
            return 0.0, float(next((1 << d) - 1 for d in DEPTHS if self.high < 1 << d))
        if kind == "float" and self.low >= 0 and DIM < self.high <= 1:
            return 0.0, 1.0
        return self.low, self.high if self.high > self.low else self.low + 1

    def remark(self, kind: str) -> str | None:
        """What was made of the numbers, unless it is what the file says."""
        black, white = self.scale(kind)
        if (kind, black, white) == ("16-bit", 0.0, 65535.0):
            return None
        images = "1 image holds" if self.images == 1 else f"{self.images} images hold"
        return (
            f"{images} {kind} numbers from {self.low:g} to {self.high:g}: "
            f"{black:g} is drawn black and {white:g} white"
        )


class Spans(dict[str, Span]):
    """The span of each kind that must be known before its images can be drawn."""

    def add(self, picture: Picture, where: str) -> None:
        """Take in what one image holds."""
        if not picture.kind or picture.white is not None:
            return
        low, high = float(picture.values.min()), float(picture.values.max())
        span = self.setdefault(picture.kind, Span(low, high, 0, where))
        span.low, span.high = min(span.low, low), max(span.high, high)
        span.images += 1

    def check(self) -> None:
        """Colours of 16 bits have something in the bits that are read."""
        span = self.get("16-bit colour")
        if span is not None and span.high < 16:
            raise InputError(
                f"{span.first}: has 16 bits a colour and uses at most the lower 12, which are not "
                "read; save it with 8 bits a colour."
            )

    def draw(self, picture: Picture) -> np.ndarray:
        """The image as bytes."""
        if picture.ready:
            return picture.values
        if picture.white is not None:
            return picture.shown(0.0, picture.white)
        return picture.shown(*self[picture.kind].scale(picture.kind))

    def remarks(self) -> list[str]:
        """What was made of numbers."""
        each: Iterable[str | None] = (s.remark(k) for k, s in self.items() if k != "16-bit colour")
        return [remark for remark in each if remark]


def picture_of(data: bytes, where: str, most: int) -> Picture:
    """The (first) image of a file.

    Args:
        data: the file.
        where: what messages call it.
        most: pixels that an image may have.

    Raises:
        InputError: it is too large, damaged, or of a kind that is not read.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.size[0] * image.size[1] > most:
                raise InputError(
                    f"{where}: is {image.size[0]} x {image.size[1]}; at most {most} pixels are "
                    "read."
                )
            return _picture(image, where)
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(
            f"{where}: is no readable image: damaged, or of a kind that is not read; "
            "save it as PNG with 8 bits."
        ) from None
    except Exception as error:  # Pillow's decoders raise many kinds of errors
        raise InputError(
            f"{where}: is no readable image ({type(error).__name__}: {error})."
        ) from None


def _picture(image: Image.Image, where: str) -> Picture:
    tags = getattr(image, "tag_v2", {})
    deep_colour = ";16" in _raw(image) and image.mode in ("RGB", "RGBA", "RGBa", "LA", "CMYK")
    # Photographs of some telephones hold a second, small one.
    frames = bool(getattr(image, "is_animated", False)) and image.format != "MPO"
    if image.mode in ("LAB", "HSV"):
        raise InputError(
            f"{where}: holds {image.mode} colours, which are not read; save it as RGB."
        )

    raw = _raw(image)
    image.load()
    upright = _upright(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _integers(upright, image.format or "", tags, raw, frames)
    if image.mode == "F":
        values = np.asarray(upright)
        if not np.isfinite(values).all():
            raise InputError(f"{where}: holds values that are no numbers (NaN or infinite).")
        return Picture(values, "float", inverted=_inverted(tags), frames=frames)
    kind = "16-bit colour" if deep_colour else ""
    return Picture(_bytes(upright), kind, frames=frames)


def _raw(image: Image.Image) -> str:
    """How the file lays out its numbers, in Pillow's words."""
    return " ".join(str(tile[3]) for tile in getattr(image, "tile", ()))


def _inverted(tags) -> bool:
    return tags.get(_MEANING) == _WHITE_IS_ZERO


def _upright(image: Image.Image) -> Image.Image:
    """Turned as the camera said; a damaged note of the camera says nothing."""
    try:
        return ImageOps.exif_transpose(image)
    except (struct.error, SyntaxError, ValueError, TypeError, KeyError, OSError):
        return image


def _integers(upright: Image.Image, form: str, tags, raw: str, frames: bool) -> Picture:
    """Grey numbers of more than 8 bits."""
    values, inverted = np.asarray(upright), _inverted(tags)
    if upright.mode.startswith("I;16") or form == "PNG":
        # TIFF can say 12 bits, and 4095 is then white.
        white = 4095.0 if "I;12" in raw else None
        return Picture(values, "16-bit", white, inverted, frames)
    if form == "PPM":  # Pillow scales it to 16 bits by the white that the file names
        return Picture(values, "16-bit", 65535.0, inverted, frames)
    bits, signed = tags.get(_BITS, (32,))[0], tags.get(_FORMAT, (1,))[0] == _SIGNED
    if bits == 32 and not signed:  # Pillow reads them as signed
        values = np.asarray(values, np.int32).view(np.uint32)
    return Picture(values, "32-bit" if bits == 32 else "16-bit", None, inverted, frames)


def _bytes(image: Image.Image) -> np.ndarray:
    """Grey or three channels of bytes; what is transparent lies on white."""
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        grey = image.mode in ("LA", "La")
        whole = image.convert("LA" if grey else "RGBA").convert("RGBA")
        back = Image.new("RGBA", whole.size, "white")
        merged = Image.alpha_composite(back, whole)
        return np.asarray(merged.convert("L" if grey else "RGB"))
    return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
