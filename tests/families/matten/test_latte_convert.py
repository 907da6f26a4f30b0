"""Latte's released layout: read, inferred, checked, reported, and written back unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import genzoo.families  # noqa: F401  # reads the cards
from genzoo.core.errors import WeightsError
from genzoo.core.registry import CONVERTERS, MODELS
from genzoo.nn.embeddings import sincos_1d
from genzoo.pretrained.loading import load_foreign

CONVERTER = CONVERTERS.get("latte")()
DEPTH, WIDTH, CHANNELS, PATCH, FRAMES, CLASSES = 2, 48, 3, 2, 5, 7
BLOCK = {
    "attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH), "mlp.fc1": (4 * WIDTH, WIDTH),
    "mlp.fc2": (WIDTH, 4 * WIDTH), "adaLN_modulation.1": (6 * WIDTH, WIDTH),
}  # fmt: skip


def official(*, classes: bool = True) -> dict[str, Tensor]:
    """Random weights under the names of the released files; extras=1 has no label table, extras=2 has one."""
    layers = {
        "x_embedder.proj": (WIDTH, CHANNELS, PATCH, PATCH),
        "t_embedder.mlp.0": (WIDTH, 256),
        "t_embedder.mlp.2": (WIDTH, WIDTH),
        **{f"blocks.{i}.{name}": shape for i in range(DEPTH) for name, shape in BLOCK.items()},
        "final_layer.linear": (2 * CHANNELS * PATCH**2, WIDTH),
        "final_layer.adaLN_modulation.1": (2 * WIDTH, WIDTH),
    }
    generator = torch.Generator().manual_seed(0)
    shapes = {f"{name}.weight": shape for name, shape in layers.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in layers.items()}
    shapes["pos_embed"] = (1, 9, WIDTH)
    if classes:
        shapes["y_embedder.embedding_table.weight"] = (CLASSES + 1, WIDTH)
    weights = {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}
    return weights | {"temp_embed": sincos_1d(WIDTH, torch.arange(FRAMES))[None].float()}


@pytest.mark.parametrize("classes", [True, False])
def test_released_weights_go_there_and_back(tmp_path: Path, classes: bool) -> None:
    weights = official(classes=classes)
    save_file(weights, tmp_path / "latte.safetensors")
    conversion = CONVERTER.to_genzoo(load_foreign(tmp_path / "latte.safetensors"), num_heads=3)
    expected: dict[str, Any] = {
        "depth": DEPTH, "hidden_size": WIDTH, "num_frames": FRAMES, "input_size": 6, "patch_size": PATCH,
        "in_channels": CHANNELS, "num_classes": CLASSES if classes else 0, "learn_sigma": True,
    }  # fmt: skip
    assert {key: conversion.arguments[key] for key in expected} == expected
    model = MODELS.get(conversion.model)(**conversion.arguments)
    model.load_state_dict(conversion.weights, strict=True)
    labels = torch.tensor([CLASSES, 2]) if classes else None
    clips = model(torch.randn(2, FRAMES, CHANNELS, 6, 6), torch.tensor([0, 999]), labels)
    assert clips.shape == (2, FRAMES, 2 * CHANNELS, 6, 6)
    back = CONVERTER.from_genzoo(model.state_dict())
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)


def test_the_average_is_taken_and_every_entry_has_a_fate(tmp_path: Path) -> None:
    ema, raw = official(), {f"module.{name}": value + 1 for name, value in official().items()}
    torch.save({"model": raw, "ema": ema, "opt": {}}, tmp_path / "ucf101.pt")
    conversion = CONVERTER.to_genzoo(load_foreign(tmp_path / "ucf101.pt"), num_heads=3)
    assert torch.equal(conversion.weights["temp_embed"], ema["temp_embed"])
    fates = {entry: (key, why) for entry, key, why in conversion.report}
    assert fates["ema.temp_embed"] == ("temp_embed", f"copied, (1, {FRAMES}, {WIDTH}) float32")
    assert "differs from the fixed table" in fates["ema.pos_embed"][1]
    assert fates["model"] == (None, "not carried over: 'ema' holds the weights")
    assert {key for key, _ in fates.values() if key} == set(ema)


def test_dit_and_latte_are_told_apart_by_the_table_of_frames() -> None:
    latte = official()
    dit = {name: value for name, value in latte.items() if name != "temp_embed"}
    assert [name for name in CONVERTERS if CONVERTERS.get(name)().detect(latte)] == ["latte"]
    assert [name for name in CONVERTERS if CONVERTERS.get(name)().detect(dit)] == ["dit"]
    with pytest.raises(WeightsError, match=r"no Latte weights(?s:.*)temp_embed; found"):
        CONVERTER.to_genzoo(dit)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.1.attn.qkv.bias": None}, r"1 missing \(blocks.1.attn.qkv.bias\)"),
        (
            {"text_embedding_projection.1.weight": torch.ones(48, 8)},
            r"1 unexpected \(text_embedding_projection.1",
        ),
        ({"temp_embed": torch.ones(1, FRAMES, 24)}, r"temp_embed \(1, 5, 24\)"),
    ],
)
def test_weights_that_do_not_fit_are_named(change: dict[str, Tensor | None], message: str) -> None:
    changed = {name: value for name, value in (official() | change).items() if value is not None}
    with pytest.raises(WeightsError, match=message):
        CONVERTER.to_genzoo(changed, num_heads=3)


def test_the_usual_recipe_exists() -> None:
    assert (Path(__file__).parents[3] / "recipes" / f"{CONVERTER.recipe}.yaml").is_file()
