"""The VQVAE against the official implementation: every recorded tensor of every set is a test."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from golden.car_sets import (
    FOLDER,
    MANIFEST,
    SETS,
    as_pixels,
    assert_near,
    config,
    quantity,
    recorded,
    recorded_keys,
    strided,
    token_ids,
    tolerance,
    vqvae,
)
from torch import Tensor
from torch.nn.functional import mse_loss

from genzoo.families.car.vqvae.refinement import phi_index

INPUTS = {"image_u8"}
CASES = [(name, key) for name in SETS for key in recorded_keys(name, "vqvae") if key not in INPUTS]
FEATURES, PICTURES = "fhat", "reconstruction"
NUMBER = re.compile(r"(.*?)\.?(\d+)")


@cache
def features(set_name: str) -> Tensor:
    with torch.no_grad():
        return vqvae(set_name).features(as_pixels(recorded(set_name, "vqvae")["image_u8"]))


@cache
def encoded(set_name: str) -> tuple[list[Tensor], list[Tensor]]:
    return vqvae(set_name).quantize.encode(features(set_name))


@cache
def partial_pictures(set_name: str) -> list[Tensor]:
    return vqvae(set_name).decode_partial(token_ids(set_name))


def teacher(set_name: str) -> Tensor:
    return torch.cat(vqvae(set_name).quantize.teacher_input(token_ids(set_name)), dim=1)


def growing(set_name: str) -> Tensor:
    quantizer = vqvae(set_name).quantize
    maps = [
        quantizer.embed(ids, size) for ids, size in zip(token_ids(set_name), quantizer.sizes, strict=True)
    ]
    return quantizer.growing_sums(maps)[-1]


WHOLE: dict[str, tuple[Callable[[str], Tensor], str]] = {
    "f": (features, "f"),
    "fhat_final": (lambda name: encoded(name)[1][-1], FEATURES),
    "var_input": (teacher, "var_input"),
    "vq_loss": (lambda name: vqvae(name).quantize(features(name)).loss, "losses"),
    "reconstruction": (lambda name: partial_pictures(name)[-1], PICTURES),
    "embed_to_fhat_not_to_max_scale": (growing, FEATURES),
}
BY_SCALE: dict[str, tuple[Callable[[str, int], Tensor], str]] = {
    "idx": (lambda name, scale: encoded(name)[0][scale], "idx/ids"),
    "fhat": (lambda name, scale: encoded(name)[1][scale], FEATURES),
    "reconstruction_scale": (lambda name, scale: partial_pictures(name)[scale], PICTURES),
}


@torch.no_grad()
def compute(set_name: str, key: str) -> tuple[Tensor, str]:
    """Our value for a recorded key, and the name of its tolerance."""
    name = quantity(key)
    if name in WHOLE:
        function, limit = WHOLE[name]
        return function(set_name), limit
    match = NUMBER.fullmatch(name)
    assert match is not None, f"no computation for {key}"
    by_scale, limit = BY_SCALE[match[1]]
    return by_scale(set_name, int(match[2])), limit


@pytest.mark.parametrize(("set_name", "key"), CASES)
def test_vqvae_equals_the_official_one(set_name: str, key: str) -> None:
    value, limit = compute(set_name, key)
    atol, rtol = tolerance(limit)
    assert_near(strided(value, key), recorded(set_name, "vqvae")[key], key, atol=atol, rtol=rtol)


@pytest.mark.parametrize("set_name", SETS)
def test_training_pass_has_the_official_loss_and_gradients(set_name: str) -> None:
    info, model = MANIFEST[set_name]["vqvae"]["info"], vqvae(set_name)
    pixels = as_pixels(recorded(set_name, "vqvae")["image_u8"])
    reconstruction, vq_loss, _ = model(pixels)
    error = mse_loss(reconstruction, pixels)
    assert vq_loss.item() == pytest.approx(info["vq_loss"], rel=tolerance("losses")[1])
    assert error.item() == pytest.approx(info["recon_mse_unclamped"], rel=tolerance("losses")[1])
    expected = info["vae_grad_norms_of_(mse+vq)"]
    parameters = {name: model.get_parameter(name) for name in expected}
    gradients = torch.autograd.grad(error + vq_loss, list(parameters.values()), allow_unused=True)
    for (name, norm), gradient in zip(expected.items(), gradients, strict=True):
        assert (gradient is None) == (norm is None), name
        if gradient is not None:
            assert gradient.norm().item() == pytest.approx(norm, rel=tolerance("grad norms")[1]), name


@pytest.mark.parametrize("set_name", SETS)
def test_usage_and_clamping_are_counted_as_officially(set_name: str) -> None:
    info = MANIFEST[set_name]["vqvae"]["info"]
    batch, _, height, width = features(set_name).shape
    usage = vqvae(set_name).quantize.usage(batch * height * width)
    assert usage == pytest.approx(info["usages_percent"])
    distinct = torch.cat(encoded(set_name)[0], dim=1).unique().numel()
    assert distinct == info["distinct_codes_used"]


@pytest.mark.parametrize("set_name", SETS)
def test_cached_next_scale_maps_equal_the_teacher_input(set_name: str) -> None:
    model, sizes = vqvae(set_name), vqvae(set_name).quantize.sizes
    own = encoded(set_name)[1]
    parts = [
        torch.nn.functional.interpolate(f_hat, size=size, mode="area").flatten(2).transpose(1, 2)
        for f_hat, size in zip(own, sizes[1:], strict=False)
    ]
    allowed = MANIFEST[set_name]["vqvae"]["info"]["next_input_chain_vs_var_input_maxdiff"] + 1e-5
    assert_near(torch.cat(parts, dim=1), recorded(set_name, "vqvae")["var_input"], "chain", atol=allowed)
    assert model.patch_nums == tuple(config(set_name)["patch_nums"])


def phi_tables() -> list[Any]:
    table = json.loads((FOLDER / "phi_index_table.json").read_text())
    assert table
    return [pytest.param(name, indices, id=name) for name, indices in table.items()]


@pytest.mark.parametrize(("name", "indices"), phi_tables())
def test_scales_share_refinements_as_officially(name: str, indices: list[int]) -> None:
    num_phis, num_scales = map(int, re.findall(r"[KS](\d+)", name))
    assert [phi_index(scale, num_scales, num_phis) for scale in range(num_scales)] == indices
