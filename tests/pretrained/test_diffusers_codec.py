"""Every autoencoder of diffusers that is a codec, tiny, at random weights, against diffusers' own calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from genzoo.core.errors import CheckpointError, DataError, ShapeError, UsageError, WeightsError
from genzoo.core.seeds import SampleStreams
from genzoo.pretrained.codecs import AutoencoderKLCodec
from genzoo.pretrained.diffusers_codec import KINDS, DiffusersCodec
from genzoo.pretrained.normalisation import per_channel

DOWN, UP = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
KL = {
    "down_block_types": DOWN, "up_block_types": UP, "block_out_channels": (8, 12), "norm_num_groups": 4,
    "layers_per_block": 1,
}  # fmt: skip
CLIP = {"base_dim": 4, "z_dim": 3, "dim_mult": [1, 2], "num_res_blocks": 1, "temperal_downsample": [False]}
TABLE = {"latents_mean": [0.1, -0.4, 0.3], "latents_std": [1.5, 0.7, 2.0]}
TINY: dict[str, dict[str, Any]] = {
    "AutoencoderKL": {**KL, "latent_channels": 3, "scaling_factor": 0.7, **TABLE},
    "AutoencoderDC": {
        "latent_channels": 4, "encoder_block_types": "ResBlock", "decoder_block_types": "ResBlock",
        "encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8),
        "encoder_layers_per_block": (1, 1), "decoder_layers_per_block": (1, 1),
        "encoder_qkv_multiscales": ((), ()), "decoder_qkv_multiscales": ((), ()), "scaling_factor": 0.4,
        "attention_head_dim": 4,
    },
    "AutoencoderKLFlux2": {**KL, "latent_channels": 3},
    "AutoencoderKLWan": {**CLIP, **TABLE, "scale_factor_spatial": 2},
    "AutoencoderKLQwenImage": {**CLIP, **TABLE},
    "AutoencoderRAE": {
        "encoder_type": "mae", "encoder_hidden_size": 64, "encoder_patch_size": 4,
        "encoder_num_hidden_layers": 1,
        "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2,
        "decoder_intermediate_size": 24, "patch_size": 3, "encoder_input_size": 16, "scaling_factor": 0.5,
    },
}  # fmt: skip
SIZE = {"AutoencoderRAE": (12, 12)}  # the decoder's; others take any multiple


def tiny(name: str) -> Any:
    torch.manual_seed(0)
    vae = getattr(diffusers, name)(**TINY[name]).eval()
    if name == "AutoencoderKLFlux2":  # as if it had been trained
        vae.bn.running_mean.normal_()
        vae.bn.running_var.uniform_(0.5, 2.0)
    return vae


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[str, Path]:
    name: str = request.param
    tiny(name).save_pretrained(tmp_path / "model")
    return name, tmp_path / "model"


def pixels(name: str, num: int = 2) -> Tensor:
    height, width = SIZE.get(name, (8, 12))
    return torch.rand(num, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def streams(num: int = 2) -> SampleStreams:
    return SampleStreams.from_seeds(0, "noise", positions=range(num))


def theirs(name: str, vae: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Latents of the mean as diffusers' pipelines normalise them, and their reconstruction."""
    config = vae.config
    if name == "AutoencoderRAE":
        latents = vae.encode((x + 1) / 2).latent
        return latents, vae.decode(latents).sample * 2 - 1
    if name == "AutoencoderDC":
        latents = vae.encode(x).latent * config.scaling_factor
        return latents, vae.decode(latents / config.scaling_factor).sample
    if name == "AutoencoderKLFlux2":
        raw = vae.encode(x).latent_dist.mean
        b, c, h, w = raw.shape
        packed = (
            raw.view(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(b, 4 * c, h // 2, w // 2)
        )
        mean, deviation = vae.bn.running_mean, (vae.bn.running_var + config.batch_norm_eps).sqrt()
        return (packed - mean.view(1, -1, 1, 1)) / deviation.view(1, -1, 1, 1), vae.decode(raw).sample
    clips = name in ("AutoencoderKLWan", "AutoencoderKLQwenImage")
    raw = vae.encode(x[:, :, None] if clips else x).latent_dist.mean
    decoded = vae.decode(raw).sample
    raw, decoded = (raw[:, :, 0], decoded[:, :, 0]) if clips else (raw, decoded)
    mean, std = (torch.tensor(config[key]).view(1, -1, 1, 1) for key in ("latents_mean", "latents_std"))
    return (raw - mean) / std * (1.0 if clips else config.scaling_factor), decoded


@pytest.mark.parametrize("place", KINDS, indirect=True)
@torch.no_grad()
def test_a_codec_is_what_diffusers_computes(place: tuple[str, Path]) -> None:
    name, folder = place
    codec, x = DiffusersCodec(str(folder)), pixels(name)
    expected, decoded = theirs(name, tiny(name), x)
    moments = codec.moments(x)
    without_noise = moments.chunk(2, dim=1)[0] if codec.kind.draws else moments
    latents = codec.normalisation.apply(without_noise)
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(codec.decode(expected), decoded, rtol=1e-4, atol=1e-4)
    assert codec.encode(x, streams()).shape == (2, *codec.latent_shape(tuple(x.shape[1:])))
    clip = codec.encode(x[None], streams(1))
    assert clip.shape == (1, 2, *codec.latent_shape(tuple(x.shape[1:])))


@pytest.mark.parametrize("place", KINDS, indirect=True)
def test_a_fingerprint_leaves_the_normalisation_out(place: tuple[str, Path]) -> None:
    name, folder = place
    before = DiffusersCodec(str(folder)).fingerprint
    config = json.loads((folder / "config.json").read_text())
    own = {key: value for key, value in config.items() if key not in TABLE}
    (folder / "config.json").write_text(json.dumps({**own, "scaling_factor": 3.0}))
    assert before.startswith(f"{name}-")
    if name in ("AutoencoderDC", "AutoencoderRAE"):
        assert DiffusersCodec(str(folder)).fingerprint == before
    if name == "AutoencoderKL":
        assert AutoencoderKLCodec(str(folder)).normalisation.scale == 3.0


def statistics(of: Any, **changes: Any) -> dict[str, Any]:
    channels = of.channels if isinstance(of, DiffusersCodec) else of.vae.config.latent_channels
    found = {"codec": of.fingerprint, "mean": [0.5] * channels, "std": [2.0] * channels}
    return {**found, **changes}


@pytest.mark.parametrize("place", ["AutoencoderKL", "AutoencoderDC"], indirect=True)
def test_measured_statistics_replace_the_autoencoders_own(place: tuple[str, Path]) -> None:
    name, folder = place
    builds: list[Any] = [DiffusersCodec, *([AutoencoderKLCodec] if name == "AutoencoderKL" else [])]
    for build in builds:
        plain = build(str(folder))
        codec = build(str(folder), statistics=statistics(plain), multiplier=3.0)
        assert codec.fingerprint == plain.fingerprint
        raw = plain.normalisation.undo(plain.encode(pixels(name), streams()))
        torch.testing.assert_close(
            codec.encode(pixels(name), streams()), (raw - 0.5) / 2 * 3, rtol=1e-4, atol=1e-5
        )
        decoded = plain.decode(plain.normalisation.apply(raw))
        torch.testing.assert_close(codec.decode((raw - 0.5) / 2 * 3), decoded, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("place", ["AutoencoderKL"], indirect=True)
def test_statistics_that_fit_nothing_are_refused(place: tuple[str, Path], tmp_path: Path) -> None:
    codec = DiffusersCodec(str(place[1]))
    file = tmp_path / "statistics.json"
    file.write_text(json.dumps(statistics(codec, codec="autoencoder_dc-9a")))
    with pytest.raises(
        WeightsError, match=r"statistics.json was measured with autoencoder_dc-9a, this run encodes"
    ):
        DiffusersCodec(str(place[1]), statistics=str(file))
    with pytest.raises(UsageError, match="have 2 channels, the latents 3"):
        DiffusersCodec(str(place[1]), statistics=statistics(codec, mean=[0.0, 1.0], std=[1.0, 1.0]))
    with pytest.raises(DataError, match="channel 1 of the latents does not vary"):
        DiffusersCodec(str(place[1]), statistics=statistics(codec, std=[1.0, 0.0, 1.0]))
    with pytest.raises(UsageError, match="no statistics of latents"):
        DiffusersCodec(str(place[1]), statistics={"mean": [0.0]})
    with pytest.raises(UsageError, match="multiplier is 0"):
        DiffusersCodec(str(place[1]), multiplier=0.0)


@pytest.mark.parametrize("place", ["AutoencoderRAE"], indirect=True)
def test_an_autoencoder_of_one_size_says_which(place: tuple[str, Path]) -> None:
    with pytest.raises(ShapeError, match="12 x 12"):
        DiffusersCodec(str(place[1])).latent_shape((3, 24, 24))


@pytest.mark.parametrize("place", ["AutoencoderDC"], indirect=True)
def test_other_classes_are_named(place: tuple[str, Path]) -> None:
    with pytest.raises(CheckpointError, match=r"(?s)AutoencoderDC.*codec.name=autoencoder"):
        AutoencoderKLCodec(str(place[1]))
    config = json.loads((place[1] / "config.json").read_text())
    (place[1] / "config.json").write_text(json.dumps({**config, "_class_name": "AutoencoderTiny"}))
    with pytest.raises(CheckpointError, match="AutoencoderTiny is no autoencoder that can be used here"):
        DiffusersCodec(str(place[1]))


def test_channels_are_the_third_axis_from_behind_for_pictures_and_clips() -> None:
    form = per_channel([1.0, 2.0], [0.5, 4.0])
    clip = torch.arange(24.0).view(1, 3, 2, 2, 2)
    torch.testing.assert_close(form.apply(clip)[:, 1], form.apply(clip[:, 1]))
    assert form.apply(clip).dtype == torch.float32
