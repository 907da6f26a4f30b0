"""Adaptive layer norm (adaLN-Zero of DiT): the condition shifts, scales and gates every branch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

NORM_EPS = 1e-6


def plain_norm(hidden_size: int) -> nn.LayerNorm:
    """Layer norm without parameters: the modulation supplies shift and scale."""
    return nn.LayerNorm(hidden_size, eps=NORM_EPS, elementwise_affine=False)


def adaln_modulation(hidden_size: int, num: int) -> nn.Sequential:
    """c: (b, d) -> (b, num*d), zero at the start so that the branches begin closed."""
    layers = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, num * hidden_size))
    zero_linear(layers[1])
    return layers


def zero_linear(layer: nn.Module) -> None:
    """Set weight and bias of a Linear to zero."""
    nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (1 + scale) + shift.   x: (b, l, d).   shift, scale: (b, d)."""
    return torch.addcmul(shift[:, None], x, 1 + scale[:, None])


def shared_rows(values: Tensor, num_rows: int) -> Tensor:
    """Repeat rows so that each serves several consecutive sequences: frames of a clip share its condition.

    values: (b, m), num_rows a multiple of b.   Returns (num_rows, m).
    """
    each = num_rows // len(values) if len(values) else 1
    return values if each == 1 else values.repeat_interleave(each, dim=0)


def gated_add(x: Tensor, gate: Tensor, branch: Tensor) -> Tensor:
    """x + gate * branch.   x, branch: (b, l, d).   gate: (b, d)."""
    return torch.addcmul(x, gate[:, None], branch)


class Mlp(nn.Module):
    """fc2(GELU_tanh(fc1(x)))."""

    def __init__(self, hidden_size: int, *, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        width = int(hidden_size * mlp_ratio)
        self.fc1 = nn.Linear(hidden_size, width)
        self.act = nn.GELU(approximate="tanh")
        self.fc2 = nn.Linear(width, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, l, d).   Returns (b, l, d)."""
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class FinalLayer(nn.Module):
    """Modulated norm, then a zero-initialised Linear to the values of each patch."""

    def __init__(self, hidden_size: int, num_outputs: int) -> None:
        super().__init__()
        self.norm_final = plain_norm(hidden_size)
        self.linear = nn.Linear(hidden_size, num_outputs)
        self.adaLN_modulation = adaln_modulation(hidden_size, 2)
        zero_linear(self.linear)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """x: (b, l, d).   c: (b, d), or a row for several consecutive ones.   Returns (b, l, num_outputs)."""
        shift, scale = shared_rows(self.adaLN_modulation(c), len(x)).chunk(2, dim=1)
        out: Tensor = self.linear(modulate(self.norm_final(x), shift, scale))
        return out
