"""How the transformers start, and which of their parameters never decay."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from genzoo.families.car.var.blocks import Block

NO_DECAY = (
    "cls_token", "start_token", "task_token", "cfg_uncond", "pos_embed", "pos_1LC", "pos_start", "start_pos",
    "lvl_embed", "gamma", "beta", "ada_gss", "moe_bias", "scale_mul",
)  # fmt: skip
CONVOLUTION_STD = 0.02


def base_std(hidden_size: int) -> float:
    """sqrt(1 / (3 d)), of everything but convolutions."""
    return (1 / (3 * hidden_size)) ** 0.5


def reset_layers(module: nn.Module, std: float) -> None:
    """Linears and embeddings truncated normal `std`, convolutions 0.02, biases 0, norms 1 and 0."""
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Embedding)):
            nn.init.trunc_normal_(layer.weight, std=std)
        elif isinstance(layer, nn.Conv2d):
            nn.init.trunc_normal_(layer.weight, std=CONVOLUTION_STD)
        elif isinstance(layer, nn.LayerNorm):
            nn.init.ones_(layer.weight)
        for name, parameter in layer.named_parameters(recurse=False):
            if name == "bias":
                nn.init.zeros_(parameter)


def reset_convolutions(module: nn.Module) -> None:
    """Normal with deviation sqrt(2 / inputs), so that signals keep their size through half-linear layers."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


@torch.no_grad()
def shrink_residuals(blocks: Iterable[nn.Module], depth: int, *, adaln: float, adaln_gamma: float) -> None:
    """Let every block start close to the identity.

    depth: output layers of the branches are divided by sqrt(2 depth).   adaln, adaln_gamma: what the
    modulation's scales and shifts, and its gates, are multiplied by.
    """
    for block in blocks:
        assert isinstance(block, Block)
        block.attn.proj.weight.div_((2 * depth) ** 0.5)
        block.ffn.fc2.weight.div_((2 * depth) ** 0.5)
        if block.shared_adaln:
            block.ada_gss[:, :, :2].mul_(adaln_gamma)
            block.ada_gss[:, :, 2:].mul_(adaln)
        else:
            weight: Tensor = block.ada_lin[-1].weight  # type: ignore[assignment]
            weight[: 2 * block.hidden_size].mul_(adaln_gamma)
            weight[2 * block.hidden_size :].mul_(adaln)


def undecayed_names(module: nn.Module) -> tuple[str, ...]:
    """Biases, vectors, and learned tables and gates do not decay."""
    return tuple(
        name
        for name, parameter in module.named_parameters()
        if parameter.ndim == 1 or name.endswith("bias") or any(part in name for part in NO_DECAY)
    )
