"""Images in .npz and .npy files, read within limits and never unpickled."""

import zipfile
from pathlib import Path

import numpy as np

from metaprior.errors import InputError
from metaprior.images.tree import MOST_BYTES, resize

_UNREADABLE = (zipfile.BadZipFile, ValueError, OSError, EOFError, KeyError)


def arrays(path: Path, names: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
    """The arrays that an .npz holds, of those named; `None`: all.

    Raises:
        InputError: no such file, one that cannot be read, or an array that is too large.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder.")
    found = {}
    try:
        with zipfile.ZipFile(path) as file:
            members = file.namelist()
            if names is None:
                names = tuple(member.removesuffix(".npy") for member in members)
            for name in names:
                if f"{name}.npy" in members:
                    found[name] = _member(path, file, name)
    except InputError:
        raise
    except _UNREADABLE as error:
        raise InputError(f"{path}: is no readable .npz file ({error}).") from None
    return found


def _member(path: Path, file: zipfile.ZipFile, name: str) -> np.ndarray:
    """One array of an .npz. Its header is read first: it may claim any size."""
    with file.open(f"{name}.npy") as part:
        version = np.lib.format.read_magic(part)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(part)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(part)
    if dtype.hasobject:
        raise InputError(f"{path}: {name} holds Python objects, which are not read.")

    size = int(np.prod(shape, dtype=object)) * dtype.itemsize  # Python numbers do not overflow
    if size > MOST_BYTES or size > file.getinfo(f"{name}.npy").file_size:
        raise InputError(
            f"{path}: {name} says it has {size} bytes, more than the file holds or than are read."
        )
    with file.open(f"{name}.npy") as part:
        return np.lib.format.read_array(part, allow_pickle=False)


def array(path: Path) -> np.ndarray:
    """The array of an .npy; its size is checked before anything is allocated."""
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder.")
    try:
        # Mapped into memory: the size is known before a byte is read.
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(found, np.ndarray) and found.nbytes <= MOST_BYTES:
            return np.array(found)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path}: is no readable .npy file ({error}).") from None
    raise InputError(f"{path}: is no .npy file of one array of at most {MOST_BYTES // 2**30} GiB.")


def as_images(path: Path, name: str, pixels: np.ndarray, lead: int) -> np.ndarray:
    """Images as bytes `(…, h, w, 1 or 3)`, behind `lead` axes.

    Given are `(…, h, w)`, `(…, h, w, c)` or `(…, c, h, w)`: numbers from 0 to 255, or from 0 to 1
    if none is larger. A fourth channel is opacity, over white as in files. An array of another
    shape is returned as it is.
    """
    pixels = _as_bytes(path, name, pixels) if pixels.size else pixels
    if pixels.ndim == lead + 2:
        return pixels[..., None]
    if pixels.ndim != lead + 3:
        return pixels
    # Channels in front, as PyTorch has them, unless the last axis could be the channels as well.
    if pixels.shape[lead] in (1, 3, 4) and pixels.shape[-1] not in (1, 3, 4):
        pixels = np.ascontiguousarray(np.moveaxis(pixels, lead, -1))
    if pixels.shape[-1] == 4:
        opacity = pixels[..., 3:].astype(np.float32) / 255
        pixels = np.rint(255 - (255 - pixels[..., :3]) * opacity).astype(np.uint8)
    return pixels


def _as_bytes(path: Path, name: str, pixels: np.ndarray) -> np.ndarray:
    number = pixels.dtype.kind in "buif"
    low, high = (pixels.min(), pixels.max()) if number else (np.nan, np.nan)
    if not (low >= 0 and high <= 255):  # NaN is refused as well
        said = f"{pixels.dtype} from {low:g} to {high:g}" if number else str(pixels.dtype)
        raise InputError(
            f"{path}: {name} are bytes, or numbers from 0 to 1 or from 0 to 255; got {said}."
        )
    if pixels.dtype == np.uint8 and high > 1:
        return pixels
    return np.rint(pixels * np.float32(255 if high <= 1 else 1)).astype(np.uint8)


def sized(
    path: Path, pixels: np.ndarray, size: int | None, crop: bool = False
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Images `(…, h, w, c)` brought to `size` x `size`, and what to remark; `None` keeps them."""
    *lead, height, width, channels = pixels.shape
    if size is None or (height, width) == (size, size):
        return pixels, ()
    if np.prod(lead, dtype=object) * size * size * channels > MOST_BYTES:
        raise InputError(
            f"{path}: its images take more than {MOST_BYTES // 2**30} GiB at size {size}."
        )
    flat = pixels.reshape(-1, height, width, channels)
    small = np.stack([resize(image, size, crop) for image in flat])
    remark = f"images of {height} x {width} were made {size} x {size}"
    return small.reshape(*lead, size, size, channels), (remark,)
