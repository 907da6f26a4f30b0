"""Muon beside AdamW: which parameter goes where, one rate for both, exact resume."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe_cases import TINY
from torch import nn

import genzoo.families  # noqa: F401  (declares the models)
from genzoo.api.training.train import train_recipe
from genzoo.core.checkpoint import checkpoint_steps, load_checkpoint
from genzoo.core.errors import CheckpointError, RecipeError, UsageError
from genzoo.core.recipe import Recipe, recipe_from
from genzoo.core.registry import MODELS
from genzoo.training.muon import MuonAdamW, hidden_matrices, muon
from genzoo.training.optim import (
    adamw,
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    set_step,
)

SMALL: dict[str, Any] = {
    "depth": 2, "hidden_size": 24, "patch_size": 2, "input_size": 4, "in_channels": 3, "num_classes": 5,
}  # fmt: skip


def recipe(**optim: Any) -> Recipe:
    settings = {**TINY, "optim": {"name": "muon", "lr": 2e-3, **optim}, "preview": {"every": 0}, "report": []}
    return recipe_from(settings)


def named(model: str, **options: Any) -> dict[str, nn.Parameter]:
    built = MODELS.get(model)(**SMALL, **options)
    return {name: p for name, p in built.named_parameters() if p.requires_grad}


def kinds(names: dict[str, nn.Parameter]) -> set[str]:
    return {name.split(".", 2)[2].removesuffix(".weight") for name in names}


MAPS = {
    "dim": {"mixer.in_proj", "mixer.out_proj", "mlp.fc1", "mlp.fc2"},
    "dit": {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"},
}


@pytest.mark.parametrize(("model", "options"), [("dim", {"d_state": 4}), ("dit", {"num_heads": 2})])
def test_hidden_maps_are_muon_s_and_nothing_else(model: str, options: dict[str, Any]) -> None:
    parameters = named(model, **options)
    assert kinds(hidden_matrices(parameters)) == MAPS[model]
    with_modulation = hidden_matrices(parameters, modulation=True)
    assert kinds(with_modulation) == MAPS[model] | {"adaLN_modulation.1"}
    assert not [name for name in with_modulation if not name.startswith("blocks.")]


def test_parameters_without_decay_are_never_muon_s() -> None:
    marked = nn.Parameter(torch.zeros(3, 2))
    marked._no_weight_decay = True
    parameters = {"blocks.0.a.weight": marked, "blocks.1.a.weight": nn.Parameter(torch.zeros(3, 2))}
    assert list(hidden_matrices(parameters)) == ["blocks.1.a.weight"]


def test_the_split_is_logged_with_counts_and_names(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        built = muon(named("dit", num_heads=2))
    assert "Muon: 13,824 parameters in 8 tensors: blocks.*.attn.qkv.weight x2" in caplog.text
    assert "AdamW:" in caplog.text
    assert 1 < built.slots < 2


def test_both_parts_follow_one_curve_and_keep_their_share() -> None:
    options = {"name": "muon", "lr": 1e-2, "adamw_share": 0.5, "weight_decay": 0.1, "schedule": "cosine"}
    optimization = build_optimizer(named("dit", num_heads=2), options)
    assert optimization.lr == 1e-2
    assert optimization.decay == (0.1, 0.1)
    set_step(optimization, 3, 10, 4e-3)
    first, *rest = optimization.optimizer.param_groups
    assert first["lr"] == 4e-3
    assert {group["lr"] for group in rest} == {2e-3}


def test_a_step_moves_matrices_by_muon_and_the_rest_by_adamw() -> None:
    generator = torch.Generator().manual_seed(0)
    values = {"blocks.0.fc.weight": torch.randn(6, 4, generator=generator), "head.weight": torch.ones(3, 4)}
    ours = {name: nn.Parameter(value.clone()) for name, value in values.items()}
    theirs = {name: nn.Parameter(value.clone()) for name, value in values.items()}
    optimizer = muon(ours, lr=1e-2, weight_decay=0.1).optimizer
    separate = [
        torch.optim.Muon([theirs["blocks.0.fc.weight"]], lr=1e-2, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([theirs["head.weight"]], lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1, fused=True),
    ]
    for _ in range(3):
        for name, value in values.items():
            gradient = torch.randn(value.shape, generator=generator)
            ours[name].grad, theirs[name].grad = gradient, gradient.clone()
        for each in (optimizer, *separate):
            each.step()
    assert all(torch.equal(ours[name], theirs[name]) for name in values)


def test_saved_state_goes_back_by_name_and_mixtures_that_differ_are_refused() -> None:
    parameters = {
        "blocks.0.fc.weight": nn.Parameter(torch.ones(3, 2)),
        "blocks.1.fc.weight": nn.Parameter(torch.ones(2, 2)),
        "head.bias": nn.Parameter(torch.ones(5)),
    }
    first = muon(parameters).optimizer
    for parameter in parameters.values():
        parameter.grad = torch.full_like(parameter, 0.5)
    first.step()
    saved = optimizer_tensors(first, parameters)
    assert set(saved) == {
        "blocks.0.fc.weight/momentum_buffer", "blocks.1.fc.weight/momentum_buffer",
        "head.bias/step", "head.bias/exp_avg", "head.bias/exp_avg_sq",
    }  # fmt: skip
    again = muon(parameters).optimizer
    load_optimizer_tensors(again, parameters, saved, where="here")
    restored = optimizer_tensors(again, parameters)
    assert all(torch.equal(restored[key], value) for key, value in saved.items())
    assert isinstance(again, MuonAdamW)
    assert all(part.state is again.state for part in again.parts)
    without = {key: value for key, value in saved.items() if key != "blocks.1.fc.weight/momentum_buffer"}
    with pytest.raises(CheckpointError, match=r"blocks\.1\.fc\.weight/momentum_buffer"):
        load_optimizer_tensors(again, parameters, without, where="here")
    with pytest.raises(CheckpointError, match="does not fit the optimizer"):
        load_optimizer_tensors(adamw(parameters).optimizer, parameters, saved, where="here")


def test_a_resumed_run_ends_bit_identical(tmp_path: Path) -> None:
    train_recipe(recipe(schedule="cosine"), output=tmp_path / "whole")
    chosen = recipe(schedule="cosine")
    first = recipe_from({**chosen.data, "train": {**chosen.data["train"], "checkpoint_every": 1}})
    train_recipe(first, output=tmp_path / "cut")
    for step, path in checkpoint_steps(tmp_path / "cut/checkpoints").items():
        if step > 5:
            path.rename(path.with_name(f"aside_{path.name}"))
    train_recipe(first, output=tmp_path / "cut")
    ends = [
        load_checkpoint(checkpoint_steps(tmp_path / name / "checkpoints")[6]) for name in ("whole", "cut")
    ]
    for part in ("weights", "ema", "optimizer"):
        whole, cut = (getattr(end, part) for end in ends)
        assert whole.keys() == cut.keys()
        assert all(torch.equal(tensor, cut[key]) for key, tensor in whole.items())
    assert any(key.endswith("/momentum_buffer") for key in ends[0].optimizer)


def test_another_optimizer_does_not_take_over(tmp_path: Path) -> None:
    train_recipe(recipe(), output=tmp_path / "run")
    longer = {**TINY["train"], "steps": 8}
    with pytest.raises(UsageError, match=r"optim\.name: muon -> adamw"):
        train_recipe(recipe_from({**TINY, "train": longer, "report": []}), output=tmp_path / "run")


def test_a_model_without_hidden_matrices_is_refused() -> None:
    parameters = {
        "table.weight": nn.Parameter(torch.zeros(3, 2)),
        "head.weight": nn.Parameter(torch.zeros(3, 2)),
    }
    with pytest.raises(RecipeError, match="no hidden matrix to orthogonalise") as caught:
        muon(parameters)
    assert "use adamw" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"adamw_share": 0.0}, "adamw_share: must be positive"), ({"modulation": "sgd"}, "modulation: is")],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        muon({"blocks.0.a.weight": nn.Parameter(torch.zeros(3, 2))}, **options)
