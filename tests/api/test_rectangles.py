"""Pictures and clips of 32 x 64: trained, previewed, sampled and judged like squares."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from recipe_cases import TINY

from genzoo.api.run import Run, load_run, train
from genzoo.core.errors import GenzooError, WeightsError
from genzoo.core.recipe import recipe_from
from genzoo.core.registry import CONVERTERS, MODELS

HEIGHT, WIDTH, FRAMES = 32, 64, 3
SCALES = [1, [1, 2], [2, 4], [4, 8], [8, 16]]
PATCHES = {"hidden_size": 24, "depth": 2, "patch_size": 8, "learn_sigma": False}
FACTS = {"num_classes": "auto", "input_size": "auto", "in_channels": "auto"}


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (4, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of pictures of several shapes, each with room for 32 x 64."""
    root = tmp_path_factory.mktemp("pictures")
    for seed, size in enumerate([(64, 32), (90, 33), (70, 80), (128, 64), (65, 40), (200, 100)]):
        folder = root / f"class{seed % 2}"
        folder.mkdir(exist_ok=True)
        picture(seed, size).save(folder / f"{seed}.png")
    return root


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six folders of frames."""
    root = tmp_path_factory.mktemp("films")
    for clip in range(6):
        (root / f"clip{clip}").mkdir()
        for frame in range(5):
            picture(10 * clip + frame, (80, 40)).save(root / f"clip{clip}" / f"{frame:03d}.png")
    return root


def recipe(**sections: Any) -> dict[str, Any]:
    data = copy.deepcopy(TINY) | sections
    data["train"] = TINY["train"] | {"steps": 3, "batch_size": 4, "checkpoint_every": 3}
    data["preview"] = {"every": 3, "num": 2, "columns": 2}
    data["report"] = []
    return data


def pixels_of(root: Path) -> dict[str, Any]:
    return {"name": "image_folder", "root": str(root), "image_size": [HEIGHT, WIDTH]}


def check(run: Run, shape: tuple[int, ...], protocol: str) -> None:
    """The preview, samples in memory and in files, and the judgement, of a trained run."""
    with Image.open(run.folder / "samples/step_00000003/grid.png") as grid:
        assert grid.height < grid.width
    drawn = load_run(run.folder).sample(num=2, seed=1)
    assert drawn.pixels.shape == (2, *shape)
    assert torch.isfinite(drawn.pixels).all()
    result = run.evaluate(protocol, num=5)
    assert result.generated["num"] == 5
    assert all(np.isfinite(value) for value in result.metrics.values())


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    "model", [{"name": "dit", "num_heads": 2}, {"name": "dim", "d_state": 4}], ids=["dit", "dim"]
)
def test_pictures_through_models_of_patches(model: dict[str, Any], pictures: Path, tmp_path: Path) -> None:
    asked = recipe(model={**PATCHES, **FACTS, **model}, data=pixels_of(pictures))
    run = train(recipe_from(asked), output=tmp_path / "run")
    assert run.plan.model.arguments["input_size"] == [HEIGHT, WIDTH]
    check(run, (3, HEIGHT, WIDTH), "quick-pixels")


def test_clips_through_matten(films: Path, tmp_path: Path) -> None:
    model = {**PATCHES, **FACTS, "name": "matten", "num_heads": 2, "d_state": 4, "num_frames": "auto"}
    data = {"name": "video_folder", "root": str(films), "num_frames": FRAMES, "class_folders": False}
    data["image_size"] = [HEIGHT, WIDTH]
    asked = recipe(model=model, data=data, sampler={"name": "ddim", "steps": 3, "block_size": 4})
    run = train(recipe_from(asked), output=tmp_path / "run")
    assert run.plan.model.arguments["input_size"] == [HEIGHT, WIDTH]
    check(run, (FRAMES, 3, HEIGHT, WIDTH), "quick-video")


def next_scale(pictures: Path, scales: list[Any]) -> dict[str, Any]:
    model = {
        "name": "var", "depth": 2, "hidden_size": 32, "num_heads": 2, "patch_nums": scales, "in_channels": 8,
        "codebook_size": 512, "num_classes": "auto",
    }  # fmt: skip
    return recipe(
        task={"name": "next_scale"},
        model=model,
        data=pixels_of(pictures),
        codec={"name": "vqvae", "weights": "assets:vqvae_emoji", "patch_nums": scales},
        sampler={"name": "next_scale", "top_k": 5, "block_size": 4},
    )


def test_pictures_through_var_with_maps_of_their_shape(pictures: Path, tmp_path: Path) -> None:
    run = train(recipe_from(next_scale(pictures, SCALES)), output=tmp_path / "run")
    check(run, (3, HEIGHT, WIDTH), "quick-pixels")
    file = next(pictures.rglob("*.png"))
    edited = run.sample(image=str(file), region="0,0,0.5,1", num=1)
    assert edited.pixels.shape == (1, 3, HEIGHT, WIDTH)


def test_var_with_square_maps_says_which_maps_would_do(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(GenzooError) as caught:
        train(recipe_from(next_scale(pictures, [1, 2, 4, 8, 16])), output=tmp_path / "run")
    assert "codes pictures of shape (3, 64, 64), not (3, 32, 64)" in str(caught.value)
    assert f"patch_nums of codec and model to {SCALES}" in str(caught.value)


def test_released_layouts_are_told_the_shape_of_the_latents() -> None:
    arguments = {**PATCHES, "name": "dit", "num_heads": 2, "num_classes": 3, "in_channels": 2}
    name = arguments.pop("name")
    model = MODELS.get(name)(**arguments, input_size=[16, 24])
    converter = CONVERTERS.get("dit")()
    with pytest.raises(WeightsError, match="6 positions, which are no square"):
        converter.to_genzoo(model.state_dict(), num_heads=2)
    conversion = converter.to_genzoo(model.state_dict(), num_heads=2, input_size=[16, 24])
    again = MODELS.get(name)(**conversion.arguments)
    again.load_state_dict(conversion.weights, strict=True)
    assert again.grid == (2, 3)


def test_pictures_through_car_under_their_edges(pictures: Path, tmp_path: Path) -> None:
    asked = next_scale(pictures, SCALES)
    asked["task"] = {"name": "next_scale", "control": "canny"}
    asked["model"] |= {"name": "car", "control_channels": [4, 8, 8]}
    run = train(recipe_from(asked), output=tmp_path / "run")
    file = next(pictures.rglob("*.png"))
    assert run.sample(control_from=str(file), num=2).pixels.shape == (2, 3, HEIGHT, WIDTH)
