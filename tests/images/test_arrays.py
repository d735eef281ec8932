"""Images in .npz and .npy files: every shape and type, and every bad array with the file's name."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from metaprior.errors import InputError
from metaprior.images import read_attributes, read_classes, read_views


def write_npz(path: Path, **arrays) -> Path:
    np.savez(path, **arrays)
    return path


def test_arrays(tmp_path):
    pixels = np.zeros((4, 6, 6), np.uint8)
    plain = read_classes(write_npz(tmp_path / "a.npz", images=pixels, label=np.array([3, 3, 5, 5])))
    assert plain.names == ("3", "5") and plain.pixels.shape == (4, 6, 6, 1)
    floats = read_classes(
        write_npz(tmp_path / "f.npz", images=pixels + 0.5, label=np.array(["x", "x", "y", "y"])), 3
    )
    assert (
        floats.names == ("x", "y")
        and floats.pixels.shape == (4, 3, 3, 1)
        and floats.pixels.max() == 128
    )
    with pytest.raises(InputError, match="should hold the arrays images and label"):
        read_classes(write_npz(tmp_path / "b.npz", images=pixels))
    with pytest.raises(InputError, match=r"label has shape \(3,\); there are 4 images"):
        read_classes(write_npz(tmp_path / "c.npz", images=pixels, label=np.arange(3)))
    with pytest.raises(InputError, match="holds Python objects"):
        read_classes(
            write_npz(
                tmp_path / "d.npz", images=pixels, label=np.array([1, "a", None, 2], dtype=object)
            )
        )
    for wrong, said in (
        (pixels - 7.0, "float64 from -7 to -7"),
        (pixels.astype(int) + 256, "from 256 to 256"),
        (pixels * np.nan, "nan"),
    ):
        with pytest.raises(
            InputError, match=f"are bytes, or numbers from 0 to 1 or from 0 to 255; got .*{said}"
        ):
            read_classes(write_npz(tmp_path / "e.npz", images=wrong, label=np.arange(4)))


def test_an_array_that_says_it_is_larger_than_its_file_is_not_allocated(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**7, 100, 100)}
    )
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("images.npy", header.getvalue() + b"\0" * 100)
        file.writestr("label.npy", header.getvalue())
    with pytest.raises(
        InputError, match="images says it has 100000000000 bytes, more than the file holds"
    ):
        read_classes(tmp_path / "a.npz")


def test_arrays_without_a_name_or_with_channels_in_front(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (3, 4, 3, 8, 6), np.uint8)
    np.save(tmp_path / "v.npy", rows)
    np.savez(tmp_path / "v.npz", rows)
    for name in ("v.npy", "v.npz"):
        np.testing.assert_array_equal(read_views(tmp_path / name).pixels, np.moveaxis(rows, 2, -1))
    images = read_classes(write_npz(tmp_path / "c.npz", images=rows[0], label=np.arange(4)))
    np.testing.assert_array_equal(images.pixels, np.moveaxis(rows[0], 1, -1))
    found = read_attributes(write_npz(tmp_path / "f.npz", images=rows[0], hat=np.ones(4, bool)))
    np.testing.assert_array_equal(found.pixels, np.moveaxis(rows[0], 1, -1))
    (tmp_path / "w.npy").write_bytes((tmp_path / "v.npy").read_bytes()[:200])
    with pytest.raises(InputError, match=r"w.npy: is no readable .npy file"):
        read_views(tmp_path / "w.npy")
    np.save(tmp_path / "u.npy", rows.reshape(3, 4, -1))
    with pytest.raises(InputError, match=r"u.npy: views have the shape .* got \(3, 4, 144\)"):
        read_views(tmp_path / "u.npy")
    for read in (read_classes, read_attributes):
        with pytest.raises(InputError, match=r"v.npy: an .npy holds no .*; give an .npz of images"):
            read(tmp_path / "v.npy")


def test_pixels_of_any_type_and_with_opacity(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (4, 8, 6, 3), np.uint8)

    def read(images):
        return read_classes(write_npz(tmp_path / "a.npz", images=images, label=np.arange(4))).pixels

    for same in (
        rows.astype(float),
        rows.astype(np.int64),
        rows / 255,
        (rows / 255).astype(np.float32),
    ):
        np.testing.assert_array_equal(read(same), rows)
    binary = rows > 127
    for same in (binary, binary.astype(np.uint8), binary.astype(int)):
        np.testing.assert_array_equal(read(same), 255 * binary)
    opacity = np.zeros((4, 8, 6, 1), np.uint8)
    opacity[:, :4], opacity[0, 0, 0] = 255, 51
    found = read(np.concatenate([rows, opacity], -1))
    np.testing.assert_array_equal(found[1:, :4], rows[1:, :4])
    assert (found[:, 4:] == 255).all()
    np.testing.assert_array_equal(found[0, 0, 0], np.rint(0.2 * rows[0, 0, 0] + 0.8 * 255))
    np.testing.assert_array_equal(
        read(np.moveaxis(np.concatenate([rows, opacity], -1), -1, 1)), found
    )


def test_views_in_arrays(tmp_path):
    pixels = np.zeros((3, 4, 6, 6), np.uint8)
    views = read_views(
        write_npz(tmp_path / "v.npz", views=pixels, name=np.array(["a", "b", "c"])), 3
    )
    assert views.pixels.shape == (3, 4, 3, 3, 1) and views.names == ("a", "b", "c")
    with pytest.raises(InputError, match=r"name has shape \(2,\); it should have 3 entries"):
        read_views(write_npz(tmp_path / "w.npz", views=pixels, name=np.array(["a", "b"])))
    with pytest.raises(InputError, match="holds no array views"):
        read_views(write_npz(tmp_path / "x.npz", images=pixels))
