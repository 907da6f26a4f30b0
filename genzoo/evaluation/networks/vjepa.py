"""V-JEPA ViT-H/16 with the pooler of its Something-Something probe, the features of JEDi (2410.05203).

Written from the published layout of the two files: an encoder of space-time patches, and one query that
attends to its tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import nn
from torch.nn.functional import interpolate, scaled_dot_product_attention

from genzoo.core.errors import DataError, WeightsError
from genzoo.evaluation.features import FeatureNetwork
from genzoo.evaluation.networks.preprocess import IMAGENET_MEAN, IMAGENET_STD
from genzoo.pretrained.known_weights import WeightsFile, file_sha256, find_weights
from genzoo.pretrained.loading import load_module, load_state

if TYPE_CHECKING:
    from torch import Tensor

_URL = "https://dl.fbaipublicfiles.com/jepa/vith16"
_LICENCE = "CC BY-NC 4.0 (Meta V-JEPA)"
ENCODER = WeightsFile(file="vith16.pth.tar", url=f"{_URL}/vith16.pth.tar", licence=_LICENCE)
PROBE = WeightsFile(file="ssv2-probe.pth.tar", url=f"{_URL}/ssv2-probe.pth.tar", licence=_LICENCE)
FRAMES, TUBELET, PATCH, HEADS = 16, 2, 16, 16


def build(weights: str | Path | None = None, device: str = "cpu") -> FeatureNetwork:
    """Output: pool (1,280) of clips uint8 (b, 3, 16, h, w).   weights: a folder with both files."""
    encoder_path, probe_path = find_weights(ENCODER, weights), find_weights(PROBE, _beside(weights))
    encoder, pooler = load_encoder(encoder_path).to(device), load_pooler(probe_path).to(device)
    side = encoder.side
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))

    @torch.inference_mode()
    def extract(clips: Tensor) -> dict[str, Tensor]:
        if clips.shape[2] != FRAMES:
            raise DataError(f"V-JEPA takes clips of {FRAMES} frames, these have {clips.shape[2]}")
        pixels = (resized(clips.to(device), side) - mean) / std
        return {"pool": pooler(encoder(pixels))}

    return FeatureNetwork(
        name="vjepa-vith16-ssv2",
        extract=extract,
        outputs=("pool",),
        preprocessing=f"frames bilinear (antialias) to {side} x {side}, to [0, 1], ImageNet mean and std",
        label="vjepa",
        weights_file=f"{encoder_path.name}, {probe_path.name}",
        weights_sha256=f"{file_sha256(encoder_path)}, {file_sha256(probe_path)}",
        is_video=True,
        own=("jedi",),
    )


def _beside(weights: str | Path | None) -> Path | None:
    if weights is None:
        return None
    return Path(weights) if Path(weights).is_dir() else Path(weights).parent


def resized(clips: Tensor, side: int) -> Tensor:
    """uint8 (b, 3, f, h, w) -> float32 in [0, 1], (b, 3, f, side, side)."""
    frames = rearrange(clips.float() / 255, "b c f h w -> (b f) c h w")
    frames = interpolate(frames, size=(side, side), mode="bilinear", antialias=True).clamp(0, 1)
    return rearrange(frames, "(b f) c h w -> b c f h w", b=len(clips))


class Attention(nn.Module):
    """Self-attention with one matrix for queries, keys and values."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(b, l, d) -> (b, l, d)."""
        q, k, v = rearrange(self.qkv(tokens), "b l (three h d) -> three b h l d", three=3, h=HEADS)
        return self.proj(rearrange(scaled_dot_product_attention(q, k, v), "b h l d -> b l (h d)"))


class Perceptron(nn.Module):
    """Two layers with a GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        return self.fc2(nn.functional.gelu(self.fc1(tokens)))


class Block(nn.Module):
    """Norm and attention, norm and perceptron, both added."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.mlp = Attention(width), Perceptron(width, hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        """(b, l, d) -> (b, l, d)."""
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class PatchEmbedding(nn.Module):
    """Tubes of 2 frames and patch x patch pixels as tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        size = (TUBELET, PATCH, PATCH)
        self.proj = nn.Conv3d(3, width, kernel_size=size, stride=size)

    def forward(self, clips: Tensor) -> Tensor:
        """(b, 3, f, h, w) -> (b, l, d), time first."""
        return rearrange(self.proj(clips), "b d f h w -> b (f h w) d")


class Encoder(nn.Module):
    """The target encoder; positions are stored in its file, for 16 frames of side x side pixels."""

    def __init__(self, width: int, hidden: int, depth: int, tokens: int) -> None:
        super().__init__()
        self.side = PATCH * round((tokens // (FRAMES // TUBELET)) ** 0.5)
        self.patch_embed = PatchEmbedding(width)
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width))
        self.blocks = nn.Sequential(*(Block(width, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, clips: Tensor) -> Tensor:
        """(b, 3, 16, side, side) -> (b, l, d)."""
        return self.norm(self.blocks(self.patch_embed(clips) + self.pos_embed))


class CrossAttention(nn.Module):
    """A query that attends to tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.kv, self.proj = (nn.Linear(width, times * width) for times in (1, 2, 1))

    def forward(self, query: Tensor, tokens: Tensor) -> Tensor:
        """(b, 1, d), (b, l, d) -> (b, 1, d)."""
        q = rearrange(self.q(query), "b l (h d) -> b h l d", h=HEADS)
        k, v = rearrange(self.kv(tokens), "b l (two h d) -> two b h l d", two=2, h=HEADS)
        return self.proj(rearrange(scaled_dot_product_attention(q, k, v), "b h l d -> b l (h d)"))


class CrossBlock(nn.Module):
    """`CrossAttention` to normalised tokens, and a perceptron, both added."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.xattn, self.mlp = CrossAttention(width), Perceptron(width, hidden)

    def forward(self, query: Tensor, tokens: Tensor) -> Tensor:
        """(b, 1, d), (b, l, d) -> (b, 1, d)."""
        query = query + self.xattn(query, self.norm1(tokens))
        return query + self.mlp(self.norm2(query))


class Pooler(nn.Module):
    """What the probe's classifier sees: one learnt query, after it has looked at all tokens."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, 1, width))
        self.cross_attention_block = CrossBlock(width, hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        """(b, l, d) -> (b, d)."""
        query = self.query_tokens.expand(len(tokens), -1, -1)
        return self.cross_attention_block(query, tokens).squeeze(1)


def load_encoder(path: Path) -> Encoder:
    """The encoder of the file's sizes, from its `target_encoder`."""
    state = _stripped(load_state(path, prefer=("target_encoder", "encoder")), ("module.", "backbone."))
    try:
        width, hidden = state["pos_embed"].shape[2], state["blocks.0.mlp.fc1.weight"].shape[0]
        depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
        module = Encoder(width, hidden, depth, state["pos_embed"].shape[1])
    except (KeyError, IndexError, ValueError) as error:
        raise _not_it(path, "V-JEPA encoder", error) from error
    return load_module(module, path, state=state)


def load_pooler(path: Path) -> Pooler:
    """The pooler of the probe, without its classifier."""
    found = _stripped(load_state(path, prefer=("classifier",)), ("module.",))
    state = {
        name.removeprefix("pooler."): value for name, value in found.items() if name.startswith("pooler.")
    }
    try:
        hidden, width = state["cross_attention_block.mlp.fc1.weight"].shape
    except (KeyError, ValueError) as error:
        raise _not_it(path, "V-JEPA probe", error) from error
    return load_module(Pooler(width, hidden), path, state=state)


def _stripped(state: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    for prefix in prefixes:
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return dict(state)


def _not_it(path: Path, what: str, error: Exception) -> WeightsError:
    return WeightsError(f"{path.name} is no {what}", where=str(path), why=f"its layers differ: {error}")
