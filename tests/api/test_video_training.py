"""From a folder of videos to samples: a recipe with a codec, stills and a cache, stopped and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from clip_cases import CLIPS
from diffusers import AutoencoderKL

pytest.importorskip("av")
from data.video_cases import frame_folder, video

from genzoo.api.preparation.latents import prepare_latents
from genzoo.api.run import Run, train
from genzoo.core.checkpoint import load_checkpoint
from genzoo.core.errors import DataError
from genzoo.core.recipe import recipe_from

FRAMES = 9 + 6 + 7 + 8


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("clips")
    video(root / "data" / "a" / "1.mp4", 9, codec="libx264")
    video(root / "data" / "a" / "2.avi", 6)
    frame_folder(root / "data" / "b" / "clip", 7)
    video(root / "data" / "b" / "3.mp4", 8)
    torch.manual_seed(0)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 8), norm_num_groups=4, latent_channels=2, layers_per_block=1,
    ).save_pretrained(root / "vae")  # fmt: skip
    data = {
        "name": "video_folder", "root": str(root / "data"), "image_size": 16, "num_frames": 3,
        "frame_interval": 2, "use_image_num": 2, "index_folder": str(root / "index"),
    }  # fmt: skip
    codec = {"name": "autoencoder_kl", "path": str(root / "vae"), "slice_size": 4}
    settings = {**CLIPS["train"], "steps": 4, "checkpoint_every": 2}
    return {**CLIPS, "name": "tiny_videos", "data": data, "codec": codec, "train": settings, "report": []}


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_checkpoint(run.checkpoint(), ("model",)).weights


@pytest.mark.parametrize("cached", [False, True])
def test_videos_are_trained_on_resumed_exactly_and_sampled(
    recipe: dict[str, Any], tmp_path: Path, cached: bool
) -> None:
    data = {**recipe["data"], "latent_cache": str(tmp_path / "latents")} if cached else recipe["data"]
    made = recipe_from({**recipe, "data": data})
    if cached:
        with pytest.raises(DataError, match="prepare latents"):
            train(made, output=tmp_path / "early")
        report = prepare_latents(made, batch_size=5)
        assert (report.total, report.built, report.bad) == (FRAMES, FRAMES, [])
    whole = train(made, output=tmp_path / "whole")
    half = recipe_from({**recipe, "data": data, "train": {**recipe["train"], "steps": 2}})
    train(half, output=tmp_path / "parts")
    parts = train(made, output=tmp_path / "parts")
    assert all(torch.equal(value, weights(parts)[key]) for key, value in weights(whole).items())
    samples = whole.sample(num=2, steps=2, class_labels=[1, 0])
    assert samples.pixels.shape == (2, 3, 3, 16, 16)
    assert whole.dataset().class_names == ["a", "b"]
