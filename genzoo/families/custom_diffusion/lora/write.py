"""LoRA changes as files: kohya's layout, which every program reads, PEFT's folder, a whole base."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from genzoo.core import files
from genzoo.core.errors import UsageError
from genzoo.core.tensor_layout import tensor_bytes
from genzoo.families.custom_diffusion.files.copied_base import base_folder, copy_base
from genzoo.families.custom_diffusion.files.kohya import base_kind, kohya_bytes
from genzoo.families.custom_diffusion.lora.changes import Change, LoraFile
from genzoo.families.custom_diffusion.lora.names import ENCODERS, PARTS, Shape, canonical, kohya_name


def kohya_lora_bytes(
    lora: LoraFile, modules: Mapping[str, Shape], *, name: str, base: str | None = None
) -> bytes:
    """A file for A1111, Forge, ComfyUI, InvokeAI and sd-scripts.   modules: of the base."""
    sdxl = any(module.startswith("text_encoder_2.") for module in modules)
    widths = [s[1] for m, s in modules.items() if m.endswith(("attn2.to_k", "attn2.to_v"))]
    tensors: dict[str, Tensor] = {}
    for module, change in lora.changes.items():
        layer, (up, down) = kohya_name(module, two_encoders=sdxl), _factors(change)
        shape = modules[module]
        tensors[f"{layer}.lora_down.weight"] = down.reshape(*down.shape, *shape[2:])
        tensors[f"{layer}.lora_up.weight"] = up.reshape(*up.shape, *shape[2:])
    kind = base_kind(widths[0] if widths else 0, base, sdxl=sdxl)
    return kohya_bytes(tensors, kind=kind, name=name, trigger=lora.trigger)


def diffusers_lora_bytes(changes: Mapping[str, Change]) -> bytes:
    """PEFT's names below the part of the pipeline, without alpha: for `pipeline.load_lora_weights`."""
    tensors = {}
    for module, change in changes.items():
        up, down = _factors(change)
        layer = module if module.startswith(ENCODERS) else f"transformer.{module}"
        tensors[f"{layer}.lora_A.weight"], tensors[f"{layer}.lora_B.weight"] = down, up
    return tensor_bytes(tensors, {"format": "pt"})


def peft_files(changes: Mapping[str, Change]) -> dict[str, bytes]:
    """adapter_config.json and adapter_model.safetensors, for PeftModel.from_pretrained(module, folder).

    Full names of modules: a short one would match whole blocks. alpha equals the rank everywhere: scale 1.
    """
    tensors, ranks = {}, {}
    for module, change in changes.items():
        up, down = _factors(change)
        tensors[f"base_model.model.{module}.lora_A.weight"] = down
        tensors[f"base_model.model.{module}.lora_B.weight"] = up
        ranks[module] = down.shape[0]
    common = max(set(ranks.values()), key=list(ranks.values()).count)
    others = {module: rank for module, rank in ranks.items() if rank != common}
    config = {
        "peft_type": "LORA",
        "r": common,
        "lora_alpha": common,
        "target_modules": sorted(changes),
        "rank_pattern": others,
        "alpha_pattern": others,
    }
    return {
        "adapter_config.json": (json.dumps(config, indent=2) + "\n").encode(),
        "adapter_model.safetensors": tensor_bytes(tensors, {"format": "pt"}),
    }


def check_base_output(output: str | Path | None, base: str | Path) -> None:
    """Before any work: whether a base with the merge in it can be written. Raises UsageError."""
    if output is not None and Path(output).suffix == ".safetensors":
        raise UsageError(f"{output} is one file, and a whole base is a folder", fix="name a new folder")
    base_folder(base)


def write_merged_base(
    lora: LoraFile, base: str | Path, output: str | Path, reports: Mapping[str, str]
) -> Path:
    """A copy of the base whose weights are W + D, rounded to the dtype of W."""
    source = base_folder(base)
    weight_files = [path for part in PARTS for path in sorted((source / part).glob("*.safetensors"))]

    def change(path: Path, name: str, W: Tensor) -> Tensor:
        module = canonical(path.parent.name, name.removesuffix(".weight"))
        if not name.endswith(".weight") or module not in lora.changes:
            return W
        return (W.double() + lora.changes[module].delta.reshape(W.shape)).to(W.dtype)

    def fill(target: Path) -> None:
        copy_base(source, target, weight_files, change)
        for name, text in reports.items():
            files.put_file(target / name, text, sync=False)

    return files.write_folder(Path(output), fill)


def _factors(change: Change) -> tuple[Tensor, Tensor]:
    assert change.up is not None
    assert change.down is not None
    return change.up.float().contiguous(), change.down.float().contiguous()
