"""The cache of decoded images: of one folder, whole, with several processes, on a full disk."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest

from srwm_agents.fewshot.command import main
from srwm_agents.fewshot.data import DataError, ImageSet, load_images


def make_folder(lay_out, png, name: str, first: int, inner: str = "") -> Path:
    files = {f"{name}/{inner}{Path(name).parts[0]}{c}/{i}.png": png(first + c) for c in range(10) for i in range(3)}
    return lay_out(files) / name


def load(data_dir: Path, cache: Path) -> ImageSet:
    return load_images("folder", "train", data_dir, cache, image_size=20, channels=1)


def check(images: ImageSet, name: str, first: int) -> None:
    starts = np.cumsum([0, *images.counts[:-1]])
    values = {cls: int(images.images[i, 0, 0, 0]) for cls, i in zip(images.class_names, starts, strict=True)}
    assert values == {f"{name}{value - first}": value for value in values.values()}


def test_folders_of_one_name_do_not_share_a_cache(lay_out, png, tmp_path) -> None:
    cats, dogs = (make_folder(lay_out, png, f"{name}/images", n) for name, n in (("cat", 0), ("dog", 100)))
    for _ in range(2):
        check(load(cats, tmp_path / "cache"), "cat", 0)
        check(load(dogs, tmp_path / "cache"), "dog", 100)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    deep = make_folder(lay_out, png, "cow/images", 50, inner="a/b/")
    with pytest.raises(DataError, match="no images in"):
        load(deep, tmp_path / "cache")


def test_what_replaces_a_folder_is_read_and_an_empty_one_is_an_error(lay_out, png, tmp_path) -> None:
    cats = make_folder(lay_out, png, "cat", 0)
    load(cats, tmp_path / "cache")
    cats.rename(tmp_path / "away")
    cats.mkdir()
    with pytest.raises(DataError, match="no images in"):
        load(cats, tmp_path / "cache")
    cats.rmdir()
    with pytest.raises(DataError, match="does not exist"):
        load(cats, tmp_path / "cache")


def test_processes_that_fill_one_cache_get_their_own_images(lay_out, png, tmp_path) -> None:
    folders = {name: make_folder(lay_out, png, f"{name}/images", n) for name, n in (("cat", 0), ("dog", 100))}

    def fill(name: str) -> None:
        for _ in range(20):
            images = load(folders[name], tmp_path / "cache")
            check(images, name, {"cat": 0, "dog": 100}[name])
            for file in folders[name].rglob("*.png"):
                file.touch()  # the next one decodes again

    context = multiprocessing.get_context("fork")
    runs = [context.Process(target=fill, args=(name,)) for name in ("cat", "dog", "cat")]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    assert [run.exitcode for run in runs] == [0, 0, 0]
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_full_disk_is_an_error_known_beforehand_or_not(lay_out, png, tmp_path, monkeypatch) -> None:
    cats, cache = make_folder(lay_out, png, "cat", 0), tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: os.terminal_size((0, 0)) and type("", (), {"free": 100}))
        with pytest.raises(
            DataError, match=r"cache has 0 MB free, the decoded images take .* name another --cache_dir"
        ):
            load(cats, cache)

    # A limit on the size of files is the full disk that a test can have: writing fails halfway.
    def with_limit(messages) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
        try:
            load(cats, cache)
        except DataError as error:
            messages.send(str(error))

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    run = context.Process(target=with_limit, args=(theirs,))
    run.start()
    run.join(60)
    assert run.exitcode == 0  # no SIGBUS
    assert "cache cannot be written: File too large; name another --cache_dir" in ours.recv()
    assert list(cache.iterdir()) == []
    check(load(cats, cache), "cat", 0)


def test_a_cache_that_cannot_be_written_is_named_at_once(lay_out, png, tmp_path) -> None:
    cats = make_folder(lay_out, png, "cat", 0)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file cannot be written: .*; name another --cache_dir"):
        load(cats, tmp_path / "file")


@pytest.mark.parametrize("length", [0, 5, 100, 300, -1, -9, -60])
def test_a_damaged_cache_is_made_anew(length: int, lay_out, png, tmp_path) -> None:
    cats, cache = make_folder(lay_out, png, "cat", 0), tmp_path / "cache"
    load(cats, cache)
    (file,) = cache.iterdir()
    content = file.read_bytes()
    file.write_bytes(content[:length])
    check(load(cats, cache), "cat", 0)
    assert file.read_bytes() == content


def test_prepare_fails_where_images_are_damaged(lay_out, png, tmp_path, capsys) -> None:
    files = {f"mini-imagenet/{s}/n{c}/{i}.png": png(c) for s in ("train", "val") for c in range(3) for i in range(2)}
    data_dir = lay_out(files)
    command = ["data", "prepare", f"--data_dir={data_dir}", f"--cache_dir={tmp_path / 'cache'}"]
    assert main(command) == 0
    (data_dir / "mini-imagenet/train/n1/1.png").write_bytes(b"no image any more")
    for more in ([], ["--dataset=mini-imagenet"], ["--dataset=mini-imagenet", "--split=train"]):
        capsys.readouterr()
        assert main([*command, *more]) == 1
        streams = capsys.readouterr()
        assert streams.err.count("\n") == 1
        assert "error: mini-imagenet train: " in streams.err
        assert "train/n1/1.png is no image" in streams.err
        assert ("mini-imagenet val: 3 classes, 6 images" in streams.out) == ("--split=train" not in more)
    (data_dir / "omniglot.zip").write_bytes(b"no zip")
    assert main([*command, "--dataset=omniglot"]) == 1
    assert "omniglot.zip is no zip file" in capsys.readouterr().err
