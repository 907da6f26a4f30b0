"""Names of cross-attention weights: ours are those of a diffusers UNet; others' are translated here."""

from __future__ import annotations

import re

from genzoo.core.errors import CheckpointError
from genzoo.pretrained.state_dicts import without_wrappers

KEY_VALUE = re.compile(r".*\battn2\.to_[kv]\.weight$")
CROSS_ATTENTION = re.compile(r".*\battn2\.to_(?:[kqv]\.weight|out\.0\.(?:weight|bias))$")
COMPVIS_PREFIX = "model.diffusion_model."
# where the names of a UNet begin, whatever wrappers stand before them
_UNET = re.compile(r"(?:^|.*\.)((?:down_blocks|up_blocks)\.\d+\..*|mid_block\..*)$")
_COMPVIS = re.compile(r"(?:^|.*\.)((?:input_blocks|output_blocks)\.\d+\..*|middle_block\..*)$")
PROCESSOR = re.compile(
    r"(?P<block>.*\battn2)\.processor\.to_(?P<what>[kqv]|out)_custom_diffusion\.(?P<end>.*)$"
)

_COMPVIS_BLOCK = re.compile(r"(?:(input|output)_blocks\.(\d+)|middle_block)\.1\.(.*)$")
_DIFFUSERS_BLOCK = re.compile(
    r"(?:(down|up)_blocks\.(\d+)\.attentions\.(\d+)|mid_block\.attentions\.0)\.(.*)$"
)
# of a UNet with two residual blocks a level, as Stable Diffusion 1 and 2 have
DOWN_STRIDE = UP_STRIDE = 3


def unet_name(name: str) -> str:
    """A name of a UNet's weight without what wrappers and whole pipelines put before it and inside."""
    plain = without_wrappers(name)
    match = _UNET.match(plain)
    return match[1] if match else plain


def is_of_unet(name: str) -> bool:
    """Whether a weight lies in a UNet, by its name, and not in a transformer."""
    return _UNET.match(name) is not None


def is_compvis(name: str) -> bool:
    """Whether a name is one of the original Stable Diffusion's, under any prefix."""
    return _COMPVIS.match(without_wrappers(name)) is not None


def is_key_value(name: str) -> bool:
    """Whether a weight is a key or value projection of cross-attention."""
    return KEY_VALUE.match(name) is not None


def is_cross_attention(name: str) -> bool:
    """Whether a weight belongs to cross-attention."""
    return CROSS_ATTENTION.match(name) is not None


def from_compvis(name: str) -> str:
    """model.diffusion_model.input_blocks.1.1.X -> down_blocks.0.attentions.0.X"""
    plain = _COMPVIS.match(without_wrappers(name))
    match = _COMPVIS_BLOCK.match(plain[1] if plain else name)
    if not match:
        raise CheckpointError(f"{name!r} is no cross-attention weight of a Stable Diffusion UNet")
    side, index, rest = match[1], int(match[2] or 0), match[3]
    if side == "input":
        return f"down_blocks.{(index - 1) // DOWN_STRIDE}.attentions.{(index - 1) % DOWN_STRIDE}.{rest}"
    if side == "output":
        return f"up_blocks.{index // UP_STRIDE}.attentions.{index % UP_STRIDE}.{rest}"
    return f"mid_block.attentions.0.{rest}"


def to_compvis(name: str) -> str:
    """down_blocks.0.attentions.0.X -> model.diffusion_model.input_blocks.1.1.X"""
    match = _DIFFUSERS_BLOCK.match(name)
    if not match:
        raise CheckpointError(f"{name!r} has no counterpart in the original layout of Stable Diffusion")
    side, rest = match[1], match[4]
    if side is None:
        return f"{COMPVIS_PREFIX}middle_block.1.{rest}"
    level, index = int(match[2]), int(match[3])
    if index >= (DOWN_STRIDE - 1 if side == "down" else UP_STRIDE):
        raise CheckpointError(f"{name!r}: Stable Diffusion 1 and 2 have no such block")
    number = level * DOWN_STRIDE + index + (side == "down")
    return f"{COMPVIS_PREFIX}{'input' if side == 'down' else 'output'}_blocks.{number}.1.{rest}"


def is_processor(name: str) -> bool:
    """Whether a weight is one of diffusers' attention processors."""
    return from_processor(name) is not None


def from_processor(name: str) -> str | None:
    """X.attn2.processor.to_k_custom_diffusion.weight -> X.attn2.to_k.weight; None for other names."""
    match = PROCESSOR.match(unet_name(name))
    return f"{match['block']}.to_{match['what']}.{match['end']}" if match else None


def to_processor(name: str) -> str:
    """X.attn2.to_out.0.bias -> X.attn2.processor.to_out_custom_diffusion.0.bias"""
    block, _, end = name.rpartition(".to_")
    what, _, end = end.partition(".")
    return f"{block}.processor.to_{what}_custom_diffusion.{end}"


def to_kohya(name: str) -> str:
    """down_blocks.0.attentions.0...attn2.to_k.weight -> lora_unet_down_blocks_0_..._attn2_to_k"""
    return "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
