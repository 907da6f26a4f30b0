"""Whole models on a GPU: beside the CPU's float64, compiled, replayed, resumed; where a step's time goes."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import genzoo
from benchmarks.gpu_day_models import BATCH, TINY, built, chosen, drawn, training_step
from benchmarks.gpu_day_parts import Bench, gap
from genzoo.core.process_settings import process_settings
from genzoo.nn.compiled import compiled
from genzoo.nn.cuda_graphs import replayed

MIDDLE: dict[str, dict[str, Any]] = {
    "dit": {"depth": 3, "hidden_size": 192, "input_size": 16, "patch_size": 2, "num_heads": 3},
    "dim": {"depth": 3, "hidden_size": 192, "input_size": 16, "patch_size": 2},
    "matten": {
        "depth": 4,
        "hidden_size": 96,
        "input_size": 8,
        "patch_size": 2,
        "num_frames": 4,
        "num_heads": 3,
    },
    "var": {"depth": 3, "hidden_size": 96, "num_heads": 3, "patch_nums": [1, 2, 3, 4], "codebook_size": 64},
}
MIDDLE["car"] = {**MIDDLE["var"], "depth": 4, "control_channels": [16, 32]}
SHORT = ("preview=null", "train.tensorboard=false", "report=[]", "train.log_every=1")
TINY_RUN = ("train.batch_size=4", "model.depth=1", "model.hidden_size=32")


def agreement(bench: Bench) -> dict[str, Any]:
    """Relative error of the output and of the worst gradient in float32, against float64 on the CPU."""
    found: dict[str, Any] = {}
    for name, sizes in (TINY if bench.tiny else MIDDLE).items():
        with bench.noted(found, name):
            model = built(bench, name, **sizes)
            inputs = drawn(model, 2)
            with torch.no_grad():  # zero at the start would hide a branch
                for parameter in model.parameters():
                    parameter.add_(0.02 * torch.randn_like(parameter))
            exact = copy.deepcopy(model).cpu().double()
            wanted = output_and_gradients(exact, moved(inputs))
            with process_settings(bench.device):
                got = output_and_gradients(model, inputs)
            errors = [gap(mine.cpu(), right) for mine, right in zip(got, wanted, strict=True)]
            found[name] = {"output": errors[0], "gradients": max(errors[1:])}
            if errors[0] > 1e-5 or max(errors[1:]) > 1e-3:
                bench.failures.append(f"agreement of {name}")
    return found


def output_and_gradients(model: nn.Module, inputs: Sequence[Any]) -> list[Tensor]:
    """The output, and the gradient of every parameter that has one of any size."""
    out = model(*inputs)
    loss = (out * torch.sin(torch.arange(out.numel(), device=out.device)).view_as(out)).sum()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    grads = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [out.detach(), torch.cat([grad.flatten().double() for grad in grads if grad is not None])]


def moved(inputs: Any) -> Any:
    """The same numbers in float64 on the CPU."""
    if isinstance(inputs, list | tuple):
        return type(inputs)(moved(one) for one in inputs)
    if not isinstance(inputs, Tensor):
        return inputs
    return inputs.cpu().double() if inputs.is_floating_point() else inputs.cpu()


def forms(bench: Bench) -> dict[str, Any]:
    """A training step compiled by torch, and a small forward pass replayed, beside the plain forms."""
    found: dict[str, Any] = {}
    for name in ("dim", "dit") if bench.on_gpu else ():
        with bench.noted(found, name):
            found[name] = forms_of(bench, chosen(bench, name))
        torch.cuda.empty_cache()
    return found


def forms_of(bench: Bench, model: Any) -> dict[str, Any]:
    """One row of `forms`."""
    few, many = drawn(model, 2), drawn(model, BATCH)
    row = {"training": bench.milliseconds(training_step(bench, model, many), repeats=5)}
    forward = partial(model, *few)
    with torch.no_grad(), bench.autocast(half=True):
        row["forward 2"] = bench.milliseconds(forward, repeats=10)
        with replayed(model):
            row["forward 2, replayed"] = bench.milliseconds(partial(model, *few), repeats=10)
    with compiled(model):
        row["training, compiled"] = bench.milliseconds(training_step(bench, model, many), repeats=5)
    return row


def kernels_of_a_step(bench: Bench) -> dict[str, Any]:
    """The kernels that take a training step's time, longest first: milliseconds and launches."""
    found: dict[str, Any] = {}
    for name in ("dim", "dit") if bench.on_gpu else ():
        with bench.noted(found, name):
            model = chosen(bench, name)
            step = training_step(bench, model, drawn(model, BATCH))
            for _ in range(3):
                step()
            bench.wait()
            with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
                step()
                bench.wait()
            found[name] = longest(seen.key_averages())
        torch.cuda.empty_cache()
    return found


def longest(events: Any, number: int = 40) -> dict[str, Any]:
    """Milliseconds and launches in all, and of each of the kernels that take the most."""
    on_device = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    taken = {event.key[:90]: (event.self_device_time_total / 1e3, event.count) for event in on_device}
    most = sorted(taken.items(), key=lambda item: -item[1][0])[:number]
    return {
        "milliseconds": sum(time for time, _ in taken.values()),
        "launches": sum(count for _, count in taken.values()),
        "kernels": {key: [round(time, 3), count] for key, (time, count) in most},
    }


def resumed(bench: Bench) -> dict[str, Any]:
    """Whether a run that goes on from a checkpoint has the losses of one never stopped, bit for bit."""
    changes = [*(TINY_RUN if bench.tiny else ()), *SHORT, "train.checkpoint_every=3", "train.steps=6"]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("dim_digits", "dim_digits_paper"):
            recipe = f"quickstart/{name}"
            whole, halves = Path(folder) / f"{name} whole", Path(folder) / f"{name} halves"
            with bench.noted(found, name):
                genzoo.train(genzoo.load_recipe(recipe, changes), output=whole)
                genzoo.train(genzoo.load_recipe(recipe, changes), output=halves, until=3)
                genzoo.train(genzoo.load_recipe(recipe, changes), output=halves)
                found[name] = losses(whole)[3:] == losses(halves)[-3:]
                if not found[name]:
                    bench.failures.append(f"resumed {name}")
    return found


def losses(folder: Path) -> list[float]:
    """Of the steps of a run."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]
