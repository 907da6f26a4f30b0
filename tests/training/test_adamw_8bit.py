"""AdamW with 8-bit moments: what a code loses, how near the steps are to AdamW's, exact resume, memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from recipe_cases import TINY
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import genzoo.families  # noqa: F401  (declares the models)
from genzoo.api.training.train import train_recipe
from genzoo.core.checkpoint import checkpoint_steps, load_checkpoint
from genzoo.core.errors import CheckpointError
from genzoo.core.recipe import Recipe, recipe_from
from genzoo.training import adamw_8bit as module
from genzoo.training.adamw_8bit import BLOCK, adamw_8bit, dynamic_map, quantise, restore
from genzoo.training.optim import adamw, load_optimizer_tensors, optimizer_tensors


@pytest.mark.parametrize("signed", [True, False])
def test_codes_are_distinct_and_hold_0_and_1(signed: bool) -> None:
    table = dynamic_map(signed=signed)
    assert len(table.unique()) == 256
    assert torch.equal(table, table.sort().values)
    assert 0.0 in table
    assert table[-1] == 1.0
    # the smallest steps are far below what 8 even bits could tell
    assert table[table > 0].min() < 1e-5


def test_the_nearest_code_of_a_block_is_taken() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 7, 19, generator=generator) * torch.tensor([1e-6, 1.0, 1e3, 1e-3, 0.0])[:, None, None]
    table = dynamic_map(signed=True)
    codes, scale = quantise(x, table)
    assert codes.shape == x.shape
    assert codes.dtype == torch.uint8
    assert len(scale) == -(-x.numel() // BLOCK)
    found = restore(codes, scale, table)
    spread = scale.repeat_interleave(BLOCK)[: x.numel()].view(x.shape)
    nearest = (x[..., None] - spread[..., None] * table).abs().min(-1).values
    torch.testing.assert_close((found - x).abs(), nearest, rtol=1e-3, atol=1e-9)
    assert torch.equal(restore(*quantise(torch.zeros(3, 100), table), table), torch.zeros(3, 100))


def quadratic(build: Any, steps: int) -> tuple[list[float], nn.Parameter]:
    """Losses of |W x - y|^2 on drawn batches."""
    generator = torch.Generator().manual_seed(1)
    W = nn.Parameter(0.1 * torch.randn(70, 90, generator=generator))
    goal = torch.randn(70, 90, generator=generator)
    optimizer = build({"W": W}, lr=3e-2).optimizer
    losses = []
    for _ in range(steps):
        x = torch.randn(32, 90, generator=generator)
        loss = (x @ (W - goal).T).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, W


def test_it_learns_as_adamw_does() -> None:
    (exact, W), (coded, coded_W) = quadratic(adamw, 120), quadratic(adamw_8bit, 120)
    assert coded[0] == exact[0]
    assert coded[-1] < 0.02 * coded[0]
    assert coded[-1] < 2 * exact[-1] + 1e-3 * exact[0]
    assert float((coded_W - W).detach().norm() / W.detach().norm()) < 0.05


def test_a_step_is_counted_on_fake_tensors_and_leaves_none_behind() -> None:
    module._sent.cache_clear()
    with FakeTensorMode():
        fake = torch.nn.Parameter(torch.empty(70, 90))
        fake.grad = torch.empty(70, 90)
        counted = adamw_8bit({"a": fake}).optimizer
        counted.step()
        counted.step()  # moments are read back from their codes
        assert counted.state[fake]["exp_avg_code"].dtype == torch.uint8
    real = torch.nn.Parameter(torch.ones(70, 90))
    real.grad = torch.ones(70, 90)
    adamw_8bit({"a": real}, lr=1e-2).optimizer.step()
    torch.testing.assert_close(real.detach(), torch.full((70, 90), 0.99), rtol=0, atol=1e-4)


def test_small_parameters_move_as_adamw_moves_them() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(6, 4, generator=generator)
    ours, theirs = nn.Parameter(values.clone()), nn.Parameter(values.clone())
    optimizers = [
        adamw_8bit({"a": ours}, lr=1e-2, weight_decay=0.1).optimizer,
        torch.optim.AdamW([theirs], lr=1e-2, weight_decay=0.1, fused=False, foreach=False),
    ]
    for _ in range(4):
        ours.grad = torch.randn(6, 4, generator=generator)
        theirs.grad = ours.grad.clone()
        for each in optimizers:
            each.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_state_is_a_quarter_and_goes_back_by_name() -> None:
    parameters = {"large": nn.Parameter(torch.ones(64, 70)), "small": nn.Parameter(torch.ones(5))}
    built = adamw_8bit(parameters)
    for parameter in parameters.values():
        parameter.grad = torch.linspace(-1, 1, parameter.numel()).view(parameter.shape)
    built.optimizer.step()
    saved = optimizer_tensors(built.optimizer, parameters)
    held = sum(value.numel() * value.element_size() for key, value in saved.items() if "step" not in key)
    assert held / 4 / (64 * 70 + 5) == pytest.approx(built.slots, rel=0.01)
    assert built.slots < 0.52
    again = adamw_8bit(parameters).optimizer
    load_optimizer_tensors(again, parameters, saved, where="here")
    restored = optimizer_tensors(again, parameters)
    assert all(
        torch.equal(restored[key], value) and restored[key].dtype == value.dtype
        for key, value in saved.items()
    )
    with pytest.raises(CheckpointError, match="does not fit the optimizer"):
        load_optimizer_tensors(adamw(parameters).optimizer, parameters, saved, where="here")
    cut = {**saved, "large/exp_avg_scale": saved["large/exp_avg_scale"][:-1]}
    with pytest.raises(CheckpointError, match="exp_avg_scale"):
        load_optimizer_tensors(again, parameters, cut, where="here")


def recipe() -> Recipe:
    settings = {"name": "adamw_8bit", "lr": 2e-3, "schedule": "cosine"}
    train = {**TINY["train"], "checkpoint_every": 1}
    return recipe_from({**TINY, "optim": settings, "train": train, "preview": {"every": 0}, "report": []})


def test_a_resumed_run_ends_bit_identical(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SMALL", 32)
    train_recipe(recipe(), output=tmp_path / "whole")
    train_recipe(recipe(), output=tmp_path / "cut")
    for step, path in checkpoint_steps(tmp_path / "cut/checkpoints").items():
        if step > 5:
            path.rename(path.with_name(f"aside_{path.name}"))
    train_recipe(recipe(), output=tmp_path / "cut")
    ends = [
        load_checkpoint(checkpoint_steps(tmp_path / name / "checkpoints")[6]) for name in ("whole", "cut")
    ]
    for part in ("weights", "optimizer"):
        whole, cut = (getattr(end, part) for end in ends)
        assert whole.keys() == cut.keys()
        assert all(torch.equal(tensor, cut[key]) for key, tensor in whole.items())
    assert any(key.endswith("/exp_avg_code") for key in ends[0].optimizer)
