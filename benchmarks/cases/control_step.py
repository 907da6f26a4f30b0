"""What CAR's training step costs beside full fine-tuning of the same VAR: time, and memory as counted."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch

from benchmarks.cases.gpu_count import build, repeated
from benchmarks.cases.next_scale_training import MODELS, prepared
from benchmarks.fake_gpu import autocast, saved_bytes
from benchmarks.launch_counter import counted_gpu
from benchmarks.measure import compare, interleave
from benchmarks.registry import Options, case
from genzoo.core.memory import freed_memory_kept
from genzoo.training.frozen_storage import rounded_by_autocast

# CAR's multiply-adds over VAR's, in thousand millions a picture: 271.4 + 327.6 (backward) and 139.9 + 279.7
BOUND = 1.43
PICTURES = 8


@case("control_step")
def control_step(options: Options) -> list[dict[str, Any]]:
    """CAR-d16 beside full fine-tuning of VAR-d16, in bfloat16: a step of AdamW, and memory as counted.

    CAR's convolutions read all scales at once, and one map at a time as in float32. Settings: batch=2, clock.
    """
    batch, clock = int(options.settings.get("batch", "2")), options.settings.get("clock", "wall")
    with freed_memory_kept():
        steps = {name: prepared(model, "bf16", batch)[1] for name, model in MODELS.items()}
        apart = mock.patch("genzoo.families.car.control.model.read_together", map_by_map)
        steps["CAR-d16, map by map"] = apart(steps["CAR-d16"])
        seconds = interleave(steps, options.repeats, clock=clock)
    row = {"name": f"train step bf16, {batch} pictures", **compare("VAR-d16", seconds)}
    return [row | {"bound": BOUND}, counted_memory()]


def map_by_map(*_: object) -> bool:
    """In place of `read_together`: no."""
    return False


def counted_memory() -> dict[str, Any]:
    """MiB of weights, gradients and Adam's moments, and of what a picture keeps for the backward pass."""
    whole, plain = counted("var_d16"), counted("car_d16")
    again = counted("car_d16", control_checkpointing=True)
    return {
        "name": f"memory bf16, {PICTURES} pictures, counted on tensors without memory",
        "state_mib": {"VAR-d16": whole[0], "CAR-d16": plain[0], "CAR-d16, base in 16 bits": plain[1]},
        "picture_mib": {"VAR-d16": whole[2], "CAR-d16": plain[2], "CAR-d16, control again": again[2]},
        "state_share": plain[1] / whole[0],
        "picture_share": again[2] / plain[2],
    }


def counted(name: str, **options: Any) -> tuple[float, float, float]:
    """MiB of state, of state with frozen matrices in 16 bits, and of activations for a picture."""
    with counted_gpu():
        model = build(name, **options).train()
        with saved_bytes(model) as saved, autocast(torch.bfloat16):
            model(*repeated(model, PICTURES))
    state = sum(p.numel() * (16 if p.requires_grad else 4) for p in model.parameters())
    halved = 2 * sum(parameter.numel() for parameter in rounded_by_autocast(model))
    return state / 2**20, (state - halved) / 2**20, sum(saved) / 2**20 / PICTURES
