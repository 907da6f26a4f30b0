"""Sampling in 16 bits: the network alone computes in them, the chain stays in float32; the run decides."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from genzoo.core.errors import UsageError
from genzoo.core.seeds import SampleStreams
from genzoo.diffusion.flow.task import FlowMatchingTask
from genzoo.diffusion.latent_task import LatentDiffusionTask
from genzoo.diffusion.precision import Arithmetic, at_precision

TASKS = {
    "diffusion": (LatentDiffusionTask, {"name": "ddim", "steps": 3, "guidance_scale": 2.0}),
    "flow": (FlowMatchingTask, {"name": "flow_heun", "steps": 3, "guidance_scale": 2.0}),
}


class Watched(nn.Module):
    """Predicts by a matrix product, and notes in what precision."""

    in_channels, input_size, num_classes = 2, 4, 3

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-0.07, 0.09, 32 * 32).view(32, 32))
        self.seen: list[tuple[torch.dtype, torch.dtype]] = []

    def forward(self, x: Tensor, timesteps: Tensor, class_labels: Tensor) -> Tensor:
        product = x.flatten(1) @ self.weight
        self.seen.append((x.dtype, product.dtype))
        return (product + 0.1 * class_labels[:, None]).view_as(x)


def sampled(kind: str, run_precision: str, **overrides: Any) -> tuple[Tensor, set[tuple[Any, Any]]]:
    factory, sampler = TASKS[kind]
    loss = {"loss": "noise_mse"} if kind == "diffusion" else {}
    model = Watched()
    task: Any = factory(model, sampler=sampler, **loss)
    task.run_precision = run_precision
    streams = SampleStreams.from_seeds(0, "sample", positions=range(2))
    pixels = task.sample(model, task.conditions(2, class_labels=[0, 2]), streams, **overrides)
    return pixels, set(model.seen)


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize(
    ("run_precision", "overrides", "product"),
    [
        ("fp32", {}, torch.float32),
        ("bf16", {}, torch.bfloat16),
        ("bf16", {"precision": "fp32"}, torch.float32),
        ("fp32", {"precision": "bf16"}, torch.bfloat16),
        ("fp64", {}, torch.float32),
    ],
)
def test_the_run_decides_unless_told_otherwise(
    kind: str, run_precision: str, overrides: dict[str, str], product: torch.dtype
) -> None:
    pixels, seen = sampled(kind, run_precision, **overrides)
    assert seen == {(torch.float32, product)}
    assert pixels.dtype == torch.float32


@pytest.mark.parametrize("kind", TASKS)
def test_16_bits_change_samples_by_rounding_alone(kind: str) -> None:
    exact, rounded = sampled(kind, "fp32")[0], sampled(kind, "bf16")[0]
    assert 0 < (exact - rounded).abs().max() < 0.1


def test_precision_outlives_another_sampler() -> None:
    factory, sampler = TASKS["diffusion"]
    task: Any = factory(Watched(), sampler={**sampler, "precision": "bf16"}, loss="noise_mse")
    streams = SampleStreams.from_seeds(0, "sample", positions=range(1))
    task.sample(task.model, task.conditions(1, class_labels=[1]), streams, sampler="euler", steps=2)
    assert {product for _, product in task.model.seen} == {torch.bfloat16}


def test_fp16_on_a_cpu_and_unknown_precisions_are_refused() -> None:
    with pytest.raises(UsageError, match="CPU computes in fp32 or bf16"):
        sampled("flow", "fp32", precision="fp16")
    with pytest.raises(UsageError, match="precision"):
        sampled("flow", "fp32", precision="int8")
    with pytest.raises(UsageError, match="'half'"):
        Arithmetic("half")  # type: ignore[arg-type]


def test_float32_takes_no_detour() -> None:
    def sampler(network: Any, x: Tensor) -> Tensor:
        return x

    assert at_precision(sampler, "fp32") is sampler


class Casts(TorchDispatchMode):
    """Counts copies of the weight in another dtype."""

    count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += func is torch.ops.aten._to_copy.default and args[0].shape == (32, 32)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", TASKS)
def test_weights_are_cast_once_for_all_steps(kind: str) -> None:
    with Casts() as casts:
        sampled(kind, "bf16")
        assert casts.count == 1
        sampled(kind, "bf16")  # another run casts anew: weights may have changed
    assert casts.count == 2
