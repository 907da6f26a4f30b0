"""Teaching a concept beside full fine-tuning: a step's time and peak of memory, each in its own process.

The UNet and text encoder have the layout of Stable Diffusion 1.5 and random weights; `width=full` has its 860
million parameters and needs 15 GB for full fine-tuning, `width=half` (the default) a quarter of them. Latents
are small (`side`, 16), as only the ratio matters here: at 64 activations weigh more, and the ratio shrinks.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.registry import Options, case
from genzoo.families.custom_diffusion.files.concept import ConceptDelta
from genzoo.families.custom_diffusion.files.weight_names import is_key_value
from genzoo.families.custom_diffusion.files.write_layouts import write_concept
from genzoo.families.custom_diffusion.training.losses import concept_loss
from genzoo.families.custom_diffusion.training.model import ConceptModel

MODES = ("crossattn_kv", "crossattn", "full")
CHANNELS = {"full": (320, 640, 1280, 1280), "half": (160, 320, 640, 640), "tiny": (32, 32, 64, 64)}
PAPER_MB, PAPER_COMPRESSED_MB = 75.0, 15.0
# of 32 matrices with 768 columns: the rank at which two factors in float32 weigh about the paper's 15 MB
RANK = 75


def build(width: str) -> ConceptModel:
    """The parts of Stable Diffusion 1.5 but for its autoencoder, with random weights."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from genzoo.pretrained.clip_vocabulary import clip_tokenizer
    from genzoo.pretrained.text_to_image import TextToImageParts

    text_width = 96 if width == "tiny" else 768
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=CHANNELS[width],
        cross_attention_dim=text_width,
        attention_head_dim=8,
    )
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=text_width,
        intermediate_size=4 * text_width,
        num_hidden_layers=2 if width == "tiny" else 12,
        num_attention_heads=text_width // 8 if width == "tiny" else 12,
        bos_token_id=49406,
        eos_token_id=49407,
        pad_token_id=49407,
    )
    parts = TextToImageParts(
        unet=unet,
        tokenizers=(clip_tokenizer(),),
        text_encoders=(CLIPTextModel(config),),
        vae=None,
        scheduler={},
        source="random",
    )
    return ConceptModel(parts, modifier_tokens=["<new1>"], phrases=["<new1> cat"])


def measure_step(mode: str, width: str, side: int, steps: int) -> dict[str, Any]:
    """Seconds of each step and the peak of memory, of this process; run once and alone in it."""
    model = build(width)
    base = {name: p.detach().clone() for name, p in model.unet.named_parameters() if is_key_value(name)}
    for name, parameter in model.named_parameters():
        if name.startswith("unet.") and (mode == "full" or (mode == "crossattn" and ".attn2." in name)):
            parameter.requires_grad_(True)
    moving = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=8e-5, weight_decay=1e-2, fused=True)
    generator = torch.Generator().manual_seed(0)
    x_t, target = (torch.randn(2, 4, side, side, generator=generator) for _ in range(2))
    ids = model.token_ids(["photo of a <new1> cat"])
    with torch.no_grad():
        known = model.parts.encode_prompts(["cat"]).hidden
    seconds = []
    for _ in range(steps + 1):
        started = time.perf_counter()
        loss = step_loss(model, x_t, target, ids, known)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
    if not bool(torch.isfinite(loss)):
        raise SystemExit("the loss is not finite; no timing")
    found = {
        "seconds": seconds[1:],
        "peak_mb": peak_mb(),
        "trained_millions": sum(p.numel() for p in moving) / 1e6,
        "total_millions": sum(p.numel() for p in model.unet.parameters()) / 1e6,
    }
    return found | (file_sizes(model, base) if mode == "crossattn_kv" else {})


def step_loss(model: ConceptModel, x_t: Tensor, target: Tensor, ids: Tensor, known: Tensor) -> Tensor:
    """One picture of the concept, one of its class."""
    output = model(x_t, torch.tensor([300, 700]), ids, known)
    return concept_loss(output, target, torch.ones_like(x_t[:, :1]), num_instances=1)[0]


def file_sizes(model: ConceptModel, base: dict[str, Tensor]) -> dict[str, float]:
    """Megabytes of the concept's file: whole, 16-bit, of a fixed rank, and of the official share."""
    delta = model.delta()
    small = {"rank": delta.compressed(base, rank=RANK), "share": delta.compressed(base, keep=0.6)}
    return {
        "file_mb": megabytes(delta),
        "half_mb": megabytes(delta, dtype=torch.float16),
        f"rank_{RANK}_mb": megabytes(small["rank"]),
        "share_0.6_mb": megabytes(small["share"]),
        "paper_mb": PAPER_MB,
        "paper_compressed_mb": PAPER_COMPRESSED_MB,
    }


def megabytes(delta: ConceptDelta, dtype: torch.dtype | None = None) -> float:
    """Of the file on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_concept(delta, Path(folder) / "concept.safetensors", dtype=dtype)
        return path.stat().st_size / 1e6


def peak_mb() -> float:
    """Largest resident memory of this process so far."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def fresh(mode: str, width: str, side: int, steps: int) -> dict[str, Any]:
    """`measure_step` in a process of its own."""
    code = (
        f"import json, torch; torch.set_num_threads({torch.get_num_threads()}); "
        f"from benchmarks.cases.concept_training import measure_step; "
        f"print(json.dumps(measure_step({mode!r}, {width!r}, {side}, {steps})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@case("concept_training")
def run(options: Options) -> list[dict[str, Any]]:
    """crossattn_kv beside full fine-tuning: step time, peak memory, file size; width=half|full, side=16."""
    width, side = options.settings.get("width", "half"), int(options.settings.get("side", "16"))
    modes = options.settings.get("modes", ",".join(MODES)).split(",")
    rounds: list[dict[str, dict[str, Any]]] = []
    for _ in range(max(1, options.repeats // 2)):
        rounds.append({mode: fresh(mode, width, side, 2) for mode in modes})
    rows = []
    for mode in modes:
        own = [one[mode] for one in rounds]
        row = {"name": f"{mode}, width {width}, latents {side} x {side}", **own[0]}
        row["ms"] = {mode: spread([1e3 * s for one in own for s in one["seconds"]])}
        row["peak_mb"] = max(one["peak_mb"] for one in own)
        if "full" in modes:
            slower = [
                statistics.median(one["full"]["seconds"]) / statistics.median(one[mode]["seconds"])
                for one in rounds
            ]
            row["times_slower"] = {"full": spread(slower)}
            row["full_memory_ratio"] = rounds[0]["full"]["peak_mb"] / rounds[0][mode]["peak_mb"]
        del row["seconds"]
        rows.append(row)
    return rows


def spread(values: list[float]) -> dict[str, float]:
    """Median and extremes."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
