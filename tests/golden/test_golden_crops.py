"""Pictures cut as the trainers of VAR and CAR cut them, and their controls with them, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden.manifest import golden_cases, golden_tensors
from PIL import Image
from torch import Tensor

from genzoo.core.errors import DataError
from genzoo.data.image_folder import ImageFolder, image_folder
from genzoo.data.lanczos_crop import corner, lanczos_crop, with_margin
from genzoo.families.car.control.pyramid import control_pyramid

SET = "control"
CASES = {case["name"]: case for case in golden_cases(SET, "transforms")}


def picture(levels: Tensor) -> Image.Image:
    return Image.fromarray(levels.numpy())


def levels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image))


def views(case: dict[str, Any]) -> dict[str, torch.Generator | None]:
    drawn = {f"train{number}": entry["seed"] for number, entry in enumerate(case["random"])}
    generators = {name: torch.Generator().manual_seed(seed) for name, seed in drawn.items()}
    return {**generators, "val": None}


@pytest.mark.parametrize("name", CASES)
def test_views_equal_the_official_ones(name: str) -> None:
    case, recorded = CASES[name], golden_tensors(SET, "transforms", name)
    size = (case["reso"], case["reso"])
    image, control = picture(recorded["rgb"]), picture(recorded["control_file"])
    resized = with_margin(image, size)
    assert [resized.height, resized.width] == case["resized_hw"]
    assert list(corner((resized.height, resized.width), size, None)) == case["centre"]
    for view, generator in views(case).items():
        state = None if generator is None else generator.get_state()
        assert torch.equal(levels(lanczos_crop(image, size, generator)), recorded[f"{view}/u8"])
        if generator is not None:
            generator.set_state(state)  # the control is cut at the same corner
        cut = levels(lanczos_crop(control, size, generator))
        sides = [(16 * p, 16 * p) for p in case["patch_nums"]]
        pyramid = control_pyramid(cut.movedim(-1, 0)[None], sides)
        for number, scale in enumerate(pyramid):
            found = ((scale[0] + 1) * 127.5).round().byte().movedim(0, -1)
            assert torch.equal(found, recorded[f"{view}/control_u8.{number}"])


def folder_of(path: Path) -> Path:
    levels_ = np.random.RandomState(0).randint(0, 256, (40, 56, 3), dtype=np.uint8)
    path.mkdir()
    Image.fromarray(levels_).save(path / "a.png")
    return path


def test_a_folder_is_cut_at_random_in_training_and_centrally_elsewhere(tmp_path: Path) -> None:
    data = ImageFolder(folder_of(tmp_path / "data"), image_size=32, horizontal_flip=False, crop="official")
    assert data.augments
    central = data.fetch(0)["pixels"]
    drawn = [data.fetch(0, torch.Generator().manual_seed(seed))["pixels"] for seed in range(5)]
    assert len({tensor.numpy().tobytes() for tensor in drawn}) > 2
    assert torch.equal(drawn[3], data.fetch(0, torch.Generator().manual_seed(3))["pixels"])
    fixed = ImageFolder(tmp_path / "data", image_size=32, horizontal_flip=False, crop="official_centre")
    assert not fixed.augments
    assert torch.equal(fixed.fetch(0, torch.Generator())["pixels"], central)
    adm = ImageFolder(tmp_path / "data", image_size=32, horizontal_flip=False)
    assert not torch.equal(adm.fetch(0)["pixels"], central)
    assert len({data.fingerprint, fixed.fingerprint, adm.fingerprint}) == 3


def test_rectangles_are_covered(tmp_path: Path) -> None:
    data = ImageFolder(folder_of(tmp_path / "data"), image_size=[16, 48], crop="official")
    assert data.fetch(0, torch.Generator())["pixels"].shape == (3, 16, 48)


def test_what_is_stored_of_central_views_takes_no_random_crop(tmp_path: Path) -> None:
    for stored in ({"latent_cache": tmp_path}, {"controls": tmp_path}):
        with pytest.raises(DataError, match="official_centre"):
            image_folder(folder_of(tmp_path / next(iter(stored))), crop="official", **stored)
    with pytest.raises(DataError, match="no crop 'centre'"):
        image_folder(tmp_path / "controls", crop="centre")


@pytest.mark.parametrize("generator", [None, torch.Generator()], ids=["centre", "random"])
def test_a_crop_larger_than_the_picture_is_refused(generator: torch.Generator | None) -> None:
    with pytest.raises(DataError, match="no crop of 256 x 240 in a picture of 300 x 239"):
        corner((239, 300), (240, 256), generator)
    assert corner((240, 300), (240, 256), None) == (0, 22)
