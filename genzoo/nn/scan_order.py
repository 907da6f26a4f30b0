"""Which tokens of a clip meet in one sequence, and in which order; every rule has its inverse.

Tokens are (b, f, n, d): f frames of n patches, row-major. A rule cuts them into sequences (r, l, d):

    spatial                each frame, patch after patch                       (b f) n d
    temporal               each place, frame after frame                       (b n) f d
    global_spatial_first   the clip, frame by frame (VideoMamba, Matten)       b (f n) d
    global_temporal_first  the clip, place by place                            b (n f) d

The sequences of one sample are consecutive.
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor

from genzoo.core.errors import ShapeError, UsageError, did_you_mean

_PATTERNS = {
    "spatial": "(b f) n d",
    "temporal": "(b n) f d",
    "global_spatial_first": "b (f n) d",
    "global_temporal_first": "b (n f) d",
}
ORDERS = tuple(_PATTERNS)


def to_sequences(tokens: Tensor, order: str) -> Tensor:
    """Cut a clip into the sequences of `order`.   tokens: (b, f, n, d).   Returns (r, l, d)."""
    if tokens.ndim != 4:
        raise ShapeError(f"the tokens of a clip are (b, f, n, d), not {tuple(tokens.shape)}")
    sequences: Tensor = rearrange(tokens, f"b f n d -> {_pattern(order)}")
    return sequences


def from_sequences(sequences: Tensor, order: str, *, num_frames: int, num_patches: int) -> Tensor:
    """Undo `to_sequences`.   sequences: (r, l, d).   Returns (b, num_frames, num_patches, d)."""
    pattern, frames, patches = _pattern(order), num_frames, num_patches
    length = {"spatial": patches, "temporal": frames}.get(order, frames * patches)
    per_sample = frames * patches // length
    if sequences.ndim != 3 or sequences.shape[1] != length or len(sequences) % per_sample:
        raise ShapeError(
            f"sequences {tuple(sequences.shape)} are no {order} order of {frames} frames of {patches} patches"
        )
    tokens: Tensor = rearrange(sequences, f"{pattern} -> b f n d", f=frames, n=patches)
    return tokens


def _pattern(order: str) -> str:
    if order not in _PATTERNS:
        hint = did_you_mean(order, ORDERS) or f"choose one of {', '.join(ORDERS)}"
        raise UsageError(f"there is no scan order {order!r}; {hint}")
    return _PATTERNS[order]
