"""One reader for every layout of LoRA files; what it cannot represent exactly is refused by name.

| layout | keys | scale |
|---|---|---|
| peft | unet.M.lora_A.weight, .lora_B.weight; text_encoder., text_encoder_2., transformer. | metadata, or 1 |
| peft folder | base_model.model.M.lora_A.weight beside adapter_config.json | alpha / rank |
| diffusers | unet.M.lora.down.weight, .lora.up.weight | 1 |
| processors | [unet.]B.attnN.processor.to_k_lora.down.weight | 1 |
| kohya | lora_unet_M.lora_down.weight, .lora_up.weight, .alpha; lora_te_, lora_te1_, lora_te2_ | alpha /
rank, or 1 | | loha, lokr | lora_unet_M.hada_w1_a ..., .lokr_w1 ... | alpha / rank |
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genzoo.core.errors import CheckpointError, NonFiniteError, WeightsError
from genzoo.core.reading import read_json
from genzoo.core.tensor_files import look
from genzoo.families.custom_diffusion.lora.changes import Change, LoraFile
from genzoo.families.custom_diffusion.lora.names import Shape, dotted_module, kohya_table
from genzoo.pretrained.loading import load_foreign

# what a key ends with, the part it is, and the layout that writes it so
ENDINGS = (
    (".lora_A.weight", "down", "peft"),
    (".lora_B.weight", "up", "peft"),
    (".lora_A.default.weight", "down", "peft"),
    (".lora_B.default.weight", "up", "peft"),
    (".lora.down.weight", "down", "diffusers"),
    (".lora.up.weight", "up", "diffusers"),
    (".lora_linear_layer.down.weight", "down", "diffusers"),
    (".lora_linear_layer.up.weight", "up", "diffusers"),
    (".lora_down.weight", "down", "kohya"),
    (".lora_up.weight", "up", "kohya"),
    ("_lora.down.weight", "down", "processors"),
    ("_lora.up.weight", "up", "processors"),
    (".alpha", "alpha", ""),
)
LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
FACTORS = (*LOHA, "lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")
REFUSED = {
    r"dora_scale|lora_magnitude_vector": "DoRA: its change depends on the norms of the base's columns",
    r"lora_mid": "a convolution in CP form",
    r"hada_t[12]|lokr_t2": "a convolution in Tucker form",
    r"\b[ab][12]\.weight": "GLoRA",
    r"diff|diff_b": "whole differences of weights",
    r"[wb]_norm": "changed norms",
    r"oft_\w+|boft\w*": "OFT",
    r"on_input": "IA3",
    r"set_weight": "replaced weights",
}
CONFIG, FOLDER_FILES = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")


def is_lora(path: str | Path) -> bool:
    """Whether a file or folder is a LoRA of some layout; nothing but names is looked at."""
    path = Path(path)
    if path.is_dir():
        return (path / CONFIG).is_file()
    if not path.is_file():
        return False
    names: list[str] = look(path, lambda file: list(file.keys())) or []
    return any(_part(name)[1] != "" or name.startswith("lora_unet_") for name in names)


def read_lora(path: str | Path, modules: Mapping[str, Shape]) -> LoraFile:
    """The changes that a file makes to a base's modules, see `names.base_modules`.

    path: a file, or PEFT's folder. Raises CheckpointError, WeightsError naming the file.
    """
    path = Path(path)
    file, config = path, None
    if path.is_dir():
        file, config = _folder(path)
    tensors, metadata = load_foreign(file), _metadata(file)
    scales = _Scales(config, metadata)
    where = str(path)
    groups, layouts = _grouped(tensors, modules, where)
    changes = {}
    for module, parts in groups.items():
        change = _change(module, parts, scales, where)
        _check_fits(module, change, modules[module], where)
        if not change.is_finite:
            raise NonFiniteError(f"{module} of {path.name} has NaN or infinite entries", fix="train it again")
        changes[module] = change
    trigger = metadata.get("modelspec.trigger_phrase")
    return LoraFile(changes, "peft folder" if config is not None else layouts, path, trigger)


def _folder(folder: Path) -> tuple[Path, dict[str, Any]]:
    found = [folder / name for name in FOLDER_FILES if (folder / name).is_file()]
    if not found or not (folder / CONFIG).is_file():
        raise WeightsError(f"the folder has no {CONFIG} beside {FOLDER_FILES[0]}", where=str(folder))
    config = read_json(folder / CONFIG, CONFIG, error=CheckpointError)
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise CheckpointError("the adapter is no LoRA", where=str(folder), why=f"{CONFIG}: peft_type")
    return found[0], config


def _metadata(path: Path) -> dict[str, str]:
    return look(path, lambda file: dict(file.metadata() or {})) or {}


class _Scales:
    """alpha over rank as PEFT's config has it; None where the file says nothing."""

    def __init__(self, config: Mapping[str, Any] | None, metadata: Mapping[str, str]) -> None:
        self.configs: dict[str, Mapping[str, Any]] = {}
        if config is not None:
            self.configs[""] = config
        elif "lora_adapter_metadata" in metadata:
            for key, value in json.loads(metadata["lora_adapter_metadata"]).items():
                part, _, name = key.partition(".")
                self.configs.setdefault(part, {})
                self.configs[part] = {**self.configs[part], name: value}
        for one in self.configs.values():
            if one.get("use_dora"):
                raise CheckpointError("this is a DoRA", why="its change depends on the base's norms")

    def of(self, module: str, rank: int) -> float | None:
        part = module.partition(".")[0]
        names = (part,) if part.startswith("text_encoder") else ("", "unet", "transformer")
        config = next((self.configs[name] for name in names if name in self.configs), None)
        if config is None:
            return None
        alpha = config.get("lora_alpha", 8)
        for pattern, value in (config.get("alpha_pattern") or {}).items():
            if re.fullmatch(rf"(?:.*\.)?{pattern}", module.removeprefix(f"{part}.text_model.")):
                alpha = value
        return float(alpha) / (rank**0.5 if config.get("use_rslora") else rank)


def _part(key: str) -> tuple[str, str, str]:
    """Module, part and layout of a key; the part is empty for an unknown one."""
    for ending, part, layout in ENDINGS:
        if key.endswith(ending):
            return key.removesuffix(ending), part, layout
    module, _, last = key.rpartition(".")
    if last in FACTORS:
        return module, last, "loha" if last.startswith("hada") else "lokr"
    return key, "", ""


def _grouped(
    tensors: Mapping[str, Any], modules: Mapping[str, Shape], where: str
) -> tuple[dict[str, dict[str, Tensor]], str]:
    """Parts by module, and the layout. Raises for keys that mean something else, or belong to another
    base.
    """
    table = kohya_table(modules)
    groups: dict[str, dict[str, Tensor]] = {}
    layouts, absent, unknown = set(), [], []
    for key, value in tensors.items():
        for pattern, meaning in REFUSED.items():
            if re.search(rf"(?:^|\.)(?:{pattern})$", key):
                raise CheckpointError(f"{meaning} cannot be merged", where=where, why=f"the file holds {key}")
        named, part, layout = _part(key)
        if not part or not isinstance(value, Tensor):
            unknown.append(key)
            continue
        module = table.get(named) if named.startswith("lora_") else dotted_module(named)
        if module is None or module not in modules:
            absent.append(named)
            continue
        layouts.add(layout)
        groups.setdefault(module, {})[part] = value
    if unknown:
        raise CheckpointError(
            "the file holds more than a LoRA", where=where, why=f"such as {', '.join(unknown[:3])}"
        )
    if absent or not groups:
        raise WeightsError(
            "the base has none of its modules" if not groups else f"the base has no {absent[0]}",
            where=where,
            why=f"{len(set(absent))} of its modules are not in the base, such as {', '.join(absent[:3])}",
            fix="use the base model that the LoRA was trained from",
        )
    return groups, " and ".join(sorted(layouts - {""}))


def _change(module: str, parts: Mapping[str, Tensor], scales: _Scales, where: str) -> Change:
    alpha = float(parts["alpha"]) if "alpha" in parts else None
    if alpha == 0:
        raise CheckpointError(
            f"alpha of {module} is 0", where=where, why="some programs read it as 1 and others as no change"
        )
    if any(part.startswith("hada") for part in parts):
        return _loha(module, parts, alpha, where)
    if any(part.startswith("lokr") for part in parts):
        return _lokr(module, parts, alpha, where)
    _needs(module, parts, ("down", "up"), where)
    up, down = _flat(module, parts["up"], where), _flat(module, parts["down"], where)
    rank = down.shape[0]
    if rank == 0 or up.shape[1] != rank:
        raise CheckpointError(
            f"the ranks of {module} are {rank} and {up.shape[1]}", where=where, fix="a file that is whole"
        )
    scale = alpha / rank if alpha is not None else scales.of(module, rank)
    return Change(up.float() * (1.0 if scale is None else scale), down.float())


def _loha(module: str, parts: Mapping[str, Tensor], alpha: float | None, where: str) -> Change:
    _needs(module, parts, LOHA, where)
    a, b, c, d = (parts[name].double() for name in LOHA)
    scale = 1.0 if alpha is None else alpha / b.shape[0]
    return Change(dense=(scale * (a @ b) * (c @ d)).float())


def _lokr(module: str, parts: Mapping[str, Tensor], alpha: float | None, where: str) -> Change:
    sides, rank = [], None
    for side in ("lokr_w1", "lokr_w2"):
        if side in parts:
            sides.append(parts[side].double())
            continue
        _needs(module, parts, (f"{side}_a", f"{side}_b"), where)
        sides.append(parts[f"{side}_a"].double() @ parts[f"{side}_b"].double())
        rank = parts[f"{side}_b"].shape[0]
    scale = 1.0 if alpha is None or rank is None else alpha / rank
    return Change(dense=(scale * torch.kron(*sides)).float())


def _needs(module: str, parts: Mapping[str, Tensor], names: tuple[str, ...], where: str) -> None:
    lacking = [name for name in names if name not in parts]
    if lacking:
        raise CheckpointError(
            f"{module} has half a pair: there is no {lacking[0]}", where=where, fix="a file that is whole"
        )


def _flat(module: str, value: Tensor, where: str) -> Tensor:
    if value.ndim == 4 and tuple(value.shape[2:]) != (1, 1):
        raise CheckpointError(
            f"{module} is a {value.shape[2]} x {value.shape[3]} convolution",
            where=where,
            why="only linear modules have a closed form here",
            fix="a LoRA of linear modules",
        )
    if value.ndim not in (2, 4):
        raise CheckpointError(f"a factor of {module} has {value.ndim} dimensions", where=where)
    return value.flatten(1)


def _check_fits(module: str, change: Change, shape: Shape, where: str) -> None:
    if len(shape) == 4 and shape[2:] != (1, 1):
        raise CheckpointError(
            f"{module} is a {shape[2]} x {shape[3]} convolution", where=where, fix="a LoRA of linear modules"
        )
    if change.shape != shape[:2]:
        out, width = change.shape
        raise WeightsError(
            f"down of {module} is {width} wide, the base {shape[1]}"
            if width != shape[1]
            else f"up of {module} gives {out}, the base {shape[0]}",
            where=where,
            fix="use the base model that the LoRA was trained from",
        )
