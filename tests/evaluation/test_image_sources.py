"""Reading images to judge: order, hashes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genzoo.core.errors import DataError
from genzoo.evaluation.image_sources import (
    ArrayImages,
    DatasetImages,
    FirstImages,
    batches,
    open_images,
    to_uint8,
)


def pictures(n: int = 7, height: int = 5, width: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def write(folder: Path, images: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index:06d}.png")
    return folder


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batches_keep_the_order(tmp_path: Path, batch_size: int, workers: int) -> None:
    images = pictures()
    loaded = batches(open_images(write(tmp_path, images)), batch_size=batch_size, workers=workers)
    joined = torch.cat([batch for batch, _ in loaded])
    assert torch.equal(joined, torch.from_numpy(images).movedim(-1, 1))


def test_the_same_pixels_from_npz_npy_and_array(tmp_path: Path) -> None:
    images = pictures()
    np.savez(tmp_path / "a.npz", images)
    np.save(tmp_path / "a.npy", images)
    hashes = {
        open_images(source).content_hash() for source in (tmp_path / "a.npz", tmp_path / "a.npy", images)
    }
    assert len(hashes) == 1


def test_the_content_hash_sees_every_pixel_and_the_order(tmp_path: Path) -> None:
    images = pictures()
    changed = images.copy()
    changed[3, 2, 1, 0] ^= 1
    folders = [
        write(tmp_path / name, array) for name, array in (("a", images), ("b", images), ("c", changed))
    ]
    one, same, other = (open_images(folder).content_hash() for folder in folders)
    assert one == same != other
    assert ArrayImages(images).content_hash() != ArrayImages(images[::-1].copy()).content_hash()


def test_the_overview_of_a_sample_folder_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, pictures())
    Image.new("RGB", (90, 90)).save(tmp_path / "grid.png")
    assert len(open_images(tmp_path)) == 8
    (tmp_path / "samples.json").write_text(json.dumps({}))
    assert len(open_images(tmp_path)) == 7


def test_mixed_sizes_name_the_odd_file(tmp_path: Path) -> None:
    write(tmp_path, pictures())
    Image.new("RGB", (9, 4)).save(tmp_path / "000003.png")
    with pytest.raises(DataError, match=r"mixed sizes: 000003.png is 4 x 9, others are 5 x 6"):
        list(batches(open_images(tmp_path), batch_size=2, workers=1))


def test_mixed_sizes_are_welcome_when_each_image_is_prepared(tmp_path: Path) -> None:
    write(tmp_path, pictures())
    Image.new("RGB", (9, 4)).save(tmp_path / "000003.png")

    def prepare(image: Image.Image) -> torch.Tensor:
        return torch.tensor([float(image.width)])

    loaded = torch.cat([batch for batch, _ in batches(open_images(tmp_path), batch_size=2, prepare=prepare)])
    assert loaded.flatten().tolist() == [6.0, 6.0, 6.0, 9.0, 6.0, 6.0, 6.0]


def test_constant_images_are_reported(tmp_path: Path) -> None:
    images = pictures()
    images[4] = 77
    constant = [index for _, found in batches(open_images(images), batch_size=3) for index in found]
    assert constant == [4]


def test_grey_images_become_three_channels() -> None:
    images = open_images(pictures()[..., :1])
    assert images.read(0).shape == (5, 6, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), "uint8 images"),
        (np.zeros((2, 4, 4, 2), np.uint8), "uint8 images"),
        (np.zeros((0, 4, 4, 3), np.uint8), "uint8 images"),
    ],
)
def test_wrong_arrays_are_refused(content: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_images(content)


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", something=np.zeros(3))
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"\x89PNG but not really")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        open_images(tmp_path / "other.npz")
    with pytest.raises(DataError, match="neither a folder"):
        open_images(tmp_path / "text.npz")
    with pytest.raises(DataError, match="not a readable image"):
        list(batches(open_images(tmp_path / "broken"), batch_size=2))
    with pytest.raises(DataError, match="no image below"):
        open_images(tmp_path / "empty")
    with pytest.raises(DataError, match="no file or folder"):
        open_images(tmp_path / "absent")


def test_pickled_arrays_are_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError):
        open_images(tmp_path / "evil.npy")


def test_samples_are_rounded_as_they_are_saved() -> None:
    pixels = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0]).view(1, 1, 1, 5)
    assert to_uint8(pixels).flatten().tolist() == [0, 0, 128, 255, 255]


def test_a_data_set_is_a_set_of_images() -> None:
    class Two:
        fingerprint = "two"

        def __len__(self) -> int:
            return 2

        def fetch(self, index: int) -> dict[str, torch.Tensor]:
            return {"pixels": torch.full((1, 3, 4), float(index))}

    images = DatasetImages(Two())
    assert images.read(1).tolist() == np.full((3, 4, 3), 255).tolist()
    assert len(FirstImages(images, 1)) == 1
    assert FirstImages(images, 1).content_hash() != images.content_hash()
