"""Files of a folder or a zip archive by name, read within limits; nothing is ever unpacked."""

import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from metaprior.errors import InputError

KINDS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
TABLES = ("train.csv", "val.csv", "test.csv", "list_attr_celeba.txt")
MOST_FILES = 2_000_000
MOST_FILE = 64 * 2**20  # bytes of one file
MOST_PIXELS = 64_000_000  # of one image, before it is made smaller
MOST_BYTES = 4 * 2**30  # of all images together, as they are kept


class Tree:
    """Names below a folder or inside a zip archive, and their bytes.

    Args:
        path: folder or .zip.
    """

    def __init__(self, path: Path):
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        if path.is_dir():
            self.names = sorted(self._walk())
        elif path.is_file():
            self.names = sorted(self._members())
        else:
            raise InputError(f"{path}: no such file or folder.")
        if len(self.names) > MOST_FILES:
            raise InputError(
                f"{path}: holds {len(self.names)} files; at most {MOST_FILES} are read."
            )

    def _walk(self) -> Iterator[str]:
        for folder, _, files in os.walk(self.path):
            for name in files:
                whole = PurePosixPath(Path(folder, name).relative_to(self.path).as_posix())
                if not any(part.startswith(".") for part in whole.parts):
                    yield str(whole)

    def _members(self) -> Iterator[str]:
        try:
            self._zip = zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(
                f"{self.path}: neither a folder nor a readable zip archive ({error})."
            ) from None
        for info in self._zip.infolist():
            parts = PurePosixPath(info.filename.replace("\\", "/"))
            if parts.is_absolute() or ".." in parts.parts or ":" in info.filename.split("/")[0]:
                raise InputError(
                    f"{self.path}: refused: it names {info.filename!r}, outside of the archive."
                )
            hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts.parts)
            if not info.is_dir() and not hidden:
                yield info.filename

    def images(self) -> list[str]:
        """Names of image files, sorted."""
        return [name for name in self.names if PurePosixPath(name).suffix.lower() in KINDS]

    def of_images(self) -> list[str]:
        """Names of image files and of the tables that say what they are, sorted."""
        return [
            n
            for n in self.names
            if PurePosixPath(n).suffix.lower() in KINDS or PurePosixPath(n).name in TABLES
        ]

    def where(self, name: str) -> str:
        """A file as an error should name it."""
        return f"{self.path / name}" if self._zip is None else f"{self.path}: {name}"

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        try:
            if self._zip is None:
                size = (self.path / name).stat().st_size
            else:
                size = self._zip.getinfo(name).file_size
            if size > MOST_FILE:
                raise InputError(
                    f"{self.where(name)}: has {size} bytes; at most {MOST_FILE} are read."
                )
            if self._zip is None:
                return (self.path / name).read_bytes()
            with self._zip.open(name) as file:
                return file.read(MOST_FILE)
        except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
            raise InputError(f"{self.where(name)}: cannot be read ({error}).") from None

    def text(self, name: str) -> str:
        """One file as text."""
        try:
            return self.read(name).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise InputError(f"{self.where(name)}: is not text in UTF-8.") from None

    def pixels(self, name: str) -> np.ndarray:
        """One image, `(h, w)` grey or `(h, w, 3)`, bytes; a transparent one lies on white."""
        data = self.read(name)
        try:
            with Image.open(io.BytesIO(data)) as image:
                if image.size[0] * image.size[1] > MOST_PIXELS:
                    raise InputError(
                        f"{self.where(name)}: is {image.size[0]} x {image.size[1]}; at most {MOST_PIXELS} pixels are read."
                    )
                return _plain(image)
        except InputError:
            raise
        except Exception as error:  # Pillow's decoders raise many kinds
            raise InputError(
                f"{self.where(name)}: is no readable image ({type(error).__name__})."
            ) from None


def _plain(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16") or image.mode == "I":
        return (np.asarray(image, np.float64) / 257).clip(0, 255).astype(np.uint8)
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        whole = image.convert("RGBA")
        back = Image.new("RGBA", whole.size, "white")
        merged = Image.alpha_composite(back, whole)
        return np.asarray(merged.convert("L" if image.mode in ("LA", "La") else "RGB"))
    return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))


def resize(pixels: np.ndarray, size: int, crop: bool = False) -> np.ndarray:
    """`(h, w)` or `(h, w, c)` bytes to `size` x `size`: averages over boxes, or linear where it
    becomes larger.

    `crop` takes the middle square first; else the image is stretched.
    """
    h, w = pixels.shape[:2]
    if crop and h != w:
        side = min(h, w)
        top, left = (h - side) // 2, (w - side) // 2
        pixels = pixels[top : top + side, left : left + side]
        h = w = side
    if (h, w) == (size, size):
        return pixels
    kind = Image.Resampling.BOX if size <= min(h, w) else Image.Resampling.BILINEAR
    grey = pixels.ndim == 3 and pixels.shape[2] == 1
    small = np.asarray(
        Image.fromarray(pixels[..., 0] if grey else pixels).resize((size, size), kind)
    )
    return small[..., None] if grey else small


def stack(images: list[np.ndarray]) -> np.ndarray:
    """Images of one size as `(n, h, w, c)`: one channel if all are grey, else three."""
    if all(image.ndim == 2 for image in images):
        return np.stack(images)[..., None]
    return np.stack([np.repeat(i[..., None], 3, axis=2) if i.ndim == 2 else i for i in images])


def read_all(
    tree: Tree, names: list[str], size: int | None, crop: bool = False
) -> tuple[np.ndarray, list[str]]:
    """Images `(n, h, w, c)` of one size, and remarks.

    Args:
        tree: where they are.
        names: which.
        size: height and width; `None` keeps a size that all share, else takes the smallest side (84
            at most).
        crop: the middle square instead of stretching.
    """
    if size is not None and not 1 <= size <= 1024:
        raise InputError(f"--size is 1 to 1024 pixels; got {size}.")
    found, shapes, used = [], {}, 0
    for name in names:
        image = tree.pixels(name)
        shapes.setdefault(image.shape[:2], name)
        found.append(image if size is None else resize(image, size, crop))
        used += found[-1].nbytes
        if used > MOST_BYTES:
            raise InputError(
                f"{tree.path}: its images take more than {MOST_BYTES // 2**30} GiB; choose a smaller size or fewer images."
            )
    remarks = []
    if size is None and len(shapes) > 1:
        size = min(84, *(min(shape) for shape in shapes))
        found = [resize(image, size, crop) for image in found]
    if size is not None and set(shapes) != {(size, size)}:
        some = ", ".join(f"{h} x {w}" for h, w in list(shapes)[:3]) + (
            ", …" if len(shapes) > 3 else ""
        )
        remarks.append(
            f"images of {len(shapes)} size{'s' * (len(shapes) > 1)} ({some}) were made {size} x {size}"
        )
    return stack(found), remarks


def arrays(path: Path, names: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
    """Those of the named arrays (`None`: all) that an .npz holds; sizes are checked before anything
    is allocated.
    """
    found = {}
    try:
        with zipfile.ZipFile(path) as file:
            for name in (
                [n.removesuffix(".npy") for n in file.namelist()] if names is None else names
            ):
                if f"{name}.npy" not in file.namelist():
                    continue
                with file.open(f"{name}.npy") as part:
                    version = np.lib.format.read_magic(part)
                    read = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shape, _, dtype = read(part)
                if dtype.hasobject:
                    raise InputError(f"{path}: {name} holds Python objects, which are not read.")
                size = int(np.prod(shape, dtype=object)) * dtype.itemsize
                if size > MOST_BYTES or size > file.getinfo(f"{name}.npy").file_size:
                    raise InputError(
                        f"{path}: {name} says it has {size} bytes, more than the file holds or than are read."
                    )
                with file.open(f"{name}.npy") as part:
                    found[name] = np.lib.format.read_array(part, allow_pickle=False)
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is no readable .npz file ({error}).") from None
    return found


def array(path: Path) -> np.ndarray:
    """The array of an .npy; its size is checked before anything is allocated."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(found, np.ndarray) and found.nbytes <= MOST_BYTES:
            return np.array(found)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path}: is no readable .npy file ({error}).") from None
    raise InputError(f"{path}: is no .npy file of one array of at most {MOST_BYTES // 2**30} GiB.")


def as_images(path: Path, name: str, pixels: np.ndarray, lead: int) -> np.ndarray:
    """Bytes `(…, h, w, 1 or 3)` from `(…, h, w)`, `(…, h, w, c)` or `(…, c, h, w)`, behind `lead`
    axes.

    Numbers are from 0 to 255, or from 0 to 1 if none is larger. A fourth channel is opacity, over
    white as in files. What has another shape is left as it is.
    """
    if pixels.size:
        number = pixels.dtype.kind in "buif"
        low, high = (pixels.min(), pixels.max()) if number else (np.nan, np.nan)
        if not (low >= 0 and high <= 255):
            said = f"{pixels.dtype} from {low:g} to {high:g}" if number else str(pixels.dtype)
            raise InputError(
                f"{path}: {name} are bytes, or numbers from 0 to 1 or from 0 to 255; got {said}."
            )
        if pixels.dtype != np.uint8 or high <= 1:
            pixels = np.rint(pixels * np.float32(255 if high <= 1 else 1)).astype(np.uint8)
    if pixels.ndim == lead + 2:
        return pixels[..., None]
    if pixels.ndim != lead + 3:
        return pixels
    if pixels.shape[lead] in (1, 3, 4) and pixels.shape[-1] not in (1, 3, 4):
        pixels = np.ascontiguousarray(np.moveaxis(pixels, lead, -1))
    if pixels.shape[-1] == 4:
        opacity = pixels[..., 3:].astype(np.float32) / 255
        pixels = np.rint(255 - (255 - pixels[..., :3]) * opacity).astype(np.uint8)
    return pixels
