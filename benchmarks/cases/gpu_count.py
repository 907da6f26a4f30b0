"""What training and sampling steps would ask of a GPU, counted on fake CUDA tensors: no GPU is needed."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.fake_gpu import autocast, saved_bytes, walk_backward
from benchmarks.launch_counter import CEILINGS, LaunchCounter, counted_gpu
from benchmarks.registry import Options, case
from genzoo.api.recipes.models import create_model

# name -> samples of a training step
MODELS = {"dim_s2": 32, "dim_xl2": 32, "dit_xl2": 32, "matten_xl": 2, "var_d16": 32, "car_d16": 32}
DENOISERS = ("dim_s2", "dim_xl2", "dit_xl2", "matten_xl")


@case("gpu_count")
def gpu_count(options: Options) -> list[dict[str, Any]]:
    """Launches, bytes and saved activations of steps in bf16, and the time an H100 would need; counted.

    A training step is forward and backward of the mean square of the output under autocast; optimizer and
    averages are left out. A sampling step is one evaluation for one sample with guidance. Settings: models.
    """
    rows = []
    for name in options.settings.get("models", ",".join(MODELS)).split(","):
        rows.append(training_step(name, MODELS[name]))
        if name in DENOISERS:
            rows.append(sampling_step(name, 2))
    return rows


def training_step(name: str, batch: int) -> dict[str, Any]:
    """Forward and backward of `batch` samples."""
    with counted_gpu() as counter:
        model = build(name).train()
        inputs = repeated(model, batch)
        with saved_bytes(model) as saved, autocast(torch.bfloat16), counter:
            loss = model(*inputs).float().square().mean()
        forward = counter.launches
        with counter:
            walk_backward(loss)
    more = {"forward_launches": forward, "saved_gigabytes": sum(saved) / 1e9}
    return row(f"{name} train {batch}", counter, **more)


def sampling_step(name: str, batch: int) -> dict[str, Any]:
    """One evaluation without gradients."""
    with counted_gpu() as counter:
        model = build(name).eval()
        with torch.no_grad(), autocast(torch.bfloat16), counter:
            model(*repeated(model, batch))
    return row(f"{name} sample {batch}", counter)


def build(name: str, **options: Any) -> nn.Module:
    """A model whose weights have shapes alone."""
    # drawing truncated normals looks at values, and there are none
    with torch.device("cuda"), mock.patch.object(nn.init, "trunc_normal_"):
        return create_model(name, **options)


def repeated(model: Any, batch: int) -> Any:
    """The model's example inputs for `batch` samples."""
    return torch.utils._pytree.tree_map_only(
        Tensor, lambda x: x.new_zeros(batch, *x.shape[1:]), model.example_inputs()
    )


def row(name: str, counter: LaunchCounter, **more: Any) -> dict[str, Any]:
    """What was counted, the largest parts by time, and the ceilings behind the milliseconds."""
    parts = sorted(counter.by_name.items(), key=lambda item: -item[1][2])[:12]
    return {
        "name": name,
        "counted": "on fake tensors, not measured",
        "gigabytes": counter.bytes / 1e9,
        "launches": counter.launches,
        **more,
        "teraflops": counter.flops / 1e12,
        "milliseconds_h100": counter.seconds * 1e3,
        "parts": {k: [v[0], round(v[1] / 1e9, 2), round(v[2] * 1e3, 2)] for k, v in parts},
        "ceilings": CEILINGS,
    }
