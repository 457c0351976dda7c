"""Data sets: layouts, errors, and the cache."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from srwm_agents.fewshot.data import DataError, ImageSet, load_images
from srwm_agents.fewshot.data.cifar import CIFAR_FS, FC100
from srwm_agents.fewshot.data.glyphs import make_glyphs


@pytest.fixture
def load(tmp_path: Path):
    def call(name: str, split: str, data_dir: Path, **settings) -> ImageSet:
        return load_images(name, split, data_dir, tmp_path / "cache", **settings)

    return call


def omniglot_files(png, root: str = "omniglot-py") -> dict[str, bytes]:
    files = {
        f"{root}/splits/vinyals/train.txt": b"Greek/character02\nLatin/character01\n",
        f"{root}/splits/vinyals/val.txt": b"Greek/character01/rot000\nGreek/character01/rot090\n",
    }
    for half, character in (("background", "Greek/character01"), ("evaluation", "Greek/character02")):
        for i in range(3):
            files[f"{root}/images_{half}/{character}/0001_{i:02d}.png"] = png(40 * i)
    files[f"{root}/images_background/Latin/character01/0001_01.png"] = png(200)
    return files


@pytest.mark.parametrize("zip_name", [None, "omniglot_trainval.zip"])
def test_omniglot_is_read_inverted_in_the_order_of_its_split(zip_name, lay_out, png, load) -> None:
    data_dir = lay_out(omniglot_files(png), zip_name)
    train = load("omniglot", "train", data_dir)
    assert train.class_names == ("Greek/character02", "Latin/character01")
    assert train.counts == (3, 1)
    assert train.images.shape == (4, 1, 28, 28)
    assert train.images[:, 0, 14, 14].tolist() == [255, 215, 175, 55]
    assert load("omniglot", "val", data_dir).class_names == ("Greek/character01",)  # once, not once a rotation


def test_a_zip_with_an_outer_folder_and_several_zips_are_read(lay_out, png, load) -> None:
    files = omniglot_files(png, "download/omniglot-py")
    val = {name: content for name, content in files.items() if "train.txt" not in name}
    data_dir = lay_out(val, "omniglot_a.zip")
    lay_out(files, "omniglot_b.zip")
    assert load("omniglot", "train", data_dir).counts == (3, 1)


def test_omniglot_names_what_is_missing(lay_out, png, load, tmp_path) -> None:
    with pytest.raises(DataError, match="which does not exist"):
        load("omniglot", "train", tmp_path / "nowhere")
    files = omniglot_files(png)
    data_dir = lay_out(files)
    with pytest.raises(DataError, match=r"no test split of omniglot: not in .*splits/vinyals/test\.txt"):
        load("omniglot", "test", data_dir)
    (data_dir / "omniglot-py/images_background/Latin/character01/0001_01.png").unlink()
    with pytest.raises(DataError, match=r"no images of class Latin/character01, which .*train\.txt lists \(1 of 2"):
        load("omniglot", "train", data_dir)
    with pytest.raises(DataError, match="no mini-imagenet in"):
        load("mini-imagenet", "train", data_dir)


@pytest.mark.parametrize("zip_name", [None, "mini_imagenet_trainval.zip"])
def test_mini_imagenet_is_read(zip_name, lay_out, png, load) -> None:
    files = {
        f"mini-imagenet/{split}/n0{c}/n0{c}_{i}.jpg": png(80 * c, 84, "RGB", "JPEG")
        for split in ("train", "val")
        for c in range(1, 4)
        for i in range(2)
    }
    data_dir = lay_out({**files, "mini-imagenet/train/n01/.hidden.jpg": b"", "mini-imagenet/README": b""}, zip_name)
    train = load("mini-imagenet", "train", data_dir)
    assert train.images.shape == (6, 3, 84, 84)
    assert train.class_names == ("n01", "n02", "n03")
    assert train.counts == (2, 2, 2)
    np.testing.assert_allclose(train.images[::2, :, 40, 40], [[80] * 3, [160] * 3, [240] * 3], atol=2)
    with pytest.raises(DataError, match="no test split of mini-imagenet"):
        load("mini-imagenet", "test", data_dir)


def test_damaged_files_are_named(lay_out, png, load) -> None:
    image = png(9, 84, "RGB", "JPEG")
    files = {"mini-imagenet/train/n01/good.jpg": image, "mini-imagenet/train/n01/short.jpg": image[:300]}
    data_dir = lay_out(files)
    with pytest.raises(DataError, match=r"train/n01/short\.jpg is no image, or a damaged one"):
        load("mini-imagenet", "train", data_dir)
    assert not [file for file in (data_dir.parent / "cache").glob("*") if file.is_file()]  # nothing half-written stays
    (data_dir / "omniglot_part.zip").write_bytes(b"PK\x03\x04 only the beginning")
    with pytest.raises(DataError, match=r"omniglot_part\.zip is no zip file, or only a part of one"):
        load("omniglot", "train", data_dir)


def cifar_files() -> dict[str, bytes]:
    """One image a class and file; a class's images are its fine label in red and its file in green."""
    coarse = [
        *("aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables"),
        *("household_electrical_devices", "household_furniture", "insects", "large_carnivores"),
        *("large_man-made_outdoor_things", "large_natural_outdoor_scenes", "large_omnivores_and_herbivores"),
        *("medium_mammals", "non-insect_invertebrates", "people", "reptiles", "small_mammals", "trees"),
        *("vehicles_1", "vehicles_2"),
    ]
    held_out = [*CIFAR_FS["val"], *CIFAR_FS["test"]]
    fine = [*held_out, *(f"class{i}" for i in range(100 - len(held_out)))]
    files = {
        "cifar-100-binary/coarse_label_names.txt": "\n".join(coarse).encode(),
        "cifar-100-binary/fine_label_names.txt": "\n".join(fine).encode(),
    }
    for number, file in enumerate(("train.bin", "test.bin")):
        planes = [bytes([i // 5, i]) + bytes([i]) * 1024 + bytes([number]) * 1024 + bytes(1024) for i in range(100)]
        files[f"cifar-100-binary/{file}"] = b"".join(planes)
    return files


def test_cifar_splits_are_disjoint_and_complete(lay_out, load) -> None:
    data_dir = lay_out({})
    with tarfile.open(data_dir / "cifar-100-binary.tar.gz", "w:gz") as tar:
        for name, content in cifar_files().items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    for name, sizes in (("cifar-fs", (64, 16, 20)), ("fc100", (60, 20, 20))):
        splits = [load(name, split, data_dir) for split in ("train", "val", "test")]
        assert tuple(len(split.class_names) for split in splits) == sizes
        assert len({label for split in splits for label in split.class_names}) == 100
        assert all(split.images.shape[1:] == (3, 32, 32) for split in splits)
        assert {count for split in splits for count in split.counts} == {2}
    assert sorted(splits[2].images[::2, 0, 0, 0] // 5) == sorted([c for c in (0, 7, 12, 14) for _ in range(5)])
    assert splits[2].images[:4, 1, 5, 5].tolist() == [0, 1, 0, 1]


def test_cifar_split_lists_have_the_published_sizes() -> None:
    assert [len(set(names)) for names in CIFAR_FS.values()] == [16, 20]
    assert [len(set(names)) for names in FC100.values()] == [4, 4]


def test_damaged_cifar_is_named(lay_out, load) -> None:
    files = cifar_files()
    files["cifar-100-binary/test.bin"] = files["cifar-100-binary/test.bin"][:-1]
    with pytest.raises(DataError, match=r"test\.bin has 307399 bytes, no multiple of 3074"):
        load("cifar-fs", "train", lay_out(files))


def test_a_users_own_folder(lay_out, png, load) -> None:
    data_dir = lay_out({f"class{c}/{i}.png": png(10 * c, 30 + c) for c in range(10) for i in range(4)})
    sizes = {split: load("folder", split, data_dir, image_size=24, channels=1) for split in ("train", "val", "test")}
    assert [len(images.counts) for images in sizes.values()] == [6, 2, 2]
    assert len({name for images in sizes.values() for name in images.class_names}) == 10
    assert sizes["train"].images.shape == (24, 1, 24, 24)
    other = lay_out({f"train/cat/{i}.png": png(7) for i in range(3)}, "mine.zip") / "mine.zip"
    assert load("folder", "train", other).class_names == ("cat",)
    with pytest.raises(DataError, match="no val classes"):
        load("folder", "val", other)
    with pytest.raises(DataError, match="no images in"):
        load("folder", "train", lay_out({"empty.txt": b""}, "none.zip") / "none.zip")


def test_the_cache_works_without_its_source_and_follows_its_changes(lay_out, png, load, monkeypatch) -> None:
    files = {f"mini-imagenet/train/n0{c}/{i}.png": png(60 * c, 84) for c in range(3) for i in range(2)}
    data_dir = lay_out(files)
    first = load("mini-imagenet", "train", data_dir, channels=1)
    exact = first.images / 255
    np.testing.assert_allclose(first.mean, exact.mean((0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(first.std, exact.std((0, 2, 3)), rtol=1e-9)
    with monkeypatch.context() as patch:  # decoded once
        patch.setattr("srwm_agents.fewshot.data.cache._decode", None)
        np.testing.assert_array_equal(load("mini-imagenet", "train", data_dir, channels=1).images, first.images)
    (data_dir / "mini-imagenet/train/n02/0.png").write_bytes(png(222, 85))
    assert load("mini-imagenet", "train", data_dir, channels=1).images[4].max() == 222
    (data_dir / "mini-imagenet").rename(data_dir / "gone")
    assert load("mini-imagenet", "train", data_dir, channels=1).images[4].max() == 222
    with pytest.raises(DataError, match=r"--data_dir is .*misspelt, which does not exist"):  # cache or no cache
        load("mini-imagenet", "train", data_dir / "misspelt", channels=1)


def test_unknown_names_are_errors(load, tmp_path) -> None:
    with pytest.raises(ValueError, match="unknown data set 'imagenet', allowed: glyphs, omniglot"):
        load("imagenet", "train", tmp_path)
    with pytest.raises(ValueError, match="unknown split 'dev', allowed: train, val, test"):
        load("glyphs", "dev", tmp_path)


def test_glyphs_are_deterministic_and_unlimited() -> None:
    few, more = make_glyphs("train", 16, 3, 4), make_glyphs("train", 16, 60, 4)
    np.testing.assert_array_equal(few.images, more.images[:12])
    assert more.counts == (4,) * 60
    assert few.images.dtype == np.uint8
    flat = more.images.reshape(60, 4, -1)
    assert len(np.unique(flat.reshape(240, -1), axis=0)) == 240  # every drawing differs
    other = make_glyphs("val", 16, 3, 4)
    assert (other.images != few.images).any()
    # Classes can be told apart: the nearest of the other drawings is often one of the same glyph (0.28; chance 0.017).
    scaled = flat.astype(float)
    distances = ((scaled[:, None, None, 0] - scaled[None, :, 1:]) ** 2).sum(-1).min(-1)
    assert (distances.argmin(1) == np.arange(60)).mean() > 0.15


def test_grey_sets_can_be_fed_as_colour(load, tmp_path) -> None:
    colour = make_glyphs("train", 16, 2, 3).with_channels(3)
    assert colour.images.shape == (6, 3, 16, 16)
    assert len(colour.mean) == len(colour.std) == 3
