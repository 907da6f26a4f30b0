"""The weights that ship with the package do what their README says."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import genzoo
from genzoo.assets import asset
from genzoo.core.errors import WeightsError
from genzoo.core.seeds import SampleStreams
from genzoo.data.controls import canny
from genzoo.data.emoji import Emoji
from genzoo.evaluation.colour import ciede2000, lab
from genzoo.evaluation.control_edges import agreement
from genzoo.evaluation.controlled_samples import as_seen
from genzoo.evaluation.reconstruction import psnr
from genzoo.families.car.task import NextScaleTask
from genzoo.families.car.vqvae.codec import VQVAECodec

PATCH_NUMS = [1, 2, 4, 8, 16]
LARGEST = 10 * 2**20


@pytest.fixture(scope="module")
def codec() -> VQVAECodec:
    return VQVAECodec("assets:vqvae_emoji", patch_nums=PATCH_NUMS, slice_size=16)


@pytest.fixture(scope="module")
def food() -> Emoji:
    return Emoji(styles=["fluent_flat"], include_classes=["Food & Drink"])


def pixels_of(data: Emoji, num: int) -> torch.Tensor:
    return torch.stack([data.fetch(index * len(data) // num)["pixels"] for index in range(num)])


def test_the_vqvae_keeps_edges(codec: VQVAECodec, food: Emoji) -> None:
    pixels = pixels_of(food, 12)
    reconstructed = as_seen(codec.decode(codec.sums(codec.moments(pixels))[-1]))
    edges = [canny(part, low=200, high=400) for part in (reconstructed, pixels)]
    assert agreement(edges[0], edges[1], tolerance=1).f1 > 0.9


def test_the_vqvae_keeps_colours_of_drawings_it_never_saw(codec: VQVAECodec) -> None:
    unseen = Emoji(styles=["fluent_flat"], hold_out_fraction=0.05, split="held_out")
    pixels = pixels_of(unseen, len(unseen))
    reconstructed = codec.decode(codec.sums(codec.moments(pixels))[-1])
    assert psnr(reconstructed, pixels).mean() > 24
    differences = ciede2000(lab(reconstructed), lab(pixels))
    assert differences.mean() < 4.5
    red, green, blue = pixels.unbind(1)
    assert differences[(red > 0.4) & (green < -0.2) & (blue < -0.2)].mean() < 10


def test_the_var_knows_what_follows(codec: VQVAECodec, food: Emoji) -> None:
    car = genzoo.create_model("car_emoji").eval()
    task = NextScaleTask(car.base, codec=codec, label_dropout=0.0)
    batch = {"pixels": pixels_of(food, 6), "class_labels": torch.full((6,), 2)}
    streams = SampleStreams.from_seeds(0, "noise", positions=range(6))
    with torch.no_grad():
        loss = float(task.loss(car.base, task.prepare_batch(batch, streams)).loss)
    assert loss < 0.9 * math.log(512)


@pytest.mark.parametrize("name", ["vqvae_emoji", "var_emoji"])
def test_shipped_weights_are_small_halves_with_their_story(name: str) -> None:
    from safetensors.torch import load_file

    folder = asset(f"weights/{name}")
    assert sum(path.stat().st_size for path in folder.iterdir()) < LARGEST
    floating = {v.dtype for v in load_file(folder / "model.safetensors").values() if v.is_floating_point()}
    assert floating == {torch.float16}
    story = (folder / "README.md").read_text()
    assert all(word in story for word in (f"recipes/{name}.yaml", "seed 0", "Hardware", "Quality", "commit"))


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(WeightsError, match="did you mean 'vqvae_emoji'"):
        VQVAECodec("assets:vqvae_emoj")


def test_names_do_not_leave_the_package(tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        VQVAECodec("assets:../../assets/weights/vqvae_emoji/..")
