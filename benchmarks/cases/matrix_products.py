"""A step beside the sum of its matrix products and convolutions, each replayed hot: what no fusion can save.

The calls of one step are recorded with their shapes, strides and precisions, plain torch's, and each kind is
run again on numbers of its own. The replay is warm where the step is cold, so a step of nothing but products
would still take a little more than its floor.
"""

from __future__ import annotations

import contextlib
import os
import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.cases.diffusion_step import sampling_step, train_step
from benchmarks.cases.next_scale import Stopwatch, build_task, draw, pictures_like
from benchmarks.measure import CLOCKS
from benchmarks.registry import Options, case
from genzoo.api import create_model
from genzoo.nn.evaluating import evaluating
from genzoo.nn.packed import packs_kept

aten = torch.ops.aten
COUNTED = (aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.convolution, aten.convolution_backward)
STEPS = ("sample", "train")
TARGETS = {"dim_s2 sample bf16": 4.2, "dim_s2 train bf16": 4.5}


class Recorder(TorchDispatchMode):
    """Counts products by what they are called with; tensors stand as their shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[tuple[Any, tuple[Any, ...]]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every operation of torch below autograd and autocast."""
        if func.overloadpacket in COUNTED:
            self.calls[func, tuple(_described(argument) for argument in args)] += 1
        return func(*args, **(kwargs or {}))


def _described(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return "tensor", tuple(argument.shape), argument.stride(), argument.dtype
    return tuple(argument) if isinstance(argument, list) else argument


def _made(described: Any) -> Any:
    if isinstance(described, tuple) and described and described[0] == "tensor":
        _, shape, stride, dtype = described
        return torch.empty_strided(shape, stride, dtype=dtype).normal_()
    return list(described) if isinstance(described, tuple) else described


def floor_of(step: Callable[[], object], clock: str, repeats: int) -> dict[str, float]:
    """Milliseconds of the step's products, those of matrices and those of convolutions, and their number."""
    recorder = Recorder()
    with unpacked(), recorder:
        step()
    found = {"products_ms": 0.0, "convolutions_ms": 0.0, "calls": 0.0}
    for (func, described), number in recorder.calls.items():
        arguments = [_made(argument) for argument in described]
        kind = "convolutions_ms" if "convolution" in str(func) else "products_ms"
        found[kind] += 1e3 * number * replayed(partial(func, *arguments), clock, repeats)
        found["calls"] += number
    return found


@contextlib.contextmanager
def unpacked() -> Iterator[None]:
    """Within the block a model that is evaluated calls torch's own products, which the recorder knows."""
    before = os.environ.get("GENZOO_PACK")
    os.environ["GENZOO_PACK"] = "0"
    try:
        yield
    finally:
        del os.environ["GENZOO_PACK"]
        if before is not None:
            os.environ["GENZOO_PACK"] = before


def replayed(call: Callable[[], object], clock: str, repeats: int) -> float:
    """Seconds of a call whose operands the caches know, the median of some."""
    call()
    taken = []
    with torch.no_grad():
        for _ in range(max(3, repeats)):
            start = CLOCKS[clock]()
            call()
            taken.append(CLOCKS[clock]() - start)
    return statistics.median(taken)


def row_of(
    name: str,
    step: Callable[[], object],
    options: Options,
    *,
    model: nn.Module | None = None,
) -> dict[str, Any]:
    """Step and floor take turns.   model: evaluated as samplers do; its floor is that of plain torch."""
    clock = options.settings.get("clock", "wall")
    seconds, floors, parts = [], [], []
    for _ in range(options.repeats):
        with packs_kept(), contextlib.nullcontext() if model is None else evaluating(model):
            step()
            seconds.append(_seconds(step, clock))
        parts.append(floor_of(step, clock, 3))
        floors.append(parts[-1]["products_ms"] + parts[-1]["convolutions_ms"])
    ratios = [1e3 * own / floor for own, floor in zip(seconds, floors, strict=True)]
    middle = parts[floors.index(sorted(floors)[len(floors) // 2])]
    spread = {
        "median": 1e3 * statistics.median(seconds),
        "min": 1e3 * min(seconds),
        "max": 1e3 * max(seconds),
    }
    return {
        "name": name,
        "ms": {"genzoo": spread},
        "floor_ms": statistics.median(floors),
        "times_floor": statistics.median(ratios),
        "times_floor_min": min(ratios),
        "times_floor_max": max(ratios),
        "target_times_floor": TARGETS.get(name),
        **middle,
    }


def _seconds(step: Callable[[], object], clock: str) -> float:
    start = CLOCKS[clock]()
    step()
    return CLOCKS[clock]() - start


def diffusion_row(model_name: str, mode: str, dtype: str, options: Options) -> dict[str, Any]:
    """A training or sampling step on 32x32 latents, as `train_step` and `sampling_step` run it."""
    torch.manual_seed(0)
    model = create_model(model_name).train(mode == "train")
    with torch.no_grad():
        for parameter in model.parameters():  # a fresh model is the identity, whose zeros would be fast
            parameter.add_(torch.randn(parameter.shape) * 0.01)
    step = (train_step if mode == "train" else sampling_step)(model, dtype)
    with torch.autocast("cpu", enabled=False) if mode == "sample" else contextlib.nullcontext():
        evaluated = model if mode == "sample" else None
        return row_of(f"{model_name} {mode} {dtype}", step, options, model=evaluated)


def picture_row(dtype: str, controlled: bool, options: Options) -> dict[str, Any]:
    """A 256-px picture with guidance by VAR-d16, or by CAR-d16 with a new control."""
    task, fresh = build_task(), pictures_like(0)
    clock = CLOCKS[options.settings.get("clock", "wall")]

    @torch.no_grad()
    def step() -> None:
        draw(task, dtype, fresh() if controlled else None, Stopwatch(clock))

    return row_of(f"{'car_d16' if controlled else 'var_d16'} picture {dtype}", step, options)


@case("matrix_products")
def matrix_products(options: Options) -> list[dict[str, Any]]:
    """Steps beside the sum of their matrix products; models=, steps=sample,train, dtypes=, clock=cpu."""
    settings = options.settings
    dtypes = settings.get("dtypes", "fp32,bf16").split(",")
    rows = []
    for name in settings.get("models", "dim_s2,dit_s2,var_d16,car_d16").split(","):
        for dtype in dtypes:
            if name in ("var_d16", "car_d16"):
                rows.append(picture_row(dtype, name == "car_d16", options))
            else:
                modes = settings.get("steps", ",".join(STEPS)).split(",")
                rows += [diffusion_row(name, mode, dtype, options) for mode in modes]
    return rows
