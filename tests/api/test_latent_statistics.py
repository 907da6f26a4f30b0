"""Statistics of one's own latents: measured, used in training, and refused where they are others'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from recipe_cases import TINY

from genzoo.api.preparation.latent_statistics import measure_latents
from genzoo.api.run import load_run, train
from genzoo.cli import main
from genzoo.core.errors import CheckpointError, DataError, UsageError, WeightsError
from genzoo.core.recipe import recipe_from
from genzoo.core.seeds import SampleStreams
from genzoo.data.emoji import Emoji
from genzoo.pretrained.codecs import AutoencoderKLCodec

DATA = {"name": "emoji", "image_size": 32, "styles": ["fluent_flat"]}


def save_vae(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 12), norm_num_groups=4, latent_channels=3, layers_per_block=1,
    )  # fmt: skip
    vae.save_pretrained(folder)
    return folder


def recipe(vae: Path, **codec: Any) -> Any:
    section = {"name": "autoencoder_kl", "path": str(vae), **codec}
    train_section = {**TINY["train"], "steps": 2}
    return recipe_from(
        {**TINY, "data": DATA, "codec": section, "train": train_section, "report": [], "preview": None}
    )


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_vae(tmp_path_factory.mktemp("vae") / "vae", 0)


def test_measured_statistics_make_other_pictures_normal(vae: Path) -> None:
    found = measure_latents(recipe(vae), num=400, batch_size=64)
    assert (found.pictures, found.checked) == (400, 80)
    assert found.worst_mean < 0.2
    codec = AutoencoderKLCodec(str(vae), statistics=found.content())
    pictures = Emoji(image_size=32, styles=["fluent_flat"])
    pixels = torch.stack([pictures.fetch(index)["pixels"] for index in range(0, 1300, 3)])
    latents = codec.encode(pixels, SampleStreams.from_seeds(1, "x", positions=range(len(pixels))))
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 0.2
    assert (latents.std(dim=(0, 2, 3)) - 1).abs().max() < 0.2
    assert measure_latents(recipe(vae), num=400, batch_size=50).mean == pytest.approx(found.mean, rel=1e-6)


def test_the_command_writes_a_file_that_training_takes(vae: Path, tmp_path: Path) -> None:
    file, written = tmp_path / "statistics.json", tmp_path / "recipe.yaml"
    written.write_text(recipe(vae).to_yaml(), encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        main(["prepare", "latent-statistics", str(written), "--num", "30", "--output", str(file)])
    assert not stop.value.code
    content = json.loads(file.read_text())
    assert content["codec"] == AutoencoderKLCodec(str(vae)).fingerprint
    run = train(recipe(vae, statistics=str(file)), output=tmp_path / "run")
    assert run.sample(num=1, steps=2).pixels.shape == (1, 3, 32, 32)
    # others in their place: the model would meet other latents
    file.write_text(json.dumps({**content, "std": [2 * value for value in content["std"]]}))
    with pytest.raises(CheckpointError, match="the latent statistics is not the one"):
        load_run(tmp_path / "run").sample(num=1)
    with pytest.raises(SystemExit) as stop:
        main(["prepare", "latent-statistics", str(written), "--num", "30", "--output", str(file)])
    assert stop.value.code == 2  # the file is there


def test_statistics_of_another_codec_are_refused_before_training(vae: Path, tmp_path: Path) -> None:
    content = measure_latents(recipe(vae), num=20).content()
    other = save_vae(tmp_path / "other", 1)
    with pytest.raises(
        WeightsError, match=r"(?s)measured with autoencoder_kl-.*encodes with autoencoder_kl-"
    ):
        train(recipe(other, statistics=content), output=tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_what_cannot_be_measured_is_refused(vae: Path) -> None:
    with pytest.raises(UsageError, match="no codec whose latents are normalised"):
        measure_latents(recipe_from({**TINY}), num=5)
    few = recipe_from({**recipe(vae).data, "data": {**DATA, "split": "train", "hold_out_fraction": 0.9999}})
    with pytest.raises(DataError, match="no image is left"):
        measure_latents(few, num=5)
