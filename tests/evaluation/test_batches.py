"""Batches of pictures and clips for a feature network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genzoo.core.errors import DataError
from genzoo.data.picture_sets import open_pictures
from genzoo.evaluation.batches import batches
from genzoo.evaluation.clip_sources import ClipSet


def pictures(n: int = 7) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 5, 6, 3), dtype=np.uint8)


def write(folder: Path, images: np.ndarray) -> Path:
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index}.png")
    return folder


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batches_keep_the_order(tmp_path: Path, batch_size: int, workers: int) -> None:
    images = pictures(12)
    loaded = batches(open_pictures(write(tmp_path, images)), batch_size=batch_size, workers=workers)
    joined = torch.cat([batch for batch, _ in loaded])
    assert torch.equal(joined, torch.from_numpy(images).movedim(-1, 1))


def test_clips_have_their_frames_after_the_channels() -> None:
    clips = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 7, 3), dtype=np.uint8)
    (batch, constant), *_ = batches(ClipSet(clips, frames=3), batch_size=2)
    assert torch.equal(batch, torch.from_numpy(clips[:2, :3]).movedim(-1, 1))
    assert batch.shape == (2, 3, 3, 6, 7)
    assert constant == []


def test_mixed_sizes_name_the_odd_file(tmp_path: Path) -> None:
    write(tmp_path, pictures())
    Image.new("RGB", (9, 4)).save(tmp_path / "3.png")
    with pytest.raises(DataError, match=r"mixed sizes: 3.png is 4 x 9, others are 5 x 6"):
        list(batches(open_pictures(tmp_path), batch_size=2, workers=1))


def test_mixed_sizes_are_welcome_when_each_image_is_prepared(tmp_path: Path) -> None:
    write(tmp_path, pictures())
    Image.new("RGB", (9, 4)).save(tmp_path / "3.png")

    def prepare(image: Image.Image) -> torch.Tensor:
        return torch.tensor([float(image.width)])

    loaded = [batch for batch, _ in batches(open_pictures(tmp_path), batch_size=2, prepare=prepare)]
    assert torch.cat(loaded).flatten().tolist() == [6.0, 6.0, 6.0, 9.0, 6.0, 6.0, 6.0]


def test_constant_images_are_reported() -> None:
    images = pictures()
    images[4] = 77
    assert [index for _, found in batches(open_pictures(images), batch_size=3) for index in found] == [4]
