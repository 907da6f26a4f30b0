"""Normalisations of latents, packing, and diffusers' autoencoders as codecs, one test a case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from golden.manifest import golden_cases, golden_tensors
from safetensors.torch import save_file
from torch import Tensor

from genzoo.core.seeds import SampleStreams
from genzoo.pretrained.codecs import AutoencoderKLCodec
from genzoo.pretrained.diffusers_codec import DiffusersCodec
from genzoo.pretrained.normalisation import Normalisation, of_batch_norm, pack, per_channel, unpack
from genzoo.pretrained.running_moments import RunningMoments

SET = "learning"
CASES = golden_cases(SET, "latents")
NETWORKS = [case for case in CASES if "config" in case]
PACKINGS = [case for case in CASES if "packed" in case["keys"]]
NORMALISATIONS = [case for case in CASES if case not in NETWORKS + PACKINGS]
FACTORS = {"kl_scaled": 0.18215, "sdxl_style": 0.13025}  # those of SD 1.x and SDXL
CLASSES = {"latent": "AutoencoderDC", "moments": "AutoencoderKL"}


def by_name(cases: list[dict[str, Any]]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case["name"])


def near(ours: Tensor, theirs: Tensor, rtol: float) -> bool:
    gap = (ours.double() - theirs.double()).abs().max().item()
    return ours.shape == theirs.shape and gap <= rtol * theirs.abs().max().item()


@by_name(NORMALISATIONS)
def test_normalisations_are_diffusers_and_come_back(case: dict[str, Any]) -> None:
    data = golden_tensors(SET, "latents", case["name"])
    factor, shift = case["scaling_factor"], case["shift_factor"]
    mean, std, z = data["mean"], data["std"], data["latents"]
    # the multiplier that was recorded, where the manifest leaves it out
    multiplier = case.get("multiplier") or (data["channelwise_times_multiplier"] / data["channelwise"]).mean()
    forms = {
        "kl_scaled": Normalisation(0.0, FACTORS["kl_scaled"]),
        "kl_shifted": Normalisation(shift, factor),
        "channelwise": per_channel(mean, std),
        "channelwise_times_multiplier": per_channel(mean, std, multiplier=float(multiplier)),
        "sdxl_style": per_channel(mean, std, multiplier=FACTORS["sdxl_style"]),
        "rae_style": per_channel(mean, std, eps=1e-5),
        "flux2_style": of_batch_norm(mean, std.square(), 1e-4),
    }
    assert {"latents", "mean", "std", "std_biased", "rms", *forms} == set(case["keys"])
    for key, form in forms.items():
        assert near(form.apply(z), data[key], 1e-11), key
        assert near(form.undo(data[key]), z, 1e-11), key


@by_name(NORMALISATIONS)
def test_statistics_in_one_pass_are_those_of_two(case: dict[str, Any]) -> None:
    data = golden_tensors(SET, "latents", case["name"])
    moments = RunningMoments()
    for part in data["latents"].split([1, 3, len(data["latents"]) - 4]):
        moments.add(part)
    assert near(torch.as_tensor(moments.mean), data["mean"], 1e-12)
    assert near(moments.std, data["std"], 1e-12)
    count = moments.count
    assert near(moments.std * ((count - 1) / count) ** 0.5, data["std_biased"], 1e-12)
    rms = (torch.as_tensor(moments.squares) / count + torch.as_tensor(moments.mean).square()).mean().sqrt()
    assert near(rms, data["rms"], 1e-11)


@by_name(PACKINGS)
def test_packing_is_flux2s(case: dict[str, Any]) -> None:
    data = golden_tensors(SET, "latents", case["name"])
    assert torch.equal(pack(data["latents"]), data["packed"])
    assert torch.equal(unpack(data["packed"]), data["latents"])


@by_name(NETWORKS)
def test_autoencoders_at_random_weights_are_diffusers(case: dict[str, Any], tmp_path: Path) -> None:
    data = golden_tensors(SET, "latents", case["name"])
    encoded = next(key for key in CLASSES if key in data)
    config = {"_class_name": CLASSES[encoded], **case["config"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = {key.removeprefix("sd."): value for key, value in data.items() if key.startswith("sd.")}
    save_file(weights, tmp_path / "diffusion_pytorch_model.safetensors")
    codecs: list[Any] = [DiffusersCodec(str(tmp_path))]
    codecs += [AutoencoderKLCodec(str(tmp_path))] if encoded == "moments" else []
    for codec in codecs:
        moments = codec.moments(data["pixels"])
        assert near(moments, data[encoded], 1e-4)
        shape = codec.latent_shape(tuple(data["pixels"].shape[1:]))
        side = data["pixels"].shape[-1] // case["spatial_factor"]
        assert shape[1:] == (side, side)
        if encoded == "latent":
            latents = codec.encode(data["pixels"], SampleStreams.from_seeds(0, "x", positions=[0, 1]))
            assert near(latents, data["scaled"], 1e-4)
        else:
            latents = codec.normalisation.apply(moments.chunk(2, dim=1)[0])
            assert near(latents, data["latents_of_mean"], 1e-4)
        assert near(codec.decode(latents), data["decoded"], 1e-4)
