"""One 256-px picture by CAR-d16 under a control at full strength, at half, and without."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cases.collaborative import LABEL, SAMPLER, random_codec
from benchmarks.measure import CLOCKS, compare
from benchmarks.registry import Options, case
from genzoo.api import create_model
from genzoo.core.seeds import SampleStreams
from genzoo.families.car.task import NextScaleTask

PLAIN, WAYS = "strength 1", {"strength 1": 1.0, "strength 0.5": 0.5, "strength 0": 0.0}
TARGET = 1.35


@case("control_strength")
def control_strength(options: Options) -> list[dict[str, Any]]:
    """A picture at strength 0.5 of its control, and without, beside plain CAR; multiply-adds are counted too.

    The control was seen before. Settings: model (a CAR), precision, clock.
    """
    settings = options.settings
    torch.manual_seed(1)
    model = create_model(settings.get("model", "car_d16")).eval()
    task = NextScaleTask(model, codec=random_codec(), sampler=SAMPLER)
    control = torch.rand(3, *task.pixel_size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    precision, clock = settings.get("precision", "bf16"), CLOCKS[settings.get("clock", "cpu")]

    @torch.no_grad()
    def draw(strength: float) -> None:
        conditions = task.conditions(1, class_labels=LABEL, control=control[None], control_scale=strength)
        streams = SampleStreams.from_seeds(0, "sample", positions=[0])
        if not task.sample(task.model, conditions, streams, precision=precision).isfinite().all():
            raise RuntimeError("the picture is not finite; no timing")

    products = {}
    for name, strength in WAYS.items():
        draw(strength)  # the control is encoded, the weights are copied
        with FlopCounterMode(display=False) as counter:
            draw(strength)
        products[name] = counter.get_total_flops() / 2
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(options.repeats):
        for name, strength in WAYS.items():
            start = clock()
            draw(strength)
            seconds[name].append(clock() - start)
    shares = {name: count / products[PLAIN] for name, count in products.items()}
    row = compare(PLAIN, seconds)
    return [{"name": f"{precision}, one control", **row, "multiply_adds": shares, "target": TARGET}]
