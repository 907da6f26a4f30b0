"""Routing of tokens in training: exact where nothing is left out, undone behind it, off in sampling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from recipe_cases import TINY
from torch import Tensor, nn

from genzoo.api.run import train
from genzoo.core.checkpoint import load_checkpoint
from genzoo.core.errors import UsageError
from genzoo.core.recipe import recipe_from
from genzoo.core.seeds import SampleStreams
from genzoo.diffusion.flow.task import FlowMatchingTask
from genzoo.diffusion.latent_task import LatentDiffusionTask
from genzoo.families.dim.dit import DiT
from genzoo.families.dim.model import DiM
from genzoo.families.dim.video import DiMVideo
from genzoo.nn.routing import Route, gathered, scattered

SMALL: dict[str, Any] = {
    "depth": 3, "hidden_size": 24, "patch_size": 2, "input_size": [4, 6], "in_channels": 3, "num_classes": 5,
    "learn_sigma": False,
}  # fmt: skip
ROUTING = {"rate": 0.5, "start": 1, "end": 1}
MODELS = {
    "dim": lambda **more: DiM(**SMALL, d_state=4, **more),
    "dim by columns": lambda **more: DiM(**SMALL, d_state=4, scan_orders=["rows", "snake_columns"], **more),
    "dim with a class token": lambda **more: DiM(**SMALL, d_state=4, cls_token=True, **more),
    "dit": lambda **more: DiT(**SMALL, num_heads=3, **more),
    "dit with rotary positions": lambda **more: DiT(**SMALL, num_heads=3, rope=True, **more),
}
every_model = pytest.mark.parametrize("name", MODELS)


@torch.no_grad()
def build(name: str) -> nn.Module:
    torch.manual_seed(2)
    model: nn.Module = MODELS[name]()
    for key, parameter in model.named_parameters():
        if "adaLN_modulation" in key or "final_layer" in key:
            parameter.normal_(std=0.2)
    return model


def arguments() -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    return x, torch.tensor([10.0, 400.0]), torch.tensor([1, 5])


def batch(num: int) -> dict[str, Tensor]:
    pixels = torch.rand(num, 3, 4, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return {"pixels": pixels, "class_labels": torch.arange(num) % 5}


def streams(*positions: int) -> SampleStreams:
    return SampleStreams.from_seeds(0, "noise", positions=positions)


@every_model
def test_a_route_that_keeps_every_token_is_no_route(name: str) -> None:
    model = build(name)
    kept = torch.arange(6).expand(2, -1)
    torch.testing.assert_close(model(*arguments(), route=Route(kept, 1, 1)), model(*arguments()))


@every_model
def test_tokens_pass_by_the_routed_blocks_and_come_back_to_their_places(name: str) -> None:
    model = build(name)
    kept = torch.tensor([[0, 2, 3], [1, 4, 5]])
    c = torch.randn(2, 24, generator=torch.Generator().manual_seed(1))
    tokens = torch.randn(2, 6, 24, generator=torch.Generator().manual_seed(3))
    seen: list[Tensor] = []
    model.blocks[1].register_forward_hook(lambda _, args, out: seen.extend([args[0], out]))
    with torch.no_grad():
        model.mix_tokens(tokens, c, Route(kept, 1, 1))
    num_front = seen[0].shape[1] - 3
    assert num_front == int(name == "dim with a class token")
    behind: list[Tensor] = []
    model.blocks[2].register_forward_hook(lambda _, args, out: behind.append(args[0]))
    before: list[Tensor] = []
    model.blocks[0].register_forward_hook(lambda _, args, out: before.append(out))
    with torch.no_grad():
        model.mix_tokens(tokens, c, Route(kept, 1, 1))
    assert torch.equal(seen[0], gathered(before[0], kept, num_front=num_front))
    expected = scattered(before[0], kept, seen[1], num_front=num_front)
    assert torch.equal(behind[0], expected)
    others = [place + num_front for place in (1, 4, 5)]
    assert torch.equal(behind[0][0, others], before[0][0, others])
    assert not torch.equal(behind[0][0, num_front], before[0][0, num_front])


@pytest.mark.parametrize("task", [FlowMatchingTask, LatentDiffusionTask])
def test_a_rate_of_zero_is_no_routing_bit_for_bit(task: Any) -> None:
    loss: Any = {} if task is FlowMatchingTask else {"loss": "noise_mse"}
    losses = []
    for routing in (None, {**ROUTING, "rate": 0.0}, ROUTING):
        made = task(build("dim"), routing=routing, **loss)
        prepared = made.prepare_batch(batch(4), streams(0, 1, 2, 3))
        assert ("route" in prepared) == (routing is ROUTING)
        losses.append(made.loss(made.model, prepared).loss)
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


def test_a_samples_route_depends_on_its_own_stream_alone() -> None:
    made = FlowMatchingTask(build("dim"), routing=ROUTING)
    together = made.prepare_batch(batch(4), streams(5, 6, 7, 8))
    rows = {name: value[2:3] for name, value in batch(4).items()}
    alone = made.prepare_batch(rows, streams(7))
    assert torch.equal(together["route"].kept[2:3], alone["route"].kept)
    assert torch.equal(together["noise"][2:3], alone["noise"])
    assert together["route"].kept.shape == (4, 3)
    assert len({tuple(row) for row in together["route"].kept.tolist()}) > 1


def test_held_out_batches_and_samples_are_not_routed() -> None:
    made = FlowMatchingTask(build("dim"), routing=ROUTING, sampler={"name": "flow_euler", "steps": 2})
    assert "route" not in made.held_out_batch(batch(2), streams(0, 1), torch.tensor([0.2, 0.7]))
    plain = FlowMatchingTask(made.model, sampler={"name": "flow_euler", "steps": 2})
    conditions = made.conditions(2)
    drawn = [one.sample(one.model, conditions, streams(0, 1)) for one in (made, plain)]
    assert torch.equal(*drawn)


def test_a_stopped_run_with_routing_muon_and_profiles_goes_on_bit_for_bit(tmp_path: Path) -> None:
    recipe = recipe_from(
        {
            **TINY,
            "task": {**TINY["task"], "routing": {"rate": 0.4, "start": 0, "end": 1}},
            "optim": {"name": "muon", "lr": 1e-3},
            "train": {**TINY["train"], "ema_profiles": [0.1, 0.2]},
            "preview": None,
            "report": [],
        }
    )
    whole = train(recipe, output=tmp_path / "whole")
    train(recipe, output=tmp_path / "cut", until=3)
    cut = train(recipe, output=tmp_path / "cut")
    first, second = (load_checkpoint(run.checkpoint()) for run in (whole, cut))
    assert first.step == second.step == 6
    for part in ("weights", "ema", "optimizer"):
        one, other = getattr(first, part), getattr(second, part)
        assert list(one) == list(other)
        assert all(torch.equal(one[name], other[name]) for name in one), part


class Plain(nn.Module):
    """A model without a sequence."""

    num_classes, in_channels, input_size, patch_size = 0, 3, 4, 2

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)


def clips() -> nn.Module:
    return DiMVideo(**{**SMALL, "depth": 2, "num_frames": 3, "input_size": 4})


@pytest.mark.parametrize(
    ("model", "routing", "named"),
    [
        (None, {"rate": 0.5, "start": 2, "end": 1}, "blocks 2 to 1 of a model with blocks 0 to 2"),
        (None, {"rate": 0.5, "start": 1, "end": 3}, "blocks 1 to 3"),
        (None, {"rate": 1.0, "start": 1, "end": 1}, "the rate of routing is 1.0"),
        (None, {"rate": -0.1, "start": 1, "end": 1}, "the rate of routing is -0.1"),
        (None, {"rate": 0.5}, "give all three"),
        (None, {"rate": "half", "start": 1, "end": 1}, "give all three"),
        (Plain, ROUTING, "tokens of Plain cannot be routed"),
        (clips, ROUTING, "tokens of DiMVideo cannot be routed"),
    ],
    ids=["reversed", "too deep", "all", "negative", "incomplete", "text", "no sequence", "clips"],
)
def test_routes_that_cannot_be_are_refused_before_training(model: Any, routing: Any, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        FlowMatchingTask(model() if model else build("dim"), routing=routing)
