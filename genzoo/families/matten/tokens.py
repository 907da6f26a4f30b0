"""Conditional tokens (section 3.3, after DiS): timestep and label as tokens in front of every sequence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from einops import reduce
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from genzoo.nn.embeddings import LabelEmbedding, timestep_features
from genzoo.nn.modulation import NORM_EPS, zero_linear
from genzoo.nn.scan_order import from_sequences, to_sequences


class ConditionTokens(nn.Module):
    """One token for the timestep, one for the label of a conditional model, each with a learned position."""

    def __init__(self, hidden_size: int, *, num_classes: int, null_class: bool = True) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.mlp = nn.Sequential(
            nn.Linear(hidden_size, 4 * hidden_size), nn.SiLU(), nn.Linear(4 * hidden_size, hidden_size)
        )
        self.label = LabelEmbedding(num_classes, hidden_size, null_class=null_class) if num_classes else None
        self.positions = nn.Parameter(torch.empty(1, 2 if num_classes else 1, hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """N(0, 0.02) weights and positions, zero biases."""
        for layer in (self.mlp[0], self.mlp[2]):
            nn.init.normal_(layer.weight, std=0.02)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, timesteps: Tensor, class_labels: Tensor | None) -> Tensor:
        """timesteps, class_labels: (b,).   Returns (b, e, d), e = 1 or 2."""
        features = timestep_features(timesteps, self.hidden_size).to(self.positions.dtype)
        tokens = [self.mlp(features)]
        if self.label is not None:
            tokens.append(self.label(class_labels))
        return torch.stack(tokens, dim=1) + self.positions


def plain_final_layer(hidden_size: int, num_outputs: int) -> nn.Sequential:
    """Norm, then a zero-initialised Linear to the values of each patch."""
    layers = nn.Sequential(nn.LayerNorm(hidden_size, eps=NORM_EPS), nn.Linear(hidden_size, num_outputs))
    zero_linear(layers[1])
    return layers


def run_blocks_with_tokens(
    blocks: Iterable[nn.Module],
    orders: Sequence[str],
    tokens: Tensor,
    context: Tensor,
    *,
    gradient_checkpointing: bool = False,
) -> Tensor:
    """Apply each block in its scan order, the context in front of every sequence; it is dropped at the end.

    tokens: (b, f, n, d).   context: (b, e, d).   Returns (b, f, n, d).
    """
    recompute = gradient_checkpointing and torch.is_grad_enabled()
    for block, order in zip(blocks, orders, strict=True):
        if recompute:
            tokens, context = checkpoint(
                apply_block_with_tokens, block, tokens, context, order, use_reentrant=False
            )
        else:
            tokens, context = apply_block_with_tokens(block, tokens, context, order)
    return tokens


def apply_block_with_tokens(
    block: nn.Module, tokens: Tensor, context: Tensor, order: str
) -> tuple[Tensor, Tensor]:
    """One block; where it sees several sequences of a sample, the context goes on as the mean of its copies.

    tokens: (b, f, n, d).   context: (b, e, d).   Returns both, same shapes.
    """
    sequences, num = to_sequences(tokens, order), context.shape[1]
    copies = context.repeat_interleave(len(sequences) // len(context), dim=0)
    mixed = block(torch.cat([copies, sequences], dim=1))
    frames, patches = tokens.shape[1:3]
    tokens = from_sequences(mixed[:, num:], order, num_frames=frames, num_patches=patches)
    return tokens, reduce(mixed[:, :num], "(b r) e d -> b e d", "mean", b=len(context))
