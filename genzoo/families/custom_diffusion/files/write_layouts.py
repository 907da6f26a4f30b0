"""Concepts as files for other programs. Each writer returns what it wrote; folders and files appear whole.

| layout | what | loads in |
|---|---|---|
| genzoo | one safetensors file with full metadata | genzoo |
| official | delta.bin of the official diffusers scripts | those scripts |
| compvis | delta.ckpt of the official original scripts | those scripts (SD 1 and 2) |
| diffusers | attention processors (.bin) and a file per token | diffusers |
| lora | pytorch_lora_weights.safetensors and a textual inversion per token | diffusers with peft |
| kohya | one LoRA file in kohya's naming and an embedding per token | A1111, Forge, ComfyUI, sd-scripts |

Of bases with a transformer genzoo and lora alone, see `transformer_clients`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genzoo.core.claims import is_name
from genzoo.core.errors import UsageError, WeightsError, did_you_mean
from genzoo.core.files import write_file, write_folder
from genzoo.core.tensor_layout import tensor_bytes
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.families.custom_diffusion.files.concept import ConceptDelta, concept_bytes
from genzoo.families.custom_diffusion.files.kohya import base_kind, kohya_bytes
from genzoo.families.custom_diffusion.files.transformer_clients import transformer_layout
from genzoo.families.custom_diffusion.files.weight_names import (
    COMPVIS_PREFIX,
    is_key_value,
    to_compvis,
    to_kohya,
    to_processor,
)
from genzoo.families.custom_diffusion.merge.low_rank import exact_factors

OWN_FOLDER_FILE = "concept.safetensors"
Weights = Mapping[str, Tensor]
Files = dict[str, bytes]


def write_concept(
    delta: ConceptDelta,
    path: str | Path,
    *,
    layout: str = "genzoo",
    base: Weights | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write one of LAYOUTS. path: a file for genzoo, official and compvis, a new folder for the others.

    base: the base model's cross-attention weights by name; needed for lora and kohya, which store
    differences, and for layouts without compression when the concept is compressed.   dtype: genzoo only.
    """
    path = Path(path)
    if layout == "genzoo":
        return write_new_file(path, concept_bytes(delta, dtype=dtype))
    if layout not in LAYOUTS:
        raise UsageError(
            f"there is no layout {layout!r}",
            fix=did_you_mean(layout, LAYOUTS) or f"one of {', '.join(LAYOUTS)}",
        )
    of_unet = delta.part == "unet"
    files = LAYOUTS[layout](delta, base) if of_unet else transformer_layout(delta, base, layout)
    if len(files) == 1 and layout in ("official", "compvis"):
        return write_new_file(path, next(iter(files.values())))
    return write_folder(path, files)


def write_new_file(path: Path, content: bytes) -> Path:
    """The whole file or none, where there is none yet."""
    if path.exists():
        raise UsageError(f"{path} exists already", fix="name another output, or remove it")
    return write_file(path, content)


def official_files(delta: ConceptDelta, base: Weights | None) -> Files:
    """{"unet": ..., "modifier_token": ...}; SDXL has a list of rows per token."""
    tokens = {
        token: rows[0].clone() if len(rows) == 1 else [row.clone() for row in rows]
        for token, rows in delta.tokens.items()
    }
    return {
        "delta.bin": _pickled({"unet": _with_factors(delta, lambda name: name), "modifier_token": tokens})
    }


def compvis_files(delta: ConceptDelta, base: Weights | None) -> Files:
    """{"state_dict": {"model.diffusion_model...": ..., "embed": (n_new, d)}}."""
    if any(len(rows) != 1 for rows in delta.tokens.values()):
        raise WeightsError("the original layout knows one text encoder", fix="use the layout official")
    state = _with_factors(delta, to_compvis)
    if delta.tokens:
        state["embed"] = torch.stack([rows[0] for rows in delta.tokens.values()])
    assert all(name.startswith(COMPVIS_PREFIX) or name == "embed" for name in state)
    return {"delta.ckpt": _pickled({"state_dict": state})}


def processor_files(delta: ConceptDelta, base: Weights | None) -> Files:
    """Attention processors with the empty entries of self-attention that diffusers' loader counts."""
    full = _expanded(delta, base, "diffusers")
    entries: dict[str, Any] = {to_processor(name): weight.float() for name, weight in full.weights.items()}
    for name in full.weights:
        entries[f"{name.partition('.attn2.')[0]}.attn1.processor"] = {}
    files = {"pytorch_custom_diffusion_weights.bin": _pickled(entries)}
    tokens = {token: _pickled({token: _only(rows)}) for token, rows in full.tokens.items()}
    return _with_tokens(files, tokens, ".bin")


def lora_files(delta: ConceptDelta, base: Weights | None) -> Files:
    """LoRA in diffusers' own names, of the rank that loses nothing, and textual inversions."""
    tensors: dict[str, Tensor] = {}
    for name, (u, v) in _changes(delta, base, "lora").items():
        layer = f"unet.{name.removesuffix('.weight')}"
        tensors |= {f"{layer}.lora_A.weight": v, f"{layer}.lora_B.weight": u}
    files = {"pytorch_lora_weights.safetensors": tensor_bytes(tensors, {"format": "pt"})}
    return _with_tokens(files, _inversions(delta, ""), ".safetensors")


def kohya_files(delta: ConceptDelta, base: Weights | None, *, name: str = "lora") -> Files:
    """lora_unet_..._attn2_to_k.lora_down.weight and so on.

    There is no alpha: every reader then takes the scale 1, while diffusers confuses alphas when ranks differ.
    name: what web interfaces show it as.
    """
    tensors: dict[str, Tensor] = {}
    for weight, (u, v) in _changes(delta, base, "kohya").items():
        layer = to_kohya(weight)
        tensors |= {f"{layer}.lora_down.weight": v, f"{layer}.lora_up.weight": u}
    sdxl = any(len(rows) == 2 for rows in delta.tokens.values())
    kind = base_kind(delta.width, base.base if isinstance(base, BaseWeights) else None, sdxl=sdxl)
    content = kohya_bytes(tensors, kind=kind, name=name, trigger=" | ".join(delta.phrases) or None)
    # web interfaces use the file's name as the word, where < and > are no letters
    return _with_tokens({"lora.safetensors": content}, _inversions(delta, "emb_params"), ".safetensors", "<>")


LAYOUTS: dict[str, Callable[[ConceptDelta, Weights | None], Files]] = {
    "genzoo": lambda delta, base: {"concept.safetensors": concept_bytes(delta)},
    "official": official_files,
    "compvis": compvis_files,
    "diffusers": processor_files,
    "lora": lora_files,
    "kohya": kohya_files,
}


def _inversions(delta: ConceptDelta, single_key: str) -> Files:
    """One textual inversion per token: {token: (d,)}, {single_key: (1, d)}, or SDXL's clip_l and clip_g."""
    files = {}
    for token, rows in delta.tokens.items():
        names = ("clip_l", "clip_g") if len(rows) == 2 else (single_key or token,)
        as_table = len(rows) == 2 or bool(single_key)
        values = {
            name: (row[None] if as_table else row).float().contiguous().clone()
            for name, row in zip(names, rows, strict=True)
        }
        files[token] = tensor_bytes(values, {})
    return files


def _with_tokens(files: Files, tokens: Files, suffix: str, without: str = "") -> Files:
    """Files with one for each token beside them, named after it. Raises UsageError for a name that is taken.

    without: letters that its ends lose in the name.
    """
    taken = {name.lower(): "the weights" for name in files}  # some disks know no capitals
    found = dict(files)
    for token, content in tokens.items():
        name = f"{token.strip(without) if without else token}{suffix}"
        if name.lower() in taken or not is_name(name):
            raise UsageError(
                f"the token {token!r} cannot be a file of this layout",
                why=f"{name} is the file of {taken[name.lower()]}"
                if name.lower() in taken
                else f"{name!r} is no file's name",
                fix="teach it under another word, or write the layout genzoo",
            )
        taken[name.lower()], found[name] = repr(token), content
    return found


def _changes(delta: ConceptDelta, base: Weights | None, layout: str) -> dict[str, tuple[Tensor, Tensor]]:
    """u, v of every key and value projection; other weights cannot be left out silently."""
    if delta.freeze_mode != "crossattn_kv" and any(name.endswith("bias") for name in delta.weights):
        raise WeightsError(
            "LoRA has no place for the trained biases of attn2.to_out",
            fix="write the layout diffusers or genzoo, or train with freeze_mode crossattn_kv",
        )
    if base is None:
        raise UsageError(f"the layout {layout} stores differences", fix="pass the base model's weights")
    full = delta.expanded(base)
    missing = [name for name in full.weights if name not in base]
    if missing:
        raise WeightsError(f"the base has no {missing[0]}", fix="pass the base the concept was trained from")
    return {name: exact_factors(w.double() - base[name].double()) for name, w in full.weights.items()}


def _expanded(delta: ConceptDelta, base: Weights | None, layout: str) -> ConceptDelta:
    if delta.factors and base is None:
        raise UsageError(
            f"the concept is compressed and the layout {layout} is not", fix="pass the base model's weights"
        )
    return delta.expanded(base or {})


def _with_factors(delta: ConceptDelta, rename: Callable[[str], str]) -> dict[str, Any]:
    full = {rename(name): weight.clone() for name, weight in delta.weights.items()}
    small = {rename(name): {"u": u.clone(), "v": v.clone()} for name, (u, v) in delta.factors.items()}
    assert all(is_key_value(name) for name in delta.factors)
    return {**full, **small}


def _only(rows: Any) -> Tensor:
    if len(rows) != 1:
        raise WeightsError(
            "diffusers' token files hold one text encoder", fix="use the layout lora, official or genzoo"
        )
    return rows[0].clone()


def _pickled(tree: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    return buffer.getvalue()
