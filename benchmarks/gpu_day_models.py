"""Whole models on a GPU: training and sampling steps, growth with tokens, VAR and CAR, a quick start."""

from __future__ import annotations

import json
import math
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import genzoo
from benchmarks.gpu_day_parts import Bench
from genzoo.autoregression.sampling import NextScaleOptions, sample_scales
from genzoo.core.seeds import SampleStreams
from genzoo.families.car.control.decoder import decoder_of
from genzoo.families.car.control.model import CAR

BATCH = 32
PATCHES = {"depth": 1, "hidden_size": 16, "input_size": 4, "patch_size": 2}
MAPS = {"depth": 2, "hidden_size": 24, "num_heads": 3, "patch_nums": [1, 2], "codebook_size": 16}
CONTROL = {"control_channels": [4, 6]}
TINY: dict[str, dict[str, Any]] = {
    "dit": {**PATCHES, "num_heads": 2},
    "dim": PATCHES,
    "matten": {**PATCHES, "depth": 2, "num_heads": 2, "num_frames": 2},
    "var": {**MAPS, "in_channels": 4},
    "car": {**MAPS, "in_channels": 4, **CONTROL},
}
FULL = {"dit": "dit_xl2", "dim": "dim_xl2", "matten": "matten_xl", "var": "var_d16", "car": "car_d16"}
WIDE: dict[str, dict[str, Any]] = {
    "dim": {"depth": 12, "hidden_size": 768, "patch_size": 2},
    "dit": {"depth": 12, "hidden_size": 768, "patch_size": 2, "num_heads": 12},
}
LENGTHS = (256, 1024, 4096, 16384)  # tokens


def built(bench: Bench, name: str, **arguments: Any) -> Any:
    """A model with fresh weights on the device."""
    torch.manual_seed(0)
    with torch.device(bench.device):
        return genzoo.create_model(name, **arguments)


def drawn(model: Any, rows: int) -> tuple[Any, ...]:
    """Arguments of forward for some rows: the example's, over and over, with noise for zeros."""

    def repeat(example: Any) -> Any:
        if isinstance(example, list):
            return [repeat(one) for one in example]
        if not isinstance(example, Tensor):
            return example
        more = example.expand(rows, *example.shape[1:]).clone()
        return more.normal_() if more.is_floating_point() else more

    return tuple(repeat(example) for example in model.example_inputs())


def training_step(bench: Bench, model: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """Forward, backward and a fused AdamW under bf16 autocast."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step() -> None:
        with bench.autocast(half=True):
            loss = model(*inputs).float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def models(bench: Bench) -> dict[str, Any]:
    """Milliseconds and memory of training steps, and milliseconds of denoising steps."""
    found: dict[str, Any] = {}
    for name in FULL:
        rows = 1 if bench.tiny else 2 if name == "matten" else BATCH  # a row of Matten is a clip
        with bench.noted(found, name):
            found[name] = steps_of(bench, chosen(bench, name), rows)
        if bench.on_gpu:
            torch.cuda.empty_cache()
    return found


def chosen(bench: Bench, name: str) -> Any:
    """A model in the paper's size, or in a tiny one."""
    return built(bench, name, **TINY[name]) if bench.tiny else built(bench, FULL[name])


def steps_of(bench: Bench, model: Any, rows: int) -> dict[str, Any]:
    """One row of `models`."""
    step = training_step(bench, model, drawn(model, rows))
    row: dict[str, Any] = {"rows": rows, "training": bench.milliseconds(step, repeats=5, warm=2)}
    row["peak_gigabytes"] = bench.peak_gigabytes(step)
    for count in dict.fromkeys((rows, min(2, rows))):
        inputs = drawn(model, count)
        for label, half in (("fp32", False), ("bf16", True)):
            with torch.no_grad(), bench.autocast(half=half):
                row[f"forward {count} {label}"] = bench.milliseconds(partial(model, *inputs), repeats=5)
    return row


def crossover(bench: Bench) -> dict[str, Any]:
    """A forward pass of DiM-B and of DiT-B with fused attention against tokens, one picture, bf16."""
    found: dict[str, Any] = {}
    for length in (16,) if bench.tiny else LENGTHS:
        with bench.noted(found, f"{length} tokens"):
            row: dict[str, Any] = {}
            for name, wide in WIDE.items():
                sizes = TINY[name] if bench.tiny else wide
                model = built(bench, name, **{**sizes, "input_size": 2 * math.isqrt(length)})
                forward = partial(model, *drawn(model, 1))
                with torch.no_grad(), bench.autocast(half=True):
                    row[name] = bench.milliseconds(forward, repeats=10)
                    row[f"{name} peak_gigabytes"] = bench.peak_gigabytes(forward)
            row["dim over dit"] = row["dim"]["median"] / row["dit"]["median"]
            found[f"{length} tokens"] = row
    return found


def next_scale(bench: Bench) -> dict[str, Any]:
    """Tokens of a picture by VAR and CAR under guidance, without the decoder of pixels."""
    found: dict[str, Any] = {}
    for name in ("var", "car"):
        for rows in (1,) if bench.tiny else (1, 16):
            with bench.noted(found, f"{name} {rows}"):
                model = chosen(bench, name)
                found[f"{name} {rows}"] = {
                    label: bench.milliseconds(picture(bench, model.to(dtype).eval(), rows), repeats=3, warm=1)
                    for label, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
                }
    return found


def picture(bench: Bench, model: Any, rows: int) -> Any:
    """What draws all scales of some pictures."""
    base = model.base if isinstance(model, CAR) else model
    with torch.device(bench.device):
        book: Any = nn.Embedding(base.head.out_features, base.word_embed.in_features)
    book.refine = lambda h, scale, num_scales: h
    labels = torch.arange(2 * rows, device=bench.device) % base.num_classes
    options = NextScaleOptions(guidance_scale=3.0, top_k=9)

    def draw() -> None:
        with torch.no_grad():
            features = None
            if isinstance(model, CAR):
                features = model.encode_control(drawn(model, 1)[2])
            streams = SampleStreams.from_seeds(0, "day", positions=range(rows))
            sample_scales(decoder_of(model, labels, features), book, base.patch_nums, streams, options)

    return draw


def digits(bench: Bench) -> dict[str, Any]:
    """The first quick start through the trainer: seconds, last loss, and what its report says."""
    tiny = ["train.steps=2", "train.batch_size=4", "model.depth=1", "model.hidden_size=32", "report=[]"]
    changes = [*(tiny if bench.tiny else []), "preview=null", "train.tensorboard=false"]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run = genzoo.train(genzoo.load_recipe("quickstart/dim_digits", changes), output=Path(folder) / "run")
        taken = time.monotonic() - started
        last = json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[-1])
        pixels = run.sample(num=2, steps=2).pixels
        return {"seconds": taken, "last": last, "sample": list(pixels.shape), "report": run.report()}
