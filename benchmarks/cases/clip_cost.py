"""What a clip costs as frames and resolution grow: Matten's variants, DiM and Latte at equal width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.cases.diffusion_step import precision
from benchmarks.measure import compare, interleave, peak_memory
from benchmarks.registry import Options, case
from genzoo.api import create_model
from genzoo.core.errors import BackendUnavailable
from genzoo.core.registry import MODELS

WIDTH, HEADS, DEPTH = 384, 6, 4
FRAMES = (8, 16, 32, 64)
SIZES = (8, 16, 32)  # of the latents, at the first number of frames
LINEAR = 4.3  # four times the tokens may take a global scan this much longer
KINDS: dict[str, dict[str, Any]] = {
    **{f"matten V{v}": {"name": "matten", "num_heads": HEADS, "variant": v} for v in (1, 2, 3, 4)},
    "dim_video": {"name": "dim_video"},
    "dim_video global": {"name": "dim_video", "scan": "global"},
    "latte": {"name": "latte", "num_heads": HEADS},
}


def build(kind: str, frames: int, size: int, device: str = "cpu") -> nn.Module:
    """A model of the family at the common width and depth, opened: a fresh one returns zero."""
    arguments = {**KINDS[kind], "depth": DEPTH, "hidden_size": WIDTH, "num_frames": frames}
    torch.manual_seed(0)
    model: nn.Module = MODELS.get(arguments.pop("name"))(**arguments, input_size=size)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.01)
    return model.to(device)


def forward(model: Any) -> Callable[[], torch.Tensor]:
    """One pass over one clip of noise."""
    device = model.pos_embed.device
    shape = (1, model.num_frames, model.in_channels, model.input_size, model.input_size)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    timesteps = torch.full((1,), 500, device=device)

    def run() -> torch.Tensor:
        with torch.no_grad():
            return model(x, timesteps)

    return run


def tokens(frames: int, size: int) -> int:
    """Patches of 2 x 2."""
    return frames * (size // 2) ** 2


def timed(points: list[tuple[int, int]], options: Options, device: str) -> dict[tuple[str, int, int], float]:
    """Median ms of a pass, by kind, frames and size; at each point the kinds take turns."""
    found = {}
    for frames, size in points:
        calls = {kind: forward(build(kind, frames, size, device)) for kind in KINDS}
        for kind, call in calls.items():
            if not torch.isfinite(call()).all():
                raise RuntimeError(f"{kind}: the output is not finite; no timing")
        ms = compare("latte", interleave(calls, options.repeats))["ms"]
        found |= {(kind, frames, size): ms[kind]["median"] for kind in KINDS}
    return found


def memory(kind: str, frames: int, size: int) -> float:
    """Extra MB at the peak of a pass, in a process of its own."""
    setup = "from benchmarks.cases.clip_cost import build, forward\n"
    setup += f"call = forward(build({kind!r}, {frames}, {size}))"
    return peak_memory(setup, "call()")


def memory_on_gpu(kind: str, frames: int, size: int) -> float:
    """Extra MB at the peak of a pass, by torch's own account."""
    call = forward(build(kind, frames, size, "cuda"))
    call()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def rows(options: Options, device: str, size: int, measure: Callable[[str, int, int], float]) -> list[Any]:
    """A row for each kind and clip, then one for each kind on how it grows with four times the frames."""
    first, last = FRAMES[0], FRAMES[-1]
    points = [(frames, size) for frames in FRAMES] + [(first, side) for side in SIZES if side != size]
    ms = timed(points, options, device)
    found: list[dict[str, Any]] = []
    for (kind, frames, side), value in ms.items():
        number = tokens(frames, side)
        heavy = (frames, side) in ((first, size), (last, size))
        found.append({
            "name": f"{kind} {frames}x{side}x{side}", "frames": frames, "size": side, "tokens": number,
            "ms_per_clip": value, "us_per_token": 1e3 * value / number,
            "kb_per_token": 1024 * measure(kind, frames, side) / number if heavy else None,
        })  # fmt: skip
    for kind in KINDS:
        growth = {f"{f}->{4 * f}": ms[kind, 4 * f, size] / ms[kind, f, size] for f in FRAMES[:-2]}
        target = LINEAR if kind == "matten V1" else None
        found.append({"name": f"{kind}, four times the frames", **growth, "target": target})
    return found


@case("clip_cost")
def clip_cost(options: Options) -> list[dict[str, Any]]:
    """A pass over one clip of 8 to 64 frames and of three sizes, per token: Matten V1-V4, DiM, Latte."""
    return rows(options, "cpu", 16, memory)


@case("clip_cost_gpu", group="gpu")
def clip_cost_gpu(options: Options) -> list[dict[str, Any]]:
    """As clip_cost, on a GPU."""
    if not torch.cuda.is_available():
        raise BackendUnavailable(
            "clip_cost_gpu needs an NVIDIA GPU", why="torch sees none", fix="run it where there is one"
        )
    return rows(options, "cuda", 32, memory_on_gpu)


@case("video_train_step")
def video_train_step(options: Options) -> list[dict[str, Any]]:
    """AdamW step on one clip of 4 frames of 16x16 latents: Matten-B against Latte-B."""
    found = []
    for dtype in ("fp32", "bf16"):
        models = {
            name: create_model(f"{name}_b", num_frames=4, input_size=16) for name in ("matten", "latte")
        }
        seconds = interleave(
            {name: train_step(model, dtype) for name, model in models.items()}, options.repeats
        )
        found.append({"name": f"train B {dtype}", **compare("latte", seconds), "tokens": tokens(4, 16)})
    return found


def train_step(model: nn.Module, dtype: str) -> Callable[[], None]:
    """Forward, backward and AdamW update on one clip of noise, towards noise."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 4, 16, 16, generator=generator)
    target = torch.randn(1, 4, 8, 16, 16, generator=generator)
    timesteps = torch.full((1,), 500)

    def run() -> None:
        with precision(dtype):
            loss = (model(x, timesteps).float() - target).square().mean()
        if not torch.isfinite(loss):
            raise RuntimeError("the loss is not finite; no timing")
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run
