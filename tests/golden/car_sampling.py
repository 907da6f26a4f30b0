"""Sampling of the golden sets: greedy, seeded and smooth, with and without a control."""

from __future__ import annotations

import re
from functools import cache

import torch
from golden.car_sets import as_pixels, car, config, recorded, strided, var, vqvae
from torch import Tensor

from genzoo.autoregression.sampling import NextScaleOptions, SampledScales, sample_scales
from genzoo.families.car.control.decoder import decoder_of
from genzoo.families.car.control.pyramid import control_pyramid

# as the manifest's notes say: how each kind was drawn, and from which seed
KINDS = {
    "greedy": ({"top_k": 1}, 0),
    "seeded": ({"top_k": 20, "top_p": 0.9}, 7),
    "smooth": ({"smooth": True}, 11),
}
SAMPLED = re.compile(rf"({'|'.join(KINDS)})\.(ids\.(\d+)|cfg_logits\.(\d+)|image_stride(\d+))")


@cache
def control_features(set_name: str) -> list[Tensor]:
    """The control encoder's output for the set's controls."""
    model = car(set_name)
    picture = recorded(set_name, "car")["control_image_u8"].movedim(-1, 1).contiguous()
    sizes = [(height, width) for _, height, width in model.control_shapes()]
    with torch.no_grad():
        return model.encode_control(control_pyramid(picture, sizes))


@cache
def sampled(set_name: str, part: str, kind: str) -> tuple[SampledScales, Tensor]:
    """Tokens, logits, and the picture in [0, 1]."""
    labels, guidance = recorded(set_name, "var")["labels"], config(set_name)["cfg"]
    changes, seed = KINDS[kind]
    options = NextScaleOptions(guidance_scale=1 + guidance, **changes)
    doubled = torch.cat([labels, torch.full_like(labels, config(set_name)["num_classes"])])
    with torch.no_grad():
        if part == "var":
            decoder = decoder_of(var(set_name), doubled)
        else:
            decoder = decoder_of(car(set_name), doubled, control_features(set_name))
        result = sample_scales(
            decoder,
            vqvae(set_name).quantize,
            config(set_name)["patch_nums"],
            torch.Generator().manual_seed(seed),
            options,
            keep_logits=True,
        )
        picture = (vqvae(set_name).decode_features(result.f_hat) + 1) / 2
    return result, picture


def sampled_value(set_name: str, part: str, key: str) -> Tensor | None:
    """What our sampler says for a recorded key, or None when the key is no sample's."""
    match = SAMPLED.fullmatch(key)
    if match is None:
        return None
    result, picture = sampled(set_name, part, match[1])
    if match[3]:
        return result.ids[int(match[3])]
    return result.logits[int(match[4])] if match[4] else strided(picture, key)


def sampled_tolerance_name(key: str) -> str:
    """The name under which the manifest gives the tolerance of a sample's key."""
    return "cfg_logits" if "cfg_logits" in key else "generated images"


def control_inputs(set_name: str) -> list[Tensor]:
    """The recorded controls of all scales where they are all recorded, else the set's picture resized."""
    tensors, model = recorded(set_name, "car"), car(set_name)
    picture = tensors["control_image_u8"].movedim(-1, 1).contiguous()
    pyramid = control_pyramid(picture, [(height, width) for _, height, width in model.control_shapes()])
    for scale in range(len(pyramid)):
        if f"control_u8.{scale}" in tensors:
            pyramid[scale] = as_pixels(tensors[f"control_u8.{scale}"])
    return pyramid
