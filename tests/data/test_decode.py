"""Whatever a file holds, decoding ends in a picture or in a DataError that names the file."""

from __future__ import annotations

import io
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
from hostile_images import bad_bytes, encode, good_files, photo, png, png_chunk, write_bad
from PIL import Image, ImageOps

from genzoo.core.errors import DataError
from genzoo.core.reading import shown
from genzoo.data.image_decode import decode_image, load_image
from genzoo.data.transforms import adm_centre_crop


def read(path: Path, root: Path | None = None) -> Image.Image:
    return adm_centre_crop(load_image(path, root=root), 256)


def test_every_bad_file_is_a_data_error_that_names_it(tmp_path: Path) -> None:
    folder = (tmp_path / "data").resolve()
    folder.mkdir()
    files = write_bad(folder, tmp_path / "outside.png")
    assert len(files) >= 39
    for path in files:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(DataError) as caught:
                read(path, folder)
        assert path.name in str(caught.value) or path.name == "long_strip.png"
        assert len(str(caught.value).splitlines()) <= 6


@pytest.mark.parametrize("name", good_files())
def test_odd_but_good_files_decode(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(good_files()[name])
    picture = load_image(tmp_path / name, root=tmp_path.resolve())
    assert picture.mode == "RGB"
    assert load_image(tmp_path / name, channels=1).mode == "L"
    assert adm_centre_crop(picture, 32).size == (32, 32)


def test_a_link_out_is_refused_unless_any_place_is_allowed(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (tmp_path / "outside.png").write_bytes(encode(photo(), "PNG"))
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "plain.png").write_bytes(encode(photo(), "PNG"))
    (folder / "inner.png").symlink_to("plain.png")
    with pytest.raises(DataError, match="leads out"):
        load_image(folder / "link.png", root=folder.resolve())
    with pytest.raises(DataError, match="leads out"):
        load_image(folder / ".." / "outside.png", root=folder.resolve())
    assert (
        load_image(folder / "link.png").size == load_image(folder / "inner.png", root=folder.resolve()).size
    )


@pytest.mark.parametrize("name", ["nul\0.png", "x" * 300 + ".png", "missing.png", "."])
def test_names_that_cannot_be_opened_are_data_errors(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        load_image(Path(str(tmp_path) + "/" + name), root=tmp_path.resolve())


@pytest.mark.parametrize(("form", "seed"), [("JPEG", 1), ("PNG", 2), ("WEBP", 3)])
def test_a_thousand_mutations_never_escape_as_another_error(form: str, seed: int) -> None:
    rng, original = random.Random(seed), encode(photo(24, 16), form)
    refused = 0
    for trial in range(1000):
        data = bytearray(original)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        cut = rng.randrange(1, len(data)) if trial % 4 == 0 else len(data)
        try:
            picture = decode_image(bytes(data[:cut]), where="mutation", max_pixels=1_000_000)
        except DataError:
            refused += 1
        else:
            assert picture.mode == "RGB"
    assert refused > 100


def test_exif_rotation_is_applied() -> None:
    turned = decode_image(good_files()["turned.jpg"], where="turned")
    assert turned.size == (40, 60)
    plain = photo().transpose(Image.Transpose.ROTATE_270)
    assert np.abs(np.asarray(turned, float) - np.asarray(plain, float)).mean() < 4


@pytest.mark.parametrize("orientation", range(2, 9))
def test_orientations_agree_with_pillow(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photo(), "PNG", exif=exif)
    with Image.open(io.BytesIO(data)) as source:
        expected = np.asarray(ImageOps.exif_transpose(source))
    assert np.array_equal(np.asarray(decode_image(data, where="x")), expected)


def test_transparency_is_laid_on_white() -> None:
    image = photo().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    assert np.asarray(decode_image(encode(image, "PNG"), where="x")).min() == 255
    half = Image.new("RGBA", (2, 2), (0, 0, 0, 51))
    assert np.asarray(decode_image(encode(half, "PNG"), where="x")).ravel().tolist() == [204] * 12
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([9, 9, 9])
    assert np.asarray(decode_image(encode(palette, "PNG", transparency=0), where="x")).min() == 255


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    grey = np.array([[0, 128, 129, 257, 32896, 65535]], np.uint16)
    picture = decode_image(encode(Image.fromarray(grey), "PNG"), where="x", channels=1)
    assert np.asarray(picture).tolist() == [[0, 0, 1, 1, 128, 255]]
    hole = png(2, 1, 16, 0, b"\0" + b"\x00\x07" + b"\x80\x80", png_chunk(b"tRNS", b"\x00\x07"))
    assert np.asarray(decode_image(hole, where="x", channels=1)).tolist() == [[255, 128]]
    colour = png(1, 1, 16, 2, b"\0" + b"\xff\xff" + b"\x80\x80" + b"\x00\x00")
    assert np.asarray(decode_image(colour, where="x")).tolist() == [[[255, 128, 0]]]


def test_grey_stays_grey_in_both_channel_counts() -> None:
    grey = photo().convert("L")
    data = encode(grey, "PNG")
    assert np.array_equal(np.asarray(decode_image(data, where="x", channels=1)), np.asarray(grey))
    rgb = np.asarray(decode_image(data, where="x"))
    assert all(np.array_equal(rgb[..., c], np.asarray(grey)) for c in range(3))


def test_size_limits_can_be_chosen() -> None:
    with pytest.raises(DataError, match="60 x 40 pixels"):
        decode_image(encode(photo(), "PNG"), where="x", max_pixels=2399)


def test_bombs_in_the_range_where_pillow_only_warns_are_errors() -> None:
    with pytest.raises(DataError, match="10000 x 10000 pixels"):
        decode_image(bad_bytes()["bomb_warning_range.png"], where="x")


def test_printed_paths_hold_no_control_characters() -> None:
    assert shown("a\x1b[31m\n.png") == "a\\x1b[31m\\n.png"
    assert shown(b"caf\xe9.png".decode("utf-8", "surrogateescape")) == "caf\\xe9.png"
    assert shown("猫.png") == "猫.png"
