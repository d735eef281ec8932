"""Image loaders: every layout, and every bad input with the file's name."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metaprior.errors import InputError
from metaprior.images import read_attributes, read_classes, read_views
from metaprior.images.tree import MOST_FILE, Tree, resize


def picture(path: Path, value: int = 0, size=(8, 8), mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode in "L1" else (value,) * len(mode)).save(path)
    return path


def folders(root: Path, names, count: int = 3, **kind) -> Path:
    for c, name in enumerate(names):
        for i in range(count):
            picture(root / name / f"{i}.png", 10 * c + i, **kind)
    return root


def packed(root: Path) -> Path:
    target = root.with_suffix(".zip")
    with zipfile.ZipFile(target, "w") as file:
        for path in sorted(root.rglob("*.*")):
            file.write(path, path.relative_to(root.parent))
    return target


def test_flat_folders_and_their_zip(tmp_path):
    root = folders(tmp_path / "mine", ["ant", "bee"])
    flat, zipped = read_classes(root), read_classes(packed(root))
    assert (
        flat.pixels.shape == (6, 8, 8, 1)
        and flat.names == ("ant", "bee")
        and flat.split == ("", "")
    )
    assert zipped.names == ("mine/ant", "mine/bee") and zipped.group == (
        "",
        "",
    )  # one folder around all is no group
    np.testing.assert_array_equal(flat.pixels, zipped.pixels)
    np.testing.assert_array_equal(flat.label, [0, 0, 0, 1, 1, 1])
    assert flat.pixels[4, 0, 0, 0] == 11


def test_omniglots_layout_has_alphabets_and_splits(tmp_path):
    names = [
        "images_background/Greek/character01",
        "images_background/Greek/character02",
        "images_evaluation/Tibetan/character01",
    ]
    images = read_classes(folders(tmp_path, names, mode="1"), 4)
    assert images.group == ("images_background/Greek",) * 2 + ("images_evaluation/Tibetan",)
    assert images.split == ("train", "train", "test")
    assert images.remarks == ("images of 1 size (8 x 8) were made 4 x 4",)


def test_splits_of_class_folders(tmp_path):
    images = read_classes(folders(tmp_path, ["train/a", "train/b", "val/c", "test/d"], mode="RGB"))
    assert images.pixels.shape[-1] == 3 and images.split == ("test", "train", "train", "val")
    assert images.group == ("",) * 4


def mini(root: Path, rows: dict[str, str]) -> Path:
    for name in ("a1.jpg", "a2.jpg", "b1.jpg", "c1.jpg"):
        picture(root / "images" / name, 7)
    for name, text in rows.items():
        (root / name).write_text(text)
    return root


def test_tables_of_file_names(tmp_path):
    root = mini(
        tmp_path,
        {
            "train.csv": "filename,label\na1.jpg,a\na2.jpg,a\nb1.jpg,b\n",
            "test.csv": "filename,label\nc1.jpg,c\n",
        },
    )
    images = read_classes(root)
    assert images.names == ("a", "b", "c") and images.split == ("train", "train", "test")
    np.testing.assert_array_equal(images.label, [2, 0, 0, 1])  # test.csv is read first


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            {"train.csv": "file,label\na1.jpg,a\n"},
            r"train.csv: has the columns file, label; it needs filename and label",
        ),
        (
            {"train.csv": "filename,label\na1.jpg,a\nz.jpg,b\n"},
            r"train.csv: row 3 names 'z.jpg', which is not in images",
        ),
        (
            {"train.csv": "filename,label\na1.jpg,a\n", "val.csv": "filename,label\na2.jpg,a\n"},
            r"val.csv: row 2: class a is also in train.csv",
        ),
        ({"train.csv": "filename,label\na1.jpg,a\na2.jpg,a\n"}, "holds one class only"),
        ({"train.csv": "filename,label\n"}, "train.csv: has no rows"),
    ],
)
def test_tables_that_do_not_match(tmp_path, tables, message):
    with pytest.raises(InputError, match=message):
        read_classes(mini(tmp_path, tables))


def test_bad_folders(tmp_path):
    with pytest.raises(InputError, match=r"absent: no such file or folder"):
        read_classes(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: holds no images"):
        read_classes(tmp_path / "empty")
    with pytest.raises(InputError, match=r"one: holds one class only \(ant\)"):
        read_classes(folders(tmp_path / "one", ["ant"]))
    picture(folders(tmp_path / "loose", ["ant", "bee"]) / "stray.png")
    with pytest.raises(InputError, match=r"stray.png: lies in no class folder"):
        read_classes(tmp_path / "loose")
    broken = folders(tmp_path / "broken", ["ant", "bee"]) / "bee" / "1.png"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(InputError, match=r"bee/1.png: is no readable image"):
        read_classes(tmp_path / "broken")
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(InputError, match=r"text.zip: neither a folder nor a readable zip archive"):
        read_classes(tmp_path / "text.zip")


def test_images_of_several_sizes_are_made_alike_and_it_is_said(tmp_path):
    picture(folders(tmp_path, ["ant", "bee"]) / "bee" / "9.png", size=(20, 12))
    images = read_classes(tmp_path)
    assert images.pixels.shape == (7, 8, 8, 1)
    assert images.remarks == ("images of 2 sizes (8 x 8, 12 x 20) were made 8 x 8",)


def test_archives_that_point_outside_are_refused(tmp_path):
    for i, name in enumerate(
        ("../out/a.png", "/etc/a.png", "a/../../b.png", "C:/a.png", "..\\out\\a.png")
    ):
        path = tmp_path / f"{i}.zip"
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(name, b"")
        with pytest.raises(InputError, match=r"refused: it names .*, outside of the archive"):
            read_classes(path)


def test_files_too_large_are_not_read(tmp_path, monkeypatch):
    path = picture(tmp_path / "a" / "0.png")
    monkeypatch.setattr("metaprior.images.tree.MOST_FILE", 10)
    with pytest.raises(InputError, match=r"0.png: has \d+ bytes; at most 10 are read"):
        Tree(tmp_path).pixels("a/0.png")
    monkeypatch.setattr("metaprior.images.tree.MOST_FILE", MOST_FILE)
    monkeypatch.setattr("metaprior.images.tree.MOST_PIXELS", 10)
    with pytest.raises(InputError, match=r"is 8 x 8; at most 10 pixels are read"):
        Tree(tmp_path).pixels("a/0.png")
    monkeypatch.undo()
    monkeypatch.setattr("metaprior.images.tree.MOST_BYTES", 100)
    with pytest.raises(InputError, match="choose a smaller size or fewer images"):
        read_classes(folders(tmp_path, ["a", "b"]))
    assert path.exists()


def test_resizing_is_an_average_over_boxes():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4) * 10
    np.testing.assert_array_equal(resize(image, 2), [[25, 45], [105, 125]])
    assert resize(np.zeros((4, 6, 3), np.uint8), 2).shape == (2, 2, 3)
    wide = np.zeros((2, 4), np.uint8)
    wide[:, 1:3] = 9
    np.testing.assert_array_equal(resize(wide, 2, crop=True), np.full((2, 2), 9))


def write_npz(path: Path, **arrays) -> Path:
    np.savez(path, **arrays)
    return path


CELEBA = "2\nSmiling Hat\n1.jpg 1 -1\n2.jpg -1  1\n"


def celeba(root: Path, text: str) -> Path:
    for name in ("1.jpg", "2.jpg"):
        picture(root / "img_align_celeba" / name, 9, size=(10, 12), mode="RGB")
    (root / "list_attr_celeba.txt").write_text(text)
    return root


def test_celebas_layout(tmp_path):
    found = read_attributes(celeba(tmp_path, CELEBA), 4)
    assert found.names == ("Smiling", "Hat") and found.pixels.shape == (2, 4, 4, 3)
    np.testing.assert_array_equal(found.values, [[True, False], [False, True]])
    picture(tmp_path / "img_align_celeba" / "3.jpg", size=(10, 12), mode="RGB")
    assert (
        "1 image without a line in list_attr_celeba.txt left out"
        in read_attributes(tmp_path, 4).remarks
    )


def test_celebas_tables_as_csv_and_its_partition(tmp_path):
    found = read_attributes(celeba(tmp_path, CELEBA), 4)
    assert found.part is None
    (tmp_path / "list_attr_celeba.txt").unlink()
    table = tmp_path / "list_attr_celeba.csv"
    table.write_text('image_id,Smiling,"Hat"\n1.jpg,1,-1\n2.jpg,-1, 1\n')
    again = read_attributes(tmp_path, 4)
    assert again.names == found.names
    np.testing.assert_array_equal(again.values, found.values)
    for name, text in (
        ("list_eval_partition.csv", "image_id,partition\n2.jpg,2\n1.jpg,0\n"),
        ("list_eval_partition.txt", "1.jpg 0\n2.jpg 2\n"),
    ):
        (tmp_path / name).write_text(text)
        assert read_attributes(tmp_path, 4).part.tolist() == [0, 2]
        assert name in Tree(tmp_path).of_images()  # which says what a folder of results was run on
    for text, message in (
        ("1.jpg 0\n2.jpg 3\n", r"0 \(training\), 1 \(validation\) or 2 \(test\); got '2.jpg 3'"),
        ("1.jpg 0\n", r"has no line for 2.jpg \(1 of 2 images have none\)"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=message):
            read_attributes(tmp_path, 4)
    for text, message in (
        ("image_id,Hat,Hat\n1.jpg,1,1\n", "line 1 names an attribute twice"),
        ("image_id,Hat\n1.jpg,1,1\n", "line 2 has 2 values; there are 1 attributes"),
        ("image_id,Hat\n1.jpg,0\n", "a value is 1 or -1; got '0'"),
        ("image_id,Hat\n", "a header and a line an image are needed"),
    ):
        table.write_text(text)
        with pytest.raises(InputError, match=message):
            read_attributes(tmp_path, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3" + CELEBA[1:], "line 1 says 3 images; there are 2 lines"),
        (
            CELEBA.replace("2.jpg", "7.jpg"),
            r"names 7.jpg, which is not in the folder \(1 of 2 images are not\)",
        ),
        (CELEBA.replace("1.jpg 1 -1", "1.jpg 1"), "line 3 has 1 values; there are 2 attributes"),
        (CELEBA.replace("1.jpg 1", "1.jpg 0"), "line 3: a value is 1 or -1; got '0'"),
        (CELEBA.replace("2.jpg", "1.jpg"), "line 4 names 1.jpg again"),
        (CELEBA.replace("Hat", "Smiling"), "line 2 names an attribute twice"),
        ("Smiling Hat\n1.jpg 1 -1\n", "the first line is the number of images"),
    ],
)
def test_attribute_files_that_do_not_match(tmp_path, text, message):
    with pytest.raises(InputError, match=rf"list_attr_celeba.txt: {message}"):
        read_attributes(celeba(tmp_path, text))


def test_images_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for value, name in ((1, "a/0.png"), (2, "b/0.png"), (3, "b/1 2.png")):
        picture(tmp_path / name, value, mode="RGB")
    table = tmp_path / "list_attr_celeba.txt"
    table.write_text("3\nx y z\nb/1 2.png -1 1 1\nb/0.png -1 1 -1\na/0.png 1 1 1\n")
    found = read_attributes(tmp_path)
    assert found.pixels[:, 0, 0, 0].tolist() == [3, 2, 1] and found.values[0].tolist() == [
        False,
        True,
        True,
    ]
    table.write_text("1\nx y z\n1 2.png 1 1 1\n")  # one of this name: its folder may be left out
    assert read_attributes(tmp_path).pixels[0, 0, 0, 0] == 3
    table.write_text("1\nx y z\n0.png 1 1 1\n")
    with pytest.raises(
        InputError, match=r"names 0.png, which is in several folders \(a/0.png, b/0.png\)"
    ):
        read_attributes(tmp_path)
    table.write_text("2\nx y z\n1 2.png 1 1 1\nb/1 2.png 1 1 1\n")
    with pytest.raises(InputError, match=r"several lines name b/1 2.png"):
        read_attributes(tmp_path)
    table.write_text("1\nx y z\n1 2.png 1 1 1 1\n")
    with pytest.raises(InputError, match=r"line 3 has 5 values"):
        read_attributes(tmp_path)


def test_attributes_without_a_table(tmp_path):
    with pytest.raises(InputError, match=r"holds no list_attr_celeba.txt"):
        read_attributes(folders(tmp_path, ["a"]))
    pixels = np.zeros((3, 6, 6, 3), np.uint8)
    flags = np.array([True, False, True])
    found = read_attributes(
        write_npz(tmp_path / "a.npz", images=pixels, hat=flags, other=np.arange(5))
    )
    assert found.names == ("hat",) and found.values.shape == (3, 1)
    with pytest.raises(InputError, match="holds no attributes"):
        read_attributes(write_npz(tmp_path / "b.npz", images=pixels, hat=np.arange(3)))
    with pytest.raises(InputError, match="holds no array images"):
        read_attributes(write_npz(tmp_path / "c.npz", hat=flags))


def test_views_of_objects(tmp_path):
    root = folders(tmp_path / "objects", ["chair/one", "chair/two", "table/three"], count=4)
    views = read_views(root)
    assert views.pixels.shape == (3, 4, 8, 8, 1) and views.category == ("chair", "chair", "table")
    np.testing.assert_array_equal(views.azimuth, [0, 90, 180, 270])
    (root / "chair" / "two" / "3.png").unlink()
    with pytest.raises(InputError, match=r"chair/two: has 3 views; the others have 4"):
        read_views(root)
    with pytest.raises(InputError, match="holds one object only"):
        read_views(folders(tmp_path / "single", ["chair"]))
    with pytest.raises(InputError, match="have one view each"):
        read_views(folders(tmp_path / "flat", ["chair", "table"], count=1))


def test_views_are_in_the_order_of_their_numbers(tmp_path):
    root = folders(tmp_path, ["one", "two"], count=12)
    np.testing.assert_array_equal(read_views(root).pixels[1, :, 0, 0, 0], 10 + np.arange(12))


def test_real_files(data):
    omniglot = read_classes(data / "omniglot28.npz")
    assert omniglot.pixels.shape == (32460, 28, 28, 1) and len(omniglot.names) == 1623
    listed = json.loads((data / "omniglot_split_vinyals.json").read_text())
    assert set(listed["train"]) <= set(omniglot.names)
    assert read_attributes(data / "avatars_open_peeps32.npz").values.shape == (2500, 4)
    assert read_views(data / "views3d_furniture32.npz").pixels.shape == (570, 36, 32, 32, 1)


def test_the_packed_omniglot_is_the_archive_at_28_pixels(data):
    small = read_classes(data / "omniglot_small1.zip", 28)
    whole = read_classes(data / "omniglot28.npz")
    one = small.names.index("images_background_small1/Greek/character03")
    same = whole.names.index("images_background/Greek/character03")
    np.testing.assert_array_equal(
        255 - small.pixels[small.label == one], whole.pixels[whole.label == same]
    )
