"""Files of a folder or a zip archive by name, read within limits; nothing is ever unpacked."""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from metaprior.errors import InputError
from metaprior.images.looks import Picture, Spans, picture_of

KINDS = set(
    ".png .apng .jpg .jpeg .jpe .jfif .jp2 .bmp .gif .tif .tiff .webp .avif .ppm .pgm .pbm .pnm"
    "".split()
)
# Images too, which are not read.
OTHERS = set(".heic .heif .svg .psd .dng .raw .cr2 .cr3 .nef .arw .exr .hdr .dcm .nii .pdf".split())
OF_CLASSES = ("train.csv", "val.csv", "test.csv")
OF_FACES = tuple(
    f"list_{what}.{kind}" for what in ("attr_celeba", "eval_partition") for kind in ("txt", "csv")
)
TABLES = (*OF_CLASSES, *OF_FACES)
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
        """Files below the folder, without hidden ones."""
        for folder, _, files in os.walk(self.path):
            for name in files:
                whole = PurePosixPath(Path(folder, name).relative_to(self.path).as_posix())
                if not any(part.startswith(".") for part in whole.parts):
                    yield str(whole)

    def _members(self) -> Iterator[str]:
        """Files of the archive, without hidden ones."""
        try:
            self._zip = zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(
                f"{self.path}: neither a folder nor a readable zip archive ({error})."
            ) from None
        for info in self._zip.infolist():
            # Names that lead out of a folder, also by Windows' backslashes and drives. Nothing is
            # unpacked, but such an archive was not made in good faith.
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

    def unread(self) -> str:
        """What to say of images of kinds that are not read; `""` where there are none."""
        ends = [PurePosixPath(name).suffix.lower() for name in self.names]
        left = [end for end in ends if end in OTHERS]
        if not left:
            return ""
        files = "1 file is" if len(left) == 1 else f"{len(left)} files are"
        return f"{files} of kinds that are not read ({', '.join(sorted(set(left)))})"

    def of_images(self) -> list[str]:
        """Names of image files and of the tables that say what they are, sorted."""
        tables = {name for name in self.names if PurePosixPath(name).name in TABLES}
        return sorted(tables.union(self.images()))

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
                return file.read(MOST_FILE)  # an archive may say a smaller size than it unpacks to
        except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
            raise InputError(f"{self.where(name)}: cannot be read ({error}).") from None

    def text(self, name: str) -> str:
        """One file as text."""
        try:
            return self.read(name).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise InputError(f"{self.where(name)}: is not text in UTF-8.") from None

    def picture(self, name: str) -> Picture:
        """One image as its file has it."""
        return picture_of(self.read(name), self.where(name), MOST_PIXELS)

    def pixels(self, name: str) -> np.ndarray:
        """One image as a viewer shows it, `(h, w)` grey or `(h, w, 3)`, bytes.

        It is upright, and lies on white where it is transparent. Numbers of more than 8 bits are
        drawn by what the image holds; `read_all` goes by what all of them hold.
        """
        picture, spans = self.picture(name), Spans()
        spans.add(picture, self.where(name))
        spans.check()
        return spans.draw(picture)


def resize(pixels: np.ndarray, size: int, crop: bool = False) -> np.ndarray:
    """An image `(h, w)` or `(h, w, c)` of bytes, brought to `size` x `size`.

    Pixels are averages over boxes, or linear where the image becomes larger. `crop` takes the
    middle square first; else the image is stretched.
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
    grey = pixels.ndim == 3 and pixels.shape[2] == 1  # Pillow knows no axis of one channel
    image = Image.fromarray(pixels[..., 0] if grey else pixels)
    small = np.asarray(image.resize((size, size), kind))
    return small[..., None] if grey else small


def stack(images: list[np.ndarray]) -> np.ndarray:
    """Images of one size as `(n, h, w, c)`: one channel if all are grey, else three."""
    if all(image.ndim == 2 for image in images):
        return np.stack(images)[..., None]
    return np.stack([np.repeat(i[..., None], 3, axis=2) if i.ndim == 2 else i for i in images])


def _check_bytes(tree: Tree, used: int) -> None:
    """Not too many images are kept."""
    if used > MOST_BYTES:
        raise InputError(
            f"{tree.path}: its images take more than {MOST_BYTES // 2**30} GiB; "
            "choose a smaller size or fewer images."
        )


def read_all(
    tree: Tree, names: list[str], size: int | None, crop: bool = False
) -> tuple[np.ndarray, list[str]]:
    """Images `(n, h, w, c)` of one size, and remarks.

    Args:
        tree: where they are.
        names: which.
        size: height and width. `None` keeps a size that all share; where they differ it takes the
            smallest side, 84 at most.
        crop: the middle square instead of stretching.
    """
    if size is not None and not 1 <= size <= 1024:
        raise InputError(f"--size is 1 to 1024 pixels; got {size}.")
    found, shapes, used = [], {}, 0  # shapes as keys, which keep their order
    spans, later, frames = Spans(), [], 0
    blank = np.zeros((0, 0), np.uint8)
    for name in names:
        picture = tree.picture(name)
        spans.add(picture, tree.where(name))
        shapes[picture.values.shape[:2]] = None
        frames += picture.frames
        if not picture.ready:
            # What is white in it is known when all have been seen. Then it is read again: kept as
            # numbers, it would take up to four times the memory.
            later.append(len(found))
        image = picture.values if picture.ready else blank
        found.append(image if size is None or not picture.ready else resize(image, size, crop))
        used += found[-1].nbytes
        _check_bytes(tree, used)
    spans.check()
    for i in later:
        image = spans.draw(tree.picture(names[i]))
        found[i] = image if size is None else resize(image, size, crop)
        used += found[i].nbytes
        _check_bytes(tree, used)

    remarks = spans.remarks()
    if tree.unread():
        remarks.append(f"{tree.unread()} and left out")
    if frames:
        files = "1 file holds" if frames == 1 else f"{frames} files hold"
        remarks.append(f"{files} several images; the first of each is used")
    if size is None and len(shapes) > 1:
        size = min(84, *(min(shape) for shape in shapes))
        found = [resize(image, size, crop) for image in found]
    if size is not None and set(shapes) != {(size, size)}:
        some = ", ".join(f"{h} x {w}" for h, w in list(shapes)[:3])
        more = ", …" if len(shapes) > 3 else ""
        sizes = "1 size" if len(shapes) == 1 else f"{len(shapes)} sizes"
        remarks.append(f"images of {sizes} ({some}{more}) were made {size} x {size}")
    return stack(found), remarks
