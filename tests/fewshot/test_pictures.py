"""Images as people have them: read as they look, or refused by name; nothing is dropped or turned black in silence."""

from __future__ import annotations

import io
import logging
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srwm_agents.fewshot.command import main
from srwm_agents.fewshot.data import DataError, ImageSet, load_images
from srwm_agents.fewshot.data import archives as limits
from srwm_agents.fewshot.data.pictures import FORMATS

RAMP = np.linspace(0, 1, 1600).reshape(40, 40)
GREY = (RAMP * 255).astype(np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def load(tmp_path, lay_out):
    """Function that loads the training classes of a folder of these files, or of five classes with this one."""

    def call(files: dict[str, bytes] | bytes, ending: str = "png", zip_name: str | None = None, **options) -> ImageSet:
        if isinstance(files, bytes):
            files = {f"class{c}/0.{ending}": files for c in range(5)}
        data_dir = lay_out(files, zip_name)
        where = data_dir if zip_name is None else data_dir / zip_name
        return load_images("folder", "train", where, tmp_path / "cache", **{"image_size": 40, "channels": 1, **options})

    return call


def as_ramp(images: ImageSet, tolerance: int = 2) -> None:
    np.testing.assert_allclose(images.images[0, 0].astype(int), GREY, atol=tolerance)


def ramps() -> dict[str, tuple[bytes, str]]:
    sixteen, rgb = (RAMP * 65535).astype(np.uint16), np.stack([GREY] * 3, axis=-1)
    alpha = np.concatenate([rgb, np.full((40, 40, 1), 255, np.uint8)], axis=-1)
    palette = Image.fromarray(GREY).convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    return {
        "16-bit PNG": (encoded(Image.fromarray(sixteen)), "png"),
        "16-bit TIFF": (encoded(Image.fromarray(sixteen), "TIFF"), "tif"),
        "big-endian TIFF": (
            encoded(Image.frombytes("I;16B", (40, 40), sixteen.astype(">u2").tobytes()), "TIFF"),
            "tiff",
        ),
        "16-bit PGM": (b"P5 40 40 65535\n" + sixteen.astype(">u2").tobytes(), "pgm"),
        "float TIFF": (encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"), "tif"),
        "RGBA": (encoded(Image.fromarray(alpha)), "png"),
        "LA": (encoded(Image.fromarray(alpha).convert("LA")), "png"),
        "palette": (encoded(palette), "png"),
        "GIF": (encoded(Image.fromarray(GREY), "GIF"), "gif"),
        "CMYK": (encoded(Image.fromarray(rgb).convert("CMYK"), "TIFF"), "tif"),
        "CMYK JPEG": (encoded(Image.fromarray(rgb).convert("CMYK"), "JPEG", quality=98), "jpg"),
        "a PNG named .jpg": (encoded(Image.fromarray(rgb)), "jpg"),
        "WebP": (encoded(Image.fromarray(alpha), "WEBP", lossless=True), "webp"),
    }


@pytest.mark.parametrize("kind", ramps())
def test_every_kind_of_pixel_is_read_as_it_looks(kind: str, load) -> None:
    content, ending = ramps()[kind]
    as_ramp(load(content, ending), 5 if "JPEG" in kind else 2)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        ((RAMP * 4095).astype(np.uint16), "has pixels of 4095 at most, where 65535 is white"),
        ((RAMP * 255).astype(np.uint16), ".* of 255 at most, where 65535"),
        ((RAMP * 255).astype(np.float32), "has pixels from 0 to 255, allowed: 0 to 1"),
        ((RAMP - 0.5).astype(np.float32), ".* from -0.5 to 0.5, allowed: 0 to 1"),
        (np.full((40, 40), np.nan, np.float32), ".* from nan to nan"),
        ((RAMP * 2**20).astype(np.int32), ".* 32-bit or signed whole numbers"),
    ],
    ids=["12 bits", "8 bits in 16", "float to 255", "negative", "NaN", "32 bits"],
)
def test_pixels_that_would_be_spoilt_are_refused(pixels, message: str, load) -> None:
    with pytest.raises(DataError, match=rf"class\d/0\.tif {message}"):
        load(encoded(Image.fromarray(pixels), "TIFF"), "tif")


@pytest.mark.parametrize("ink", [0, 255], ids=["black", "white"])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_ink_on_transparent_ground_is_seen(ink: int, mode: str, load) -> None:
    pixels = np.full((40, 40, 4), ink, np.uint8)
    pixels[..., 3] = 0
    pixels[8:32, 8:32, 3] = 255
    image = Image.fromarray(pixels)
    images = load(encoded(image.convert(mode) if mode != "P" else image.quantize(4)))
    assert images.images[0, 0, 20, 20] == ink
    assert images.images[0, 0, 2, 2] == 255 - ink


@pytest.mark.parametrize(("kind", "ending"), [("JPEG", "jpg"), ("PNG", "png"), ("TIFF", "tif"), ("WEBP", "webp")])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_as_the_camera_says(kind: str, ending: str, orientation: int, load) -> None:
    upright = np.zeros((40, 40), np.uint8)
    upright[:20, :] = 120
    upright[:20, :20] = 240
    turns = {1: "", 2: "x", 3: "xy", 4: "y", 5: "t", 6: "ty", 7: "txy", 8: "tx"}[orientation]
    stored = upright  # as EXIF defines the eight: mirrored left-right, upside down, and with rows for columns
    stored = stored.T if "t" in turns else stored
    stored = stored[:, ::-1] if "x" in turns else stored
    stored = stored[::-1] if "y" in turns else stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    images = load(encoded(image.convert("RGB") if kind != "TIFF" else image, kind, exif=exif), ending)
    np.testing.assert_allclose(images.images[0, 0, ::20, ::20][:2, :2], upright[::20, ::20], atol=12)


def test_no_format_starts_a_program(load, tmp_path, monkeypatch) -> None:
    assert not {"EPS", "WMF", "IPTC", "MPEG", "FITS", "BUFR", "GRIB", "HDF5"} & {*FORMATS}
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    ghostscript.chmod(ghostscript.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{ghostscript.parent}:{os.environ['PATH']}")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n%%EOF\n"
    # IPTC may hold another image, which Pillow opens as whatever it is.
    iptc = b"\x1c\x03\x3c\x00\x02\x00\x01\x1c\x03\x41\x00\x01\x01\x1c\x03\x14\x00\x01\x28\x1c\x03\x1e\x00\x01\x28"
    iptc += b"\x1c\x03\x78\x00\x01\x01\x1c\x08\x0a" + len(eps).to_bytes(2, "big") + eps
    for content in (eps, iptc):
        with pytest.raises(DataError, match=r"0\.png is no image, or a damaged one"):
            load(content)
    assert not (tmp_path / "started").exists()
    with pytest.raises(DataError, match=r"has no CLASS/IMAGE, but drawn/0\.eps"):
        load({**{f"class{c}/0.png": encoded(Image.fromarray(GREY)) for c in range(5)}, "drawn/0.eps": eps})


def test_formats_without_the_usual_ending_are_read(load) -> None:
    rgb = Image.fromarray(np.stack([GREY] * 3, axis=-1))
    kinds = {"jfif": "JPEG", "jpe": "JPEG", "jp2": "JPEG2000", "tga": "TGA", "ppm": "PPM", "bmp": "BMP", "ICO": "ICO"}
    files = {f"train/{ending}/0.{ending}": encoded(rgb, kind) for ending, kind in kinds.items()}
    images = load(files)
    assert set(images.class_names) == {*kinds}
    for image in images.images:
        np.testing.assert_allclose(image[0].astype(int), GREY, atol=10)


def test_what_is_left_out_is_counted_and_named(load, caplog) -> None:
    png = encoded(Image.fromarray(GREY))
    files = {f"class{c}/{i}.png": png for c in range(5) for i in range(2)}
    load({**files, "README": b"", "labels.csv": b"", ".DS_Store": b"", "class1/.hidden.png": b""})
    assert not caplog.records
    load({**files, "class1/notes.txt": b"", "class2/more/deep.png": png, "loose.png": png})
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "3 files are left out" in record.getMessage()
    for name in ("class1/notes.txt", "class2/more/deep.png", "loose.png"):
        assert name in record.getMessage()


@pytest.mark.parametrize("lost", ["heic/1.heic", "raw/1.CR2", "deep/er/1.png", "none/1"])
@pytest.mark.parametrize("split", ["", "train/"])
def test_a_class_is_not_lost(lost: str, split: str, load) -> None:
    png = encoded(Image.fromarray(GREY))
    with pytest.raises(DataError, match=rf"{lost.split('/')[0]} has no CLASS/IMAGE, but {split}{lost}; .* \.png"):
        load({**{f"{split}class{c}/0.png": png for c in range(5)}, f"{split}{lost}": png})


def test_hidden_folders_and_those_of_operating_systems_are_no_classes(load) -> None:
    png = encoded(Image.fromarray(GREY))
    names = (".ipynb_checkpoints", ".git", "__MACOSX", "@eaDir", "a", "b", "c")
    for files in ({f"{name}/0.png": png for name in names}, {f"train/{name}/0.png": png for name in names}):
        assert set(load(files).class_names) <= {"a", "b", "c"}


def test_links_are_followed(load, lay_out, tmp_path) -> None:
    png = encoded(Image.fromarray(GREY))
    data_dir = lay_out({f"train/class{c}/0.png": png for c in range(2)})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.png").write_bytes(png)
    (data_dir / "train/linked").symlink_to(tmp_path / "elsewhere")
    (data_dir / "train/class0/2.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    images = load({})
    assert dict(zip(images.class_names, images.counts, strict=True)) == {"class0": 2, "class1": 1, "linked": 1}
    (data_dir / "train/class1/broken.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"class1/broken\.png is a link to something that does not exist"):
        load({})
    (data_dir / "train/class1/broken.png").unlink()
    os.mkfifo(data_dir / "train/class1/pipe.png")
    with pytest.raises(DataError, match=r"class1/pipe\.png is no file"):
        load({})
    (data_dir / "train/class1/pipe.png").unlink()
    (data_dir / "train/class1/round").symlink_to(data_dir)
    with pytest.raises(DataError, match=r"round is a link to a folder that it is in"):
        load({})


ODD_NAMES = ["ü ñ 猫", "a[0]", "50 %s", "new\nline", "~", "-x", "[red]a[bold]", "caf\udce9"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(name: str, tmp_path, capsys) -> None:
    png, where = encoded(Image.fromarray(GREY)), tmp_path / name
    for c in range(5):
        (where / f"{name}{c}").mkdir(parents=True)
        (where / f"{name}{c}" / f"{name}.png").write_bytes(png)
    for _ in range(2):  # decoded, and from the cache
        images = load_images("folder", "train", where, tmp_path / "cache", image_size=40)
        assert set(images.class_names) <= {f"{name}{c}" for c in range(5)}
    (where / f"{name}0" / f"{name}.png").write_bytes(b"no image")
    (where / f"{name}1" / f"{name}.png").write_bytes(b"no image")
    (where / f"{name}2" / f"{name}.png").write_bytes(b"no image")
    with pytest.raises(DataError) as raised:
        load_images("folder", "train", where, tmp_path / "cache", image_size=40)
    assert str(raised.value).isprintable()
    where_it_is = [f"--data_dir={where}", f"--cache_dir={tmp_path / 'cache'}"]
    assert main(["data", "prepare", "--dataset=folder", "--split=train", *where_it_is]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "is no image" in error


def patched(content: bytes, local: int, central: int, value: int) -> bytes:
    """A zip with one byte in each of its headers replaced."""
    data = bytearray(content)
    for sign, offset in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        start = 0
        while (start := data.find(sign, start)) >= 0:
            data[start + offset] = value
            start += 4
    return bytes(data)


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


FIVE = {f"class{c}/0.png": encoded(Image.fromarray(GREY)) for c in range(5)}


@pytest.mark.parametrize(
    "content",
    [
        zipped(FIVE),
        zipped({f"mine/{name}": png for name, png in FIVE.items()}),
        zipped({**{f"mine/{n}": png for n, png in FIVE.items()}, **{f"__MACOSX/mine/._{n}": b"\0" for n in FIVE}}),
        zipped({**FIVE, **{f"__MACOSX/{n.replace('/', '/._')}": b"\0" for n in FIVE}, ".DS_Store": b""}),
        zipped({f"./{name}": png for name, png in FIVE.items()}),
        zipped({f"mine\\{name}".replace("/", "\\"): png for name, png in FIVE.items()}),
        zipped(FIVE, zipfile.ZIP_LZMA),
        zipped({f"mine/train/{name}": png for name, png in FIVE.items()}),
    ],
    ids=["plain", "one folder", "Finder", "Finder, classes", "dot", "backslashes", "LZMA", "splits"],
)
def test_zips_as_people_make_them(content: bytes, tmp_path) -> None:
    (tmp_path / "mine.zip").write_bytes(content)
    images = load_images("folder", "train", tmp_path / "mine.zip", tmp_path / "cache", image_size=40, channels=1)
    assert {*images.class_names} <= {f"class{c}" for c in range(5)}
    as_ramp(images)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (patched(zipped(FIVE), 6, 8, 1), r"class\d/0\.png is protected by a password; unpack"),
        (patched(zipped(FIVE), 8, 10, 9), r"packed by a method that is not supported \(deflate64\); unpack"),
        (patched(zipped(FIVE), 8, 10, 77), r"packed by a method that is not supported \(unknown\)"),
        (zipped(FIVE)[:-30], "is no zip file, or only a part of one"),
        (b"", "is no zip file, or only a part of one"),
        (encoded(Image.fromarray(GREY)), "is no zip file"),
    ],
    ids=["password", "Deflate64", "method", "cut", "empty", "image"],
)
def test_zips_that_cannot_be_read(content: bytes, message: str, tmp_path) -> None:
    (tmp_path / "mine.zip").write_bytes(content)
    with pytest.raises(DataError, match=rf"mine\.zip.*{message}"):
        load_images("folder", "train", tmp_path / "mine.zip", tmp_path / "cache", image_size=40)


def test_bombs_are_refused_before_they_are_unpacked(load, tmp_path, monkeypatch) -> None:
    wide = encoded(Image.new("1", (9000, 9000)))
    assert len(wide) < 100_000
    with pytest.raises(DataError, match=r"has 9000×9000 pixels, allowed: 64,000,000 in all"):
        load(wide)
    icon = b"\0\0\1\0\1\0" + b"\0\0\0\0\1\0\x20\0" + len(wide).to_bytes(4, "little") + (22).to_bytes(4, "little") + wide
    with pytest.raises(DataError, match=r"has 9000×9000 pixels, allowed: 64,000,000 in all"):
        load(icon)
    with pytest.raises(DataError, match="has far more pixels than 64,000,000"):
        load(encoded(Image.new("1", (20_000, 10_000))))
    monkeypatch.setattr(limits, "MAX_FILE_BYTES", 100_000)
    for zip_name in (None, "bomb.zip"):
        with pytest.raises(DataError, match=r"class\d/0\.png has 200,000 bytes, allowed: 100,000"):
            load(bytes(200_000), zip_name=zip_name)
    monkeypatch.setattr(limits, "MAX_FILES", 4)
    with pytest.raises(DataError, match="has more than 4 files, which are allowed"):
        load(FIVE)
    monkeypatch.setattr(limits, "MAX_TAR_BYTES", 100_000)
    with tarfile.open(tmp_path / "cifar-100-binary.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("cifar-100-binary/train.bin")
        info.size = 10_000_000
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(DataError, match=r"binary\.tar\.gz: unpacked it has more than 100,000 bytes"):
        load_images("cifar-fs", "train", tmp_path, tmp_path / "cache")


def test_links_in_a_tar_are_left_out(tmp_path) -> None:
    with tarfile.open(tmp_path / "cifar-100-binary.tar.gz", "w:gz") as tar:
        for name, target in (("coarse_label_names.txt", "/etc/passwd"), ("fine_label_names.txt", "nowhere")):
            info = tarfile.TarInfo(f"cifar-100-binary/{name}")
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    with pytest.raises(DataError, match=r"coarse_label_names\.txt is missing"):
        load_images("cifar-fs", "train", tmp_path, tmp_path / "cache")


@pytest.mark.parametrize(("size", "channels"), [(0, 3), (-1, 3), (10**6, 3), (40, 2), (40, 0)])
def test_sizes_have_limits(size: int, channels: int, load) -> None:
    with pytest.raises(ValueError, match=r"allowed: 1"):
        load(FIVE, image_size=size, channels=channels)


def test_a_data_set_is_found_whatever_the_case_of_its_name_and_without_an_inner_folder(tmp_path) -> None:
    content = zipped({f"train/n{c}/0.png": FIVE["class0/0.png"] for c in range(3)})
    (tmp_path / "miniImageNet.zip").write_bytes(content)
    assert load_images("mini-imagenet", "train", tmp_path, tmp_path / "cache").class_names == ("n0", "n1", "n2")
    with pytest.raises(DataError, match=r"no val split of mini-imagenet: not in .*miniImageNet\.zip"):
        load_images("mini-imagenet", "val", tmp_path, tmp_path / "cache")


@pytest.fixture
def nobody(tmp_path):
    """Function after whose call root may no longer read everything, until the test ends."""
    before = os.geteuid()
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/") and folder.stat().st_uid == before:
            folder.chmod(folder.stat().st_mode | 0o011)
    yield lambda: before or os.seteuid(65534)
    os.seteuid(before)


def test_files_and_folders_without_permission_are_named(load, lay_out, nobody, tmp_path) -> None:
    load(FIVE)  # imports what it needs
    data_dir = lay_out(FIVE)
    (tmp_path / "cache").chmod(0o777)
    (data_dir / "class0/0.png").write_bytes(b"")
    for path in (data_dir / "class0/0.png", data_dir / "class1"):
        path.chmod(0)
    nobody()
    with pytest.raises(DataError, match="class1 cannot be read: Permission denied"):
        load_images("folder", "train", data_dir, tmp_path / "cache", image_size=40)
