"""One 256-px picture with guidance by a large VAR alone, and by it and a small one together."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.measure import compare
from benchmarks.registry import Options, case
from genzoo.api import create_model
from genzoo.core.seeds import SampleStreams
from genzoo.families.car.task import NextScaleTask
from genzoo.families.car.vqvae.codec import VQVAECodec
from genzoo.families.car.vqvae.model import VQVAE

SAMPLER = {"name": "next_scale", "guidance_scale": 5.0, "top_k": 900, "top_p": 0.95}
LABEL = 207


@case("collaborative_decoding")
def collaborative_decoding(options: Options) -> list[dict[str, Any]]:
    """CPU seconds of a picture by a large VAR, and by it for the coarse scales and a small one for the rest.

    Settings: large, small (names of models), drafts (scales that the large one draws), precision.
    """
    settings = options.settings
    codec = random_codec()
    large, small = (
        random_task(settings.get(*one), codec) for one in (("large", "var_d20"), ("small", "var_d16"))
    )
    precision = settings.get("precision", "fp32")
    rows = []
    for drafts in map(int, settings.get("drafts", "9,8,7").split(",")):
        together = {"refiner_run": {"small": small}, "draft_scales": drafts}
        ways = {"together": together, "large alone": {}}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.repeats):
            for name, conditions in ways.items():
                seconds[name].append(cpu_seconds(large, conditions, precision))
        total = len(codec.patch_nums)
        rows.append({"name": f"{drafts} of {total} scales", "clock": "cpu", **compare("together", seconds)})
    return rows


@torch.no_grad()
def cpu_seconds(task: NextScaleTask, conditions: dict[str, Any], precision: str) -> float:
    """Of one picture."""
    start = time.process_time()
    chosen = task.conditions(1, class_labels=LABEL, **conditions)
    streams = SampleStreams.from_seeds(0, "sample", positions=[0])
    pixels = task.sample(task.model, chosen, streams, precision=precision)
    seconds = time.process_time() - start
    if not pixels.isfinite().all():
        raise RuntimeError("the picture is not finite; no timing")
    return seconds


def random_codec() -> VQVAECodec:
    """The VQVAE of 108 M with random weights."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "vqvae.safetensors"
        save_file(VQVAE().state_dict(), weights)
        return VQVAECodec(str(weights))


def random_task(name: str, codec: VQVAECodec) -> NextScaleTask:
    """A VAR with random weights."""
    torch.manual_seed(1)
    return NextScaleTask(create_model(name).eval(), codec=codec, sampler=SAMPLER)
