"""Released layouts of VQVAE, VAR and CAR: recognised, checked, reported, written back unchanged."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from families.car.tiny import PATCH_NUMS, SIZES, pictures, saved, tiny_car, tiny_codec, tiny_var, tiny_vqvae
from torch import Tensor

import genzoo.families  # noqa: F401  # reads the cards
from genzoo.core.errors import CheckpointError, WeightsError
from genzoo.core.registry import CONVERTERS, MODELS
from genzoo.families.car.weights.loading import load_vqvae
from genzoo.families.car.weights.released_layouts import branch_of
from genzoo.pretrained.loading import load_foreign

LAYOUTS = ("vqvae", "var", "car")


def detected(tree: dict[str, Any]) -> list[str]:
    return [name for name in CONVERTERS if CONVERTERS.get(name)().detect(tree)]


def rebuilt(conversion: Any) -> torch.nn.Module:
    model = MODELS.get(conversion.model)(**conversion.arguments)
    model.load_state_dict(conversion.weights, strict=True)
    return model


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def training_state(kind: str, weights: dict[str, Tensor]) -> dict[str, Any]:
    """What the released training scripts save beside each other."""
    trainer = {
        "config": {"label_smooth": 0.0},
        f"{kind}_wo_ddp": {f"module.{key}": value for key, value in weights.items()},
        "vae_local": tiny_vqvae().state_dict(),
        f"{kind}_opt": {"optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}},
    }
    return {"epoch": 3, "iter": 0, "trainer": trainer, "args": argparse.Namespace(depth=4)}


def reloaded(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    torch.save(tree, folder / "file.pth")
    return load_foreign(folder / "file.pth")


def test_vqvae_goes_there_and_back(tmp_path: Path) -> None:
    weights = dict(tiny_vqvae().state_dict())
    tree = reloaded(weights, tmp_path)
    assert detected(tree) == ["vqvae"]
    converter = CONVERTERS.get("vqvae")()
    conversion = converter.to_genzoo(tree, patch_nums=PATCH_NUMS)
    assert same(rebuilt(conversion).state_dict(), weights)
    assert same(converter.from_genzoo(conversion.weights), weights)
    assert {line[0] for line in conversion.report if line[1]} == set(weights)


@pytest.mark.parametrize("options", [{}, {"shared_adaln": True}, {"attn_l2_norm": False, "mlp_ratio": 2.0}])
def test_var_goes_there_and_back(tmp_path: Path, options: dict[str, Any]) -> None:
    model = tiny_var(**options)
    weights = dict(model.state_dict())
    tree = reloaded(weights, tmp_path)
    assert detected(tree) == ["var"]
    converter = CONVERTERS.get("var")()
    heads = {} if options.get("attn_l2_norm", True) else {"num_heads": SIZES["num_heads"]}
    if heads:
        with pytest.raises(WeightsError, match="--argument num_heads=16"):
            converter.to_genzoo(tree)
    conversion = converter.to_genzoo(tree, **heads)
    inferred = {key: conversion.arguments[key] for key in (*SIZES, *options)}
    assert inferred == {**SIZES, **options}
    assert same(rebuilt(conversion).state_dict(), weights)
    assert same(converter.from_genzoo(conversion.weights), weights)


def test_training_state_of_var_is_var_and_every_entry_is_reported(tmp_path: Path) -> None:
    weights = dict(tiny_var().state_dict())
    tree = reloaded(training_state("var", weights), tmp_path)
    assert detected(tree) == ["var"]
    conversion = CONVERTERS.get("var")().to_genzoo(tree)
    assert same(conversion.weights, weights)
    report = {entry: (key, why) for entry, key, why in conversion.report}
    assert report["trainer.var_wo_ddp.module.head.bias"][0] == "head.bias"
    assert report["trainer.vae_local"][0] is None
    assert {"epoch", "iter", "args"} <= report.keys()
    accessory = CONVERTERS.get("vqvae")().to_genzoo(tree, patch_nums=PATCH_NUMS)
    assert same(accessory.weights, dict(tiny_vqvae().state_dict()))


def test_released_branch_stands_on_the_base_it_is_given(tmp_path: Path) -> None:
    base = tiny_var()
    path = saved(base, tmp_path / "var.safetensors")
    model = tiny_car(var_weights=path, init_from_base=False)
    model.base.load_state_dict(base.state_dict())
    branch = branch_of(model.state_dict())
    tree = reloaded(branch, tmp_path)
    assert detected(tree) == ["car"]
    converter = CONVERTERS.get("car")()
    with pytest.raises(WeightsError, match="var_weights"):
        converter.to_genzoo(tree)
    conversion = converter.to_genzoo(tree, var_weights=path)
    assert conversion.arguments["control_channels"] == model.arguments["control_channels"]
    again = rebuilt(conversion)
    assert same(again.state_dict(), model.state_dict())
    assert not any(parameter.requires_grad for parameter in again.base.parameters())
    assert same(converter.from_genzoo(again.state_dict()), branch)


@pytest.mark.parametrize(
    "options",
    [
        {"fusion": "vqvae_encoder"},
        {"control_network": "conv"},
        {"injection": "zero_conv_add"},
        {"injection": "cross_norm_add"},
        {"shared_adaln": True},
    ],
    ids=str,
)
def test_variants_are_told_by_their_tensors(tmp_path: Path, options: dict[str, Any]) -> None:
    model = tiny_car(**options)
    inside = {key.removeprefix("base."): value for key, value in model.state_dict().items()}
    tree = reloaded(training_state("car", inside), tmp_path)
    assert detected(tree) == ["car"]
    conversion = CONVERTERS.get("car")().to_genzoo(tree)
    assert {key: conversion.arguments[key] for key in options} == options
    again = rebuilt(conversion)
    assert same(again.state_dict(), model.state_dict())
    # without a file to refer to, the base is stored with the branch
    assert all(parameter.requires_grad for parameter in again.parameters())


def test_base_of_another_depth_is_refused(tmp_path: Path) -> None:
    path = saved(tiny_var(depth=2), tmp_path / "small.safetensors")
    with pytest.raises(CheckpointError, match="missing"):
        tiny_car(var_weights=path)
    branch = branch_of(tiny_car().state_dict())
    with pytest.raises(CheckpointError, match="do not fit"):
        CONVERTERS.get("car")().to_genzoo(branch, var_weights=path)


def test_truncated_files_and_foreign_masks_are_refused(tmp_path: Path) -> None:
    weights = dict(tiny_var().state_dict())
    shortened = {key: value for key, value in weights.items() if key != "blocks.3.ffn.fc2.weight"}
    with pytest.raises(CheckpointError, match="1 missing"):
        CONVERTERS.get("var")().to_genzoo(shortened)
    bent = weights | {"attn_bias_for_masking": torch.zeros_like(weights["attn_bias_for_masking"])}
    with pytest.raises(CheckpointError, match="attn_bias_for_masking"):
        CONVERTERS.get("var")().to_genzoo(bent)
    spoiled = weights | {"head.bias": torch.full_like(weights["head.bias"], torch.nan)}
    with pytest.raises(CheckpointError, match="not finite"):
        CONVERTERS.get("var")().to_genzoo(spoiled)
    with pytest.raises(WeightsError, match="patch_nums"):
        CONVERTERS.get("vqvae")().to_genzoo(dict(tiny_vqvae().state_dict()))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_converters_refuse_what_is_not_theirs(layout: str) -> None:
    converter = CONVERTERS.get(layout)()
    with pytest.raises(WeightsError, match="no "):
        converter.to_genzoo({"x_embedder.proj.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match="no "):
        converter.from_genzoo({"x_embedder.proj.weight": torch.zeros(1)})


def test_buffers_left_out_of_a_file_are_made_again() -> None:
    weights = dict(tiny_var().state_dict())
    kept = {key: value for key, value in weights.items() if key != "attn_bias_for_masking"}
    assert same(CONVERTERS.get("var")().to_genzoo(kept).weights, weights)


def test_half_precision_is_kept(tmp_path: Path) -> None:
    halved = {k: v.half() if v.is_floating_point() else v for k, v in tiny_vqvae().state_dict().items()}
    conversion = CONVERTERS.get("vqvae")().to_genzoo(halved, patch_nums=PATCH_NUMS)
    assert {v.dtype for v in conversion.weights.values()} == {torch.float16}


def test_a_vqvae_serves_other_scales_than_its_own(tmp_path: Path) -> None:
    path = saved(tiny_vqvae(), tmp_path / "vqvae.safetensors")
    model = load_vqvae(path, patch_nums=[1, 8])
    assert [ids.shape[1] for ids in model.encode(torch.nn.functional.interpolate(pictures(2), 16))] == [1, 64]
    with pytest.raises(CheckpointError, match="do not fit"):
        load_vqvae(path, patch_nums=PATCH_NUMS, codebook_size=17)
    assert tiny_codec(tmp_path).fingerprint != tiny_codec(tmp_path, seed=1).fingerprint


def test_maps_that_are_no_squares_have_to_be_told(tmp_path: Path) -> None:
    scales = [1, [1, 2], [2, 3]]
    model = MODELS.get("var")(**{**tiny_var().arguments, "patch_nums": scales})
    tree = reloaded(dict(model.state_dict()), tmp_path)
    converter = CONVERTERS.get("var")()
    with pytest.raises(WeightsError, match=r"\[1, 2, 6\] tokens, which are no squares"):
        converter.to_genzoo(tree)
    conversion = converter.to_genzoo(tree, patch_nums=scales, num_heads=model.arguments["num_heads"])
    assert same(rebuilt(conversion).state_dict(), dict(model.state_dict()))
