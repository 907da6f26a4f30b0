"""What a step costs: DiM beside DiT of the same name, training and sampling, with their multiply-adds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.measure import compare, interleave
from benchmarks.registry import Options, case
from genzoo.api import create_model
from genzoo.nn.count import count_model
from genzoo.nn.evaluating import evaluating

BATCH = 4
SIZE = 32


def inputs(batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents, timesteps and labels of one batch."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 4, SIZE, SIZE, generator=generator)
    timesteps = torch.randint(1000, (batch,), generator=generator)
    return x, timesteps, torch.randint(1000, (batch,), generator=generator)


def precision(name: str) -> contextlib.AbstractContextManager[Any]:
    """Autocast to bfloat16, or nothing."""
    return torch.autocast("cpu", torch.bfloat16) if name == "bf16" else contextlib.nullcontext()


def train_step(model: nn.Module, dtype: str) -> Callable[[], None]:
    """Forward, backward and AdamW update on a fixed batch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    batch = inputs(BATCH)

    def run() -> None:
        with precision(dtype):
            loss = model(*batch).float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def sampling_step(model: nn.Module, dtype: str) -> Callable[[], None]:
    """One denoising step with guidance: a forward pass of the doubled batch, of a model that is evaluated."""
    batch = inputs(2 * BATCH)

    def run() -> None:
        with torch.no_grad(), precision(dtype):
            model(*batch)

    return run


def pair(size: str, mode: str, dtype: str, options: Options) -> dict[str, Any]:
    """One row: the same step of DiM and of DiT, and the ratio of their multiply-adds."""
    models = {name: create_model(f"{name}_{size}") for name in ("dim", "dit")}
    with torch.no_grad():
        for model in models.values():
            for (
                parameter
            ) in model.parameters():  # a fresh model returns zero and skips nothing, but says nothing
                parameter.add_(torch.randn(parameter.shape) * 0.01)
            if not torch.isfinite(model.train(mode == "train")(*inputs(1))).all():
                raise RuntimeError(f"{size}: the output is not finite; no timing")
    build = train_step if mode == "train" else sampling_step
    calls = {name: build(model, dtype) for name, model in models.items()}
    # as samplers do: copies of weights are made once for all steps of a run
    with contextlib.ExitStack() as run:
        if mode == "sample":
            run.enter_context(torch.autocast("cpu", enabled=False))
            for model in models.values():
                run.enter_context(evaluating(model))
        seconds = interleave(calls, options.repeats, clock=options.settings.get("clock", "wall"))
    row = compare("dit", seconds)
    macs = {name: count_model(model, image_size=256)["gflops"] for name, model in models.items()}
    row |= {"macs_ratio": macs["dim"] / macs["dit"], "samples": BATCH}
    return {
        "name": f"{mode} {size.upper()[0]}/{size[1]} {dtype}",
        **row,
        "target": 1.7 if size == "s2" else None,
    }


@case("train_step")
def train_steps(options: Options) -> list[dict[str, Any]]:
    """AdamW step on four 32x32 latents: DiM against DiT; sizes=s2,b4 dtypes=fp32,bf16 clock=cpu."""
    return [pair(size, "train", dtype, options) for size, dtype in chosen(options)]


@case("sampling_step")
def sampling_steps(options: Options) -> list[dict[str, Any]]:
    """Denoising step with guidance of four 32x32 latents: DiM against DiT; sizes=, dtypes=, clock=."""
    return [pair(size, "sample", dtype, options) for size, dtype in chosen(options)]


def chosen(options: Options) -> list[tuple[str, str]]:
    """Sizes and precisions of the settings, all when nothing is said."""
    sizes, dtypes = options.settings.get("sizes", "s2,b4"), options.settings.get("dtypes", "fp32,bf16")
    return [(size, dtype) for size in sizes.split(",") for dtype in dtypes.split(",")]
