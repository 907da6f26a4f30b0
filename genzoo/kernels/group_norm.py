"""A group norm and SiLU: in C for channels-last maps in bfloat16 on a CPU without gradients, else torch's.

    y = n s(n),   n = (x - mean) / sqrt(variance + eps) weight + bias,   s the logistic

C rounds once where torch's two operations round twice. What lies otherwise, and float32, stays torch's bit
for bit.
"""

from __future__ import annotations

import struct

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from genzoo.kernels.native import call
from genzoo.kernels.native.call import address, describe, empty, invoke, is_eager, vector

LANES = 16  # the most values that a vector register holds
WORK = 24  # of a value, in multiply-adds


def group_norm_silu(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """silu(norm(x)).   x: (b, c, h, w)."""
    return silu(norm(x)) if torch_serves_because(norm, x) is not None else _run(norm, x, silu=True)


def normalised(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """norm(x).   x: (b, c, h, w)."""
    if torch_serves_because(norm, x) is not None:
        plain: Tensor = norm(x)
        return plain
    return _run(norm, x, silu=False)


def channels_last_where_faster(module: nn.Module) -> None:
    """Lay convolutions out channels-last on a CPU, if C computes all group norms of the module.

    In bfloat16 a convolution of 160 channels at 256 x 256 then takes half the time on a processor with AMX,
    and less.
    """
    norms = [part for part in module.modules() if isinstance(part, nn.GroupNorm)]
    on_cpu = all(parameter.device.type == "cpu" for parameter in module.parameters())
    if not on_cpu or any(serves_norm(norm) for norm in norms):
        return
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.to(memory_format=torch.channels_last)


def torch_serves_because(norm: nn.GroupNorm, x: Tensor) -> str | None:
    """Why torch's operations serve, or None."""
    if torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in norm.parameters())):
        return "a gradient is asked for"
    if x.device.type != "cpu" or not is_eager(x) or torch.is_autocast_enabled("cpu"):
        return "x is traced, under autocast or not on the CPU"
    lies_well = x.dim() == 4 and x.numel() and x.is_contiguous(memory_format=torch.channels_last)
    if x.dtype != torch.bfloat16 or not lies_well:
        return "x is not in bfloat16, or its channels do not lie side by side"
    if norm._forward_hooks or norm._forward_pre_hooks:
        return "the norm is watched"
    return serves_norm(norm)


def serves_norm(norm: nn.GroupNorm) -> str | None:
    """Why C cannot compute such a norm, or None."""
    if type(norm) is not nn.GroupNorm or norm.weight is None or norm.weight.dtype != torch.bfloat16:
        return "the norm is another, or not in bfloat16"
    if norm.num_channels % LANES:
        return f"{norm.num_channels} channels are not whole vectors of {LANES}"
    return call.unavailable_reason()


def _run(norm: nn.GroupNorm, x: Tensor, *, silu: bool) -> Tensor:
    pixels = x.detach().permute(0, 2, 3, 1).flatten(1, 2)
    out = empty(pixels.shape, x.dtype)
    weight, bias = vector(norm.weight, torch.float32), vector(norm.bias, torch.float32)
    arguments = [*pixels.shape, norm.num_groups, int(silu)]
    arguments += struct.unpack("q", struct.pack("d", norm.eps))
    arguments += [*describe(pixels), *describe(out), address(weight), address(bias)]
    invoke("genzoo_group_norm", torch.float32, arguments, WORK * x.numel())
    return out.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
