"""Least-squares merge of LoRA files at SDXL's size: random rows and changes, every linear module."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from benchmarks.registry import Options, case
from genzoo.families.custom_diffusion.lora.changes import Change
from genzoo.families.custom_diffusion.lora.merge import merged_module, row_factor_of
from genzoo.families.custom_diffusion.lora.record import MAX_ROWS, input_group

NUM_FILES, RANK, TEXT_WIDTH = 3, 16, 2048
KEEP, LAMB = 0.1, 1e-4
# transformers of SDXL's UNet by width, and the blocks of each
TRANSFORMERS = {640: (2, 2, 2, 2, 2), 1280: (10, 10, 10, 10, 10, 10)}


def modules() -> dict[str, tuple[int, int]]:
    """(out, in) of all 722 linear modules that programs train."""
    found = {}
    for width, transformers in TRANSFORMERS.items():
        for number, blocks in enumerate(transformers):
            name = f"down_blocks.{width}.{number}"
            found |= {f"{name}.proj_in": (width, width), f"{name}.proj_out": (width, width)}
            for block in range(blocks):
                found |= {f"{name}.{block}.{last}": shape for last, shape in _block(width).items()}
    return found


def _block(width: int) -> dict[str, tuple[int, int]]:
    square, text = (width, width), (width, TEXT_WIDTH)
    own = {f"attn1.{last}": square for last in ("to_q", "to_k", "to_v", "to_out.0")}
    cross = {"attn2.to_q": square, "attn2.to_k": text, "attn2.to_v": text, "attn2.to_out.0": square}
    return {**own, **cross, "ff.net.0.proj": (8 * width, width), "ff.net.2": (width, 4 * width)}


def merge_all(shapes: dict[str, tuple[int, int]]) -> dict[str, float]:
    """Wall and CPU seconds of factors and of modules; drawing the numbers is not counted."""
    generator = torch.Generator().manual_seed(0)
    spent = {"factors": 0.0, "modules": 0.0, "factors cpu": 0.0, "modules cpu": 0.0}
    rows: dict[str, list[Tensor]] = {}
    factors: dict[str, Any] = {}
    for name, (out, width) in shapes.items():
        group = input_group(name)
        if group not in factors:
            if group != "text":
                # rows of one module are not needed by the next, but for the text's
                rows = {key: value for key, value in rows.items() if key == "text"}
                factors = {key: value for key, value in factors.items() if key == "text"}
            drawn = [torch.randn(MAX_ROWS, width, generator=generator) for _ in range(NUM_FILES + 1)]
            rows[group] = drawn
            wall, cpu = time.perf_counter(), time.process_time()
            factors[group] = row_factor_of(drawn[:-1], drawn[-1], KEEP, LAMB)
            spent["factors"] += time.perf_counter() - wall
            spent["factors cpu"] += time.process_time() - cpu
        changes = [
            Change(torch.randn(out, RANK, generator=generator), torch.randn(RANK, width, generator=generator))
            for _ in range(NUM_FILES)
        ]
        wall, cpu = time.perf_counter(), time.process_time()
        merged_module(changes, [1.0] * NUM_FILES, list(range(NUM_FILES)), rows[group], factors[group])
        spent["modules"] += time.perf_counter() - wall
        spent["modules cpu"] += time.process_time() - cpu
    return spent


@case("lora_merge")
def run(options: Options) -> list[dict[str, Any]]:
    """Least squares of three LoRA files on SDXL's 722 modules, with report; every=N: each Nth module."""
    step = int(options.settings.get("every", "1"))
    shapes = dict(list(modules().items())[::step])
    spent = merge_all(shapes)
    return [
        {
            "name": f"{len(shapes)} modules, {NUM_FILES} files of rank {RANK}, {MAX_ROWS} rows each",
            "seconds": spent["factors"] + spent["modules"],
            "cpu_seconds": spent["factors cpu"] + spent["modules cpu"],
            "factor_seconds": spent["factors"],
            "module_seconds": spent["modules"],
        }
    ]
