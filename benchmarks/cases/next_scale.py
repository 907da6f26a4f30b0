"""One 256-px picture by VAR-d16 and CAR-d16 with guidance, beside the released code on another machine.

That time is carried over by the rate of a 2048 x 2048 matrix product, measured here in every round.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.measure import compare
from benchmarks.registry import Options, case
from genzoo.api import create_model
from genzoo.autoregression.sampling import sample_scales
from genzoo.core.seeds import SampleStreams
from genzoo.families.car.control.decoder import decoder_of
from genzoo.families.car.control.model import CAR
from genzoo.families.car.task import NextScaleTask
from genzoo.families.car.var.sampler_options import draw_options
from genzoo.families.car.vqvae.codec import VQVAECodec
from genzoo.families.car.vqvae.model import VQVAE

# the released code on 2 cores of a Xeon that multiplies matrices at these rates
RELEASED_SECONDS = {"VAR fp32": 5.5, "VAR bf16": 3.15, "CAR fp32": 11.2}
RELEASED_GFLOPS = {"fp32": 370.0, "bf16": 2400.0}
PEER = "released, carried over"
TARGETS = {"VAR fp32": 1.6, "VAR bf16": 2.2, "CAR fp32 first": 2.2, "CAR fp32 reused": 3.0}
LABEL = 207
PARTS = ("control", "blocks", "sampling", "decode")
SAMPLER = {"guidance_scale": 5.0, "top_k": 900, "top_p": 0.95}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass
class Stopwatch:
    """Seconds by part."""

    clock: Callable[[], float]
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add what happens inside to a part."""
        start = self.clock()
        yield
        self.seconds[name] += self.clock() - start


def gemm_rate(precision: str, clock: Callable[[], float], size: int = 2048) -> float:
    """GFLOP/s of a square matrix product, the best of three."""
    a, b = (torch.randn(size, size).to(DTYPES[precision]) for _ in range(2))
    times = []
    for _ in range(4):
        start = clock()
        a @ b
        times.append(clock() - start)
    return 2 * size**3 / min(times[1:]) / 1e9


def draw(task: NextScaleTask, precision: str, control: Tensor | None, watch: Stopwatch) -> None:
    """One picture, as `task.sample` draws it, with a look at the clock between the parts."""
    model: Any = task.half(task.model) if precision == "bf16" else task.model
    model = model if control is not None else getattr(model, "base", model)
    options = draw_options(task.sampler)
    features = None
    if control is not None:
        with watch.part("control"):
            features = task.encode_control(model, control)
    with watch.part("blocks"):
        labels = torch.tensor([LABEL, model.num_classes])  # the second half without a class, for guidance
        predict = decoder_of(model, labels, features)

    def timed(scale: int, read: Tensor | None) -> Tensor:
        with watch.part("blocks"):
            return predict(scale, read)

    before = watch.seconds["blocks"]
    start = watch.clock()
    streams = SampleStreams.from_seeds(0, "sample", positions=[0])
    drawn = sample_scales(timed, task.codec.quantizer, task.codec.patch_nums, streams, options)
    watch.seconds["sampling"] += watch.clock() - start - (watch.seconds["blocks"] - before)
    with watch.part("decode"):
        pixels = task.codec.decode(drawn.f_hat, precision=precision)  # type: ignore[arg-type]
    if not pixels.isfinite().all():
        raise RuntimeError("the picture is not finite; no timing")


@torch.no_grad()
def rounds(
    task: NextScaleTask, name: str, precision: str, control: Callable[[], Tensor | None], options: Options
) -> dict[str, Any]:
    """A row: our seconds and the released code's, carried over, round by round; and our parts."""
    clock = CLOCKS[options.settings.get("clock", "wall")]
    draw(task, precision, control(), Stopwatch(clock))
    ours, theirs, rates, watches = [], [], [], []
    peer = RELEASED_SECONDS.get(" ".join(name.split()[:2]))
    for _ in range(options.repeats):
        rates.append(gemm_rate(precision, clock))
        watch = Stopwatch(clock)
        start, given = clock(), control()
        start = clock()
        draw(task, precision, given, watch)
        ours.append(clock() - start)
        watches.append(watch.seconds)
        theirs.append((peer or 0.0) * RELEASED_GFLOPS[precision] / rates[-1])
    row = compare("genzoo", {"genzoo": ours} | ({PEER: theirs} if peer else {}))
    middle = watches[ours.index(sorted(ours)[len(ours) // 2])]
    parts = {f"{part}_ms": 1e3 * middle[part] for part in PARTS}
    return {
        "name": name, **row, **parts, "gemm_gflops": sorted(rates)[len(rates) // 2],
        "target": TARGETS.get(name),
    }  # fmt: skip


def build_task() -> NextScaleTask:
    """CAR-d16 on VAR-d16 with the VQVAE of 108 M, all with random weights."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "vqvae.safetensors"
        save_file(VQVAE().state_dict(), weights)
        codec = VQVAECodec(str(weights))
    model = create_model("car_d16")
    assert isinstance(model, CAR)
    return NextScaleTask(model.eval(), codec=codec, sampler={"name": "next_scale", **SAMPLER})


@case("next_scale_sampling")
def next_scale_sampling(options: Options) -> list[dict[str, Any]]:
    """A 256-px picture by VAR-d16 and CAR-d16: fp32 and bf16, first control and reused control."""
    task = build_task()
    generator = torch.Generator().manual_seed(0)

    def fresh() -> Tensor:
        return torch.rand(1, 3, 256, 256, generator=generator) * 2 - 1

    reused = fresh()
    rows = []
    for precision in options.settings.get("precision", "fp32,bf16").split(","):
        var = rounds(task, f"VAR {precision}", precision, lambda: None, options)
        first = rounds(task, f"CAR {precision} first", precision, fresh, options)
        again = rounds(task, f"CAR {precision} reused", precision, lambda: reused, options)
        for row in (first, again):
            row["added_to_var"] = row["ms"]["genzoo"]["median"] / var["ms"]["genzoo"]["median"] - 1
        again["target_added"] = 0.4
        rows += [var, first, again]
    return rows
