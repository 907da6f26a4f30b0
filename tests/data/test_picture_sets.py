"""Pictures to be judged: their order, their hashes, what is left out, and what is refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile_images import bad_bytes
from PIL import Image

from genzoo.core.errors import DataError
from genzoo.data.picture_sets import (
    ArrayPictures,
    DatasetPictures,
    FilePictures,
    Subset,
    content_hash,
    open_pictures,
    to_levels,
)
from genzoo.pictures.grid import overview_mark


def pictures(n: int = 7, height: int = 5, width: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def write(folder: Path, images: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index}.png")
    return folder


def names(folder: Path) -> list[str]:
    found = open_pictures(folder)
    return [found.name(index) for index in range(len(found))]


def test_files_are_read_in_natural_order(tmp_path: Path) -> None:
    images = pictures(12)
    found = open_pictures(write(tmp_path, images))
    assert names(tmp_path) == [f"{index}.png" for index in range(12)]
    assert all(np.array_equal(found.read(index), images[index]) for index in range(12))


def test_the_same_pixels_from_npz_npy_and_array(tmp_path: Path) -> None:
    images = pictures()
    np.savez(tmp_path / "a.npz", images)
    np.savez_compressed(tmp_path / "b.npz", images)
    np.save(tmp_path / "a.npy", images)
    np.save(tmp_path / "f.npy", np.asfortranarray(images))
    sources = (*(tmp_path / name for name in ("a.npz", "b.npz", "a.npy", "f.npy")), images)
    assert len({content_hash(open_pictures(source)) for source in sources}) == 1


def test_the_content_hash_sees_every_pixel_and_the_order(tmp_path: Path) -> None:
    images = pictures()
    changed = images.copy()
    changed[3, 2, 1, 0] ^= 1
    folders = [
        write(tmp_path / name, array) for name, array in (("a", images), ("b", images), ("c", changed))
    ]
    one, same, other = (content_hash(open_pictures(folder)) for folder in folders)
    assert one == same != other
    assert content_hash(ArrayPictures(images)) != content_hash(ArrayPictures(images[::-1].copy()))
    assert content_hash(ArrayPictures(images)) != content_hash(ArrayPictures(images.reshape(7, 6, 5, 3)))


def test_what_genzoo_draws_beside_pictures_is_no_picture(tmp_path: Path) -> None:
    write(tmp_path, pictures())
    Image.new("RGB", (90, 90)).save(tmp_path / "grid.png")
    assert "grid.png" in names(tmp_path)  # a name alone says nothing
    (tmp_path / "samples.json").write_text(json.dumps({}))
    assert len(names(tmp_path)) == 7
    Image.new("RGB", (90, 90)).save(tmp_path / "sheet.png", pnginfo=overview_mark())
    assert len(names(tmp_path)) == 7
    (tmp_path / "sub").mkdir()
    Image.new("RGB", (90, 90)).save(tmp_path / "sub" / "grid.png")
    assert len(names(tmp_path)) == 8  # samples.json speaks for its own folder


def run_folder(path: Path) -> Path:
    (path / "samples" / "step_2").mkdir(parents=True)
    (path / "recipe.yaml").write_text("name: x\n")
    (path / "status.json").write_text("{}")
    Image.new("RGB", (90, 90)).save(path / "samples" / "step_2" / "0.png")
    return path


def test_runs_among_the_pictures_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, pictures())
    run_folder(tmp_path / "runs" / "first")
    (tmp_path / "runs" / "second").mkdir()
    (tmp_path / "runs" / "third").mkdir()
    for name in ("second/.lock", "third/.lock", "third/.lock-holder"):  # those that begin just now
        (tmp_path / "runs" / name).touch()
    assert len(names(tmp_path)) == 7
    assert names(tmp_path / "runs" / "first" / "samples") == ["step_2/0.png"]  # asked for by name


@pytest.mark.parametrize(
    "hidden", [".thumb.png", "._0.png", ".ipynb_checkpoints/0.png", "__MACOSX/._0.png", "a/.thumbnails/0.png"]
)
def test_hidden_files_are_not_judged(hidden: str, tmp_path: Path) -> None:
    write(tmp_path, pictures())
    (tmp_path / hidden).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / hidden).write_bytes(b"\0\5\x16\7 whatever")
    assert len(names(tmp_path)) == 7
    assert not open_pictures(tmp_path).notes


@pytest.mark.parametrize("form", ["bmp", "gif", "tif", "jfif", "ico", "TGA"])
def test_formats_that_training_does_not_read_are_said(form: str, tmp_path: Path) -> None:
    write(tmp_path, pictures(3))
    (tmp_path / f"x.{form}").write_bytes(b"whatever it holds")
    (tmp_path / "prompts.json").write_text("{}")
    assert open_pictures(tmp_path).notes == [
        f"1 file(s) in formats that are not read were left out, such as x.{form}"
    ]
    alone = tmp_path / "alone"
    alone.mkdir()
    (tmp_path / f"x.{form}").rename(alone / f"x.{form}")
    with pytest.raises(DataError, match=rf"(?s)no picture below.*x\.{form}.*supported: \.jpg"):
        open_pictures(alone)


def test_names_that_are_no_text_are_read_and_printable(tmp_path: Path) -> None:
    write(tmp_path, pictures(2))
    os.rename(tmp_path / "0.png", os.fsencode(tmp_path) + b"/\xff\xfe.png")
    os.rename(tmp_path / "1.png", tmp_path / "new\nline.png")
    found = open_pictures(tmp_path)
    assert names(tmp_path) == ["new\\nline.png", "\\xff\\xfe.png"]
    assert found.read(1).shape == (5, 6, 3)
    assert len(content_hash(found).encode()) == 64


@pytest.mark.parametrize("kind", ["pipe", "device", "zeros", "loop", "nowhere", "eps", "tiff", "gif", "bomb"])
def test_only_regular_files_of_our_formats_are_opened(kind: str, tmp_path: Path) -> None:
    target, files = tmp_path / "0.png", bad_bytes()
    if kind == "pipe":
        os.mkfifo(target)
    elif kind in ("device", "zeros", "loop", "nowhere"):
        target.symlink_to({"device": "/dev/null", "zeros": "/dev/zero", "loop": target}.get(kind, "absent"))
    else:
        hostile = {"eps": "eps.jpg", "tiff": "tiff_renamed.png", "gif": "gif_renamed.png", "bomb": "bomb.png"}
        target.write_bytes(files[hostile[kind]])
    found = open_pictures(tmp_path)
    with pytest.raises(DataError, match=r"0\.png"):
        found.read(0)
    if kind not in ("eps", "tiff", "gif", "bomb"):
        with pytest.raises(DataError, match=r"0\.png"):
            content_hash(found)


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    write(tmp_path / "real", pictures(2))
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    (chosen / "7.png").symlink_to(tmp_path / "real" / "1.png")
    (chosen / "more").symlink_to(tmp_path / "real")
    (chosen / "back").symlink_to(chosen)
    assert names(chosen) == ["7.png", "more/0.png", "more/1.png"]


def test_grey_images_become_three_channels() -> None:
    assert open_pictures(pictures()[..., :1]).read(0).shape == (5, 6, 3)


X = np.zeros((2, 4, 5, 3))
WRONG = {
    "unit": ((X + 0.5).astype(np.float32), r"float32 in \[0.5, 0.5\].*\(x \* 255\)\.round"),
    "signed": (X - 0.5, r"float64 in \[-0.5, -0.5\].*x \* 127\.5 \+ 128"),
    "levels": ((X + 200).astype(np.float16), r"float16 in \[200, 200\].*x\.clip"),
    "nan": (X * np.nan, r"float64, and 120 of 120 values are NaN or infinite.*no conversion"),
    "wide": ((X + 9).astype(np.int64), r"int64 in \[9, 9\]; pictures are uint8"),
    "sixteen": ((X + 65535).astype(np.uint16), r"uint16 in \[6.554e\+04, 6.554e\+04\].*x // 257"),
    "bool": (X.astype(bool), "bool"),
    "text": (np.array(["a", "b"]), r"holds <U1 \(2,\)"),
    "complex": (X.astype(complex), "complex128"),
    "first": (np.moveaxis(X, -1, 1).astype(np.uint8), r"channels come last, \(n, h, w, 3\)"),
    "two": (X[..., :2].astype(np.uint8), r"it should be \(n, h, w, 3\)"),
    "alpha": (np.concatenate([X, X[..., :1]], -1).astype(np.uint8), "it should be"),
    "flat": (X[..., 0].astype(np.uint8), "it should be"),
    "none": (X[:0].astype(np.uint8), "holds no pictures"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("form", ["array", "npz", "npy"])
def test_wrong_arrays_are_one_clear_error(form: str, kind: str, tmp_path: Path) -> None:
    content, message = WRONG[kind]
    source: object = content
    if form == "npz":
        np.savez(tmp_path / "a.npz", content)
        source = tmp_path / "a.npz"
    elif form == "npy":
        np.save(tmp_path / "a.npy", content)
        source = tmp_path / "a.npy"
    with pytest.raises(DataError, match=f"(?s){message}") as caught:
        open_pictures(source)
    assert "pickle" not in str(caught.value)


def header(shape: str, kind: str = "|u1") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def zipped(method: int, **members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def saved(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


PLAIN = saved(arr_0=pictures(2))
FILES = {
    "text": (b"just words", "is no npz or npy file"),
    "empty": (b"", "is no npz or npy file"),
    "page": (b"<!DOCTYPE html>", "it begins with b'<!DOCTYPE ht"),
    "pickle": (pickle.dumps([1]), "is no npz or npy file"),
    "picture": (bad_bytes()["gif_renamed.png"], "is no npz or npy file"),
    "cut": (PLAIN[: len(PLAIN) // 2], "cannot be read"),
    "flipped": (PLAIN.replace(pictures(2).tobytes()[:9], bytes(9)), "cannot be read"),
    "broken zip": (b"PK\x03\x04" + bytes(60), "cannot be read"),
    "other names": (saved(images=pictures(2), labels=np.arange(2)), r"(?s)holds no arr_0.*images, labels"),
    "statistics": (saved(mu=np.zeros(3), sigma=np.eye(3)), "give it as --reference"),
    "objects": (saved(arr_0=np.array([{"a": 1}, None], dtype=object)), "holds Python objects"),
    "bad header": (zipped(0, arr_0=b"\x93NUMPY\x01\x00\x10\x00garbage, garbage"), "damaged header"),
    "no header": (zipped(0, arr_0=b"abc"), "damaged header"),
    "lying": (zipped(0, arr_0=header("(9999999, 512, 512, 3)") + bytes(9)), "there are 9"),
    "lying npy": (header("(9999999, 512, 512, 3)") + bytes(9), "there are 9"),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_that_hold_no_pictures_are_one_clear_error(kind: str, tmp_path: Path) -> None:
    content, message = FILES[kind]
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        open_pictures(tmp_path / "a.npz")
    assert "pickle" not in str(caught.value).lower()
    assert "a.npz" in str(caught.value)


def test_an_array_that_grows_beyond_belief_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.npz").write_bytes(zipped(8, arr_0=header("(2, 512, 512, 1)") + bytes(2 * 512**2)))
    assert len(open_pictures(tmp_path / "a.npz")) == 2  # black pictures shrink as much, but are small
    monkeypatch.setattr("genzoo.data.array_files.GROWTH_FROM", 2**18)
    with pytest.raises(DataError, match="would grow from"):
        open_pictures(tmp_path / "a.npz")


def test_pipes_devices_and_nothing_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    for name in (str(tmp_path / "pipe.npz"), "/dev/zero"):
        with pytest.raises(DataError, match="not a regular file"):
            open_pictures(name)
    with pytest.raises(DataError, match="no file or folder"):
        open_pictures(tmp_path / "absent")


def test_samples_are_rounded_as_they_are_saved() -> None:
    pixels = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0]).view(1, 1, 1, 5)
    assert to_levels(pixels).flatten().tolist() == [0, 0, 128, 255, 255]


class Two:
    """A data set of two pictures, or clips, each of one level."""

    fingerprint = "two"

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def __len__(self) -> int:
        return 2

    def fetch(self, index: int) -> dict[str, torch.Tensor]:
        return {"pixels": torch.full(self.shape, float(index))}


@pytest.mark.parametrize(("shape", "read"), [((1, 3, 4), (3, 4, 3)), ((2, 3, 4, 5), (2, 4, 5, 3))])
def test_a_data_set_is_a_set_of_pictures_or_clips(shape: tuple[int, ...], read: tuple[int, ...]) -> None:
    found = DatasetPictures(Two(*shape))
    assert found.read(1).tolist() == np.full(read, 255).tolist()
    part = Subset(found, [1])
    assert (len(part), part.name(0)) == (1, "item 1")
    assert content_hash(part) != content_hash(found)


def test_a_stamp_changes_with_an_edit(tmp_path: Path) -> None:
    write(tmp_path, pictures(2))
    found = FilePictures(["0.png", "absent.png"], tmp_path)
    before = found.stamp(0)
    os.utime(tmp_path / "0.png", (1, 1))
    assert before != found.stamp(0)
    assert found.stamp(1) == "absent.png|missing"
