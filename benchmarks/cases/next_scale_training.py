"""What a training step costs: CAR-d16 on its frozen base, beside fine-tuning all of VAR-d16."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.registry import Options, case
from genzoo.api import create_model
from genzoo.autoregression.loss import next_scale_loss

MODELS = {"CAR-d16": "car_d16", "VAR-d16": "var_d16"}
BATCH = 1


def prepared(model_name: str, precision: str, batch: int) -> tuple[nn.Module, Callable[[], float]]:
    """A model in training, and a call that does a step of AdamW on random pictures and returns the loss."""
    torch.manual_seed(0)
    model = create_model(model_name).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    _, teacher_input, *control = model.example_inputs()  # type: ignore[operator]
    generator = torch.Generator().manual_seed(0)
    read = torch.randn(batch, *teacher_input.shape[1:], generator=generator)
    controls = [[torch.randn(batch, *c.shape[1:], generator=generator) for c in one] for one in control]
    patch_nums: Any = model.patch_nums
    ids = torch.randint(4096, (batch, sum(p * p for p in patch_nums)), generator=generator)
    labels = torch.randint(1000, (batch,), generator=generator)

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(labels, read, *controls)
        loss = next_scale_loss(logits, ids, patch_nums)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if not torch.isfinite(loss):
            raise RuntimeError("the loss is not finite; no timing")
        return float(loss.detach())

    return model, step


def measure(model_name: str, repeats: int, precision: str) -> dict[str, float]:
    """Seconds of an AdamW step and peak memory of this process, which does nothing else."""
    model, step = prepared(model_name, precision, BATCH)
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "seconds": statistics.median(seconds[1:]),
        "peak_mb": peak,
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }


def in_fresh_process(model_name: str, repeats: int, precision: str) -> dict[str, float]:
    """`measure` where nothing was allocated before, with as many threads as here."""
    words = [model_name, str(repeats), precision, str(torch.get_num_threads())]
    done = subprocess.run(
        [sys.executable, "-m", __name__, *words], capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@case("next_scale_training")
def next_scale_training(options: Options) -> list[dict[str, Any]]:
    """An AdamW step on one 256-px picture: CAR-d16 beside fine-tuning all of VAR-d16, with peak memory."""
    rows = []
    for precision in options.settings.get("precision", "fp32,bf16").split(","):
        found = {name: in_fresh_process(model, options.repeats, precision) for name, model in MODELS.items()}
        own, whole = found["CAR-d16"], found["VAR-d16"]
        ratio = whole["seconds"] / own["seconds"]
        rows.append(
            {
                "name": f"train step {precision}",
                "ms": {name: _only(1e3 * one["seconds"]) for name, one in found.items()},
                "times_slower": {"VAR-d16": _only(ratio)},
                "peak_mb": {name: round(one["peak_mb"]) for name, one in found.items()},
                "trained_millions": {name: round(one["trained"] / 1e6, 1) for name, one in found.items()},
            }
        )
    return rows


def _only(value: float) -> dict[str, float]:
    return {"median": value, "min": value, "max": value}


if __name__ == "__main__":
    name, count, number_type, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    print(json.dumps(measure(name, int(count), number_type)))
