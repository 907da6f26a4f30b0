"""Where weights lie in released files and training states, and which arguments their tensors tell."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.autoregression.scales import block_causal_bias, scale_of_token
from genzoo.core.errors import CheckpointError, WeightsError
from genzoo.families.car.vqvae.model import PATCH_NUMS
from genzoo.pretrained.fitting import check_against, spec_of
from genzoo.pretrained.state_dicts import Part, find_part

BRANCH = "car_"
DERIVED = ("lvl_1L", "attn_bias_for_masking", "zero_k_bias", "norm_grouping")
VAR_SIGNATURE = {
    "pos_start",
    "pos_1LC",
    "word_embed.weight",
    "class_emb.weight",
    "lvl_embed.weight",
    "head.weight",
}
TEMPERATURES = "blocks.0.attn.scale_mul_1H11"
BRANCH_SIGNATURE = {"car_var_conv.weight", "car_var_conv.bias"}
VQVAE_SIGNATURE = {"encoder.conv_in.weight", "decoder.conv_out.weight", "quantize.embedding.weight"}


def find_branch(tree: Mapping[str, Any]) -> Part | None:
    """The dict that holds a control branch, with or without its base."""
    return find_part(tree, BRANCH_SIGNATURE)


def find_var(tree: Mapping[str, Any]) -> Part | None:
    """The dict that holds a VAR, with or without a control branch."""
    return find_part(tree, VAR_SIGNATURE)


def find_vqvae(tree: Mapping[str, Any]) -> Part | None:
    """The dict that holds a VQVAE."""
    return find_part(tree, VQVAE_SIGNATURE)


def require(entry: Part | None, tree: Mapping[str, Any], what: str) -> Part:
    """The entry, or a WeightsError that says what the file holds instead."""
    if entry is None:
        shown = ", ".join(list(tree)[:4]) or "nothing"
        raise WeightsError(f"these are no {what} weights", why=f"the file holds {shown}")
    return entry


def without_branch(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The base's tensors."""
    return {name: value for name, value in weights.items() if not name.startswith(BRANCH)}


def without_discriminator(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A VQVAE's tensors without those of the discriminator that trained beside it."""
    return {name: value for name, value in weights.items() if not name.startswith("discriminator.")}


def branch_of(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The control branch's tensors."""
    return {name: value for name, value in weights.items() if name.startswith(BRANCH)}


def var_arguments(weights: Mapping[str, Tensor], **known: Any) -> dict[str, Any]:
    """The arguments of VAR, read from shapes; `known` settles what they hide (num_heads, drop_path)."""
    hidden_size, in_channels = weights["word_embed.weight"].shape
    depth = 1 + max(_numbers(weights, r"blocks\.(\d+)\."), default=-1)
    fc1 = weights.get("blocks.0.ffn.fc1.weight")
    if depth == 0 or fc1 is None:
        raise CheckpointError("the transformer's blocks are missing", fix="fetch the file again")
    inferred = {
        "depth": depth,
        "hidden_size": hidden_size,
        "num_heads": known.get("num_heads") or _num_heads(weights),
        "patch_nums": known.get("patch_nums") or patch_nums_of(weights),
        "num_classes": len(weights["class_emb.weight"]) - 1,
        "in_channels": in_channels,
        "codebook_size": len(weights["head.weight"]),
        "mlp_ratio": len(fc1) / hidden_size,
        "drop_path": round(0.1 * depth / 24, 6),
        "attn_l2_norm": tells_heads(weights),
        "shared_adaln": "blocks.0.ada_gss" in weights,
    }
    return inferred | known


def tells_heads(weights: Mapping[str, Tensor]) -> bool:
    """Whether there is a temperature a head, which only normalised attention has."""
    return TEMPERATURES in weights


def _num_heads(weights: Mapping[str, Tensor]) -> int:
    if not tells_heads(weights):
        raise WeightsError(
            "the file does not tell the number of heads",
            why="its attention does not normalise queries and keys, so each number fits the tensors",
            fix="pass num_heads: genzoo convert FILE OUT --argument num_heads=16",
        )
    return weights[TEMPERATURES].shape[1]


def patch_nums_of(weights: Mapping[str, Tensor]) -> list[int]:
    """Sides of the maps, from the scale index of every token; known lengths serve where that is left out."""
    index = weights.get("lvl_1L")
    if index is not None and not index.is_meta:
        counts = index.flatten().bincount().tolist()
    elif weights["pos_1LC"].shape[1] == sum(side**2 for side in PATCH_NUMS):
        counts = [side**2 for side in PATCH_NUMS]
    else:
        raise WeightsError("the file does not tell its scales", why="it has no lvl_1L", fix="pass patch_nums")
    if any(math.isqrt(count) ** 2 != count for count in counts):
        raise WeightsError(
            "the file does not tell the shapes of its maps",
            why=f"they have {counts} tokens, which are no squares",
            fix="pass patch_nums, height and width of each",
        )
    return [math.isqrt(count) for count in counts]


def branch_arguments(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of CAR that its branch tells: what F, T and G are, and the control encoder's channels."""
    found: dict[str, Any] = {
        "fusion": "conv" if "car_control_convs.conv_in.weight" in weights else "vqvae_encoder",
        "control_network": "conv" if "car_conv_blocks.0.conv1.weight" in weights else "transformer",
        "injection": _injection(weights),
        "init_from_base": False,
    }
    if found["fusion"] == "conv":
        shapes = [weights[f"car_control_convs.blocks.{i}.weight"].shape
                  for i in sorted(set(_numbers(weights, r"car_control_convs\.blocks\.(\d+)\.")))]  # fmt: skip
        first = weights["car_control_convs.conv_in.weight"].shape[0]
        found["control_channels"] = [first, *(shape[0] for shape in shapes[1::2])]
    return found


def vqvae_arguments(weights: Mapping[str, Tensor], **known: Any) -> dict[str, Any]:
    """The arguments of VQVAE; patch_nums is needed unless there are the released ten scales."""
    ch = weights["encoder.conv_in.weight"].shape[0]
    levels = 1 + max(_numbers(weights, r"encoder\.down\.(\d+)\."))
    blocks = 1 + max(_numbers(weights, r"encoder\.down\.0\.block\.(\d+)\."))
    widths = [weights[f"encoder.down.{i}.block.0.conv1.weight"].shape[0] for i in range(levels)]
    codebook_size, z_channels = weights["quantize.embedding.weight"].shape
    phis = "quantize.quant_resi."
    shared = 1 + max(_numbers(weights, rf"{re.escape(phis)}qresi_ls\.(\d+)\."), default=-1)
    has_phi = any(name.startswith(phis) for name in weights)
    inferred = {
        "codebook_size": codebook_size,
        "z_channels": z_channels,
        "ch": ch,
        "ch_mult": [width // ch for width in widths],
        "num_res_blocks": blocks,
        "patch_nums": known.get("patch_nums") or _released_scales(weights),
        "quant_resi": 0.5 if has_phi else 0.0,
        **_grouping(weights),
        "share_quant_resi": shared or (1 if f"{phis}qresi.weight" in weights else 0),
    }
    return inferred | known


def check(model: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """The weights, if they are those of the model; floating precision is kept. Raises CheckpointError.

    Buffers that follow from the arguments may be missing, and must be the model's own where they are given.
    model: looked at for names and shapes only, so it may be on the meta device.
    """
    derived = {
        name: value for name in model.state_dict() if (value := derived_value(model, name)) is not None
    }
    for name in derived.keys() & weights.keys():
        _require_derived(name, weights[name], derived[name], source)
    spec = {name: kind for name, kind in spec_of(model).items() if name not in derived}
    learned = {name: value for name, value in weights.items() if name not in derived}
    floating = {name: value.dtype for name, value in learned.items() if value.is_floating_point()}
    kept = {name: (shape, floating.get(name, dtype)) for name, (shape, dtype) in spec.items()}
    whole = derived | check_against(kept, learned, source=source)
    return {name: whole[name].detach().contiguous() for name in model.state_dict()}


def derived_value(model: nn.Module, name: str) -> Tensor | None:
    """A buffer that follows from the model's arguments; None for everything that is learned."""
    owner, _, buffer = name.rpartition(".")
    if buffer not in DERIVED:
        return None
    module = model.get_submodule(owner)
    if buffer == "zero_k_bias":
        return torch.zeros(module.get_buffer(buffer).shape)
    if buffer == "norm_grouping":
        arguments: Any = module.arguments
        return torch.tensor([arguments["norm_groups"], arguments["group_channels"]])
    sides: Any = module.patch_nums
    return scale_of_token(sides)[None] if buffer == "lvl_1L" else block_causal_bias(sides)[None, None]


def _require_derived(name: str, given: Tensor, own: Tensor, source: str) -> None:
    fits = given.shape == own.shape
    if fits and not (given.is_meta or own.is_meta):
        fits = torch.equal(given.to(own.dtype), own)
    if not fits:
        raise CheckpointError(
            f"{source} do not fit: {name} is not what the model's arguments make it",
            why=f"it is {tuple(given.shape)}, and should be {tuple(own.shape)}",
            fix="take a model of the file's depth, width and patch_nums, or fetch the file again",
        )


def _injection(weights: Mapping[str, Tensor]) -> str:
    if "car_skip_linear.0.weight" in weights:
        return "concat_ln_linear"
    return "zero_conv_add" if "car_zero_linear.0.weight" in weights else "cross_norm_add"


def _grouping(weights: Mapping[str, Tensor]) -> dict[str, int]:
    """How channels are grouped in norms, from a file that tells; released files have 32 groups."""
    told = weights.get("norm_grouping")
    if told is None or told.is_meta:
        return {}
    return dict(zip(("norm_groups", "group_channels"), told.tolist(), strict=True))


def _released_scales(weights: Mapping[str, Tensor]) -> list[int]:
    hits = weights.get("quantize.ema_vocab_hit_SV")
    if hits is not None and len(hits) != len(PATCH_NUMS):
        raise WeightsError(
            f"the VQVAE has {len(hits)} scales, but its file does not tell their sizes", fix="pass patch_nums"
        )
    return list(PATCH_NUMS)


def _numbers(weights: Mapping[str, Tensor], pattern: str) -> list[int]:
    return [int(match[1]) for name in weights if (match := re.match(pattern, name))]
