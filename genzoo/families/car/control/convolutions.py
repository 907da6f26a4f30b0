"""Convolutions over the maps of all scales at once, in bfloat16 on a CPU.

A map of 1 x 1 makes a library read, and in the gradient write, as many weights as one of 16 x 16, and ten
scales do so ten times. Here the windows of all maps are the rows of one product (im2col): the weights are
read once, and their gradient is summed over the scales in float32 where it was rounded ten times. In float32
a library keeps its own order of sums, and each map its own call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from genzoo.kernels.native.call import is_eager

Sizes: TypeAlias = Sequence[tuple[int, int, int]]
"""Batch, height and width of every map."""
# places for each channel of the result, up to which one product is faster: beyond, windows take longer to
# gather than weights to read again (measured from 3 to 42 on a Xeon with AMX; 21 is a draw)
MOST_PLACES = 24


def read_together(maps: Sequence[Tensor], convolution: nn.Conv2d) -> bool:
    """Whether `convolve_maps` is for these: in training, in bfloat16, on a CPU.

    maps: (b, c, h_k, w_k) each.
    """
    weight = convolution.weight
    if not (torch.is_grad_enabled() and weight.requires_grad) or weight.device.type != "cpu":
        return False
    if not all(is_eager(x) for x in (weight, *maps)):
        return False
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16
    return all(x.dtype == torch.bfloat16 for x in (weight, *maps))


def convolve_maps(maps: Sequence[Tensor], convolution: nn.Conv2d) -> list[Tensor]:
    """A 3x3 convolution of every map, with a border of one zero and a stride of 1 or 2.

    maps: (b, c, h_k, w_k) each.   Returns (b, d, h_k', w_k') each in bfloat16, channels side by side.
    """
    stride = convolution.stride[0]
    sizes = [(len(x), x.shape[2], x.shape[3]) for x in maps]
    after = _after(sizes, stride)
    if sum(b * h * w for b, h, w in after) > MOST_PLACES * convolution.out_channels:
        # a library reads and writes this order two to five times as fast
        return [convolution(x.contiguous(memory_format=torch.channels_last)) for x in maps]
    rows = torch.cat([x.movedim(1, -1).flatten(0, 2) for x in maps]).to(torch.bfloat16)
    out = _RowsConvolution.apply(rows, convolution.weight, convolution.bias, sizes, stride)
    parts = out.split([b * h * w for b, h, w in after])
    return [part.view(*size, -1).movedim(-1, 1) for part, size in zip(parts, after, strict=True)]


def _after(sizes: Sizes, stride: int) -> Sizes:
    return [(b, (h - 1) // stride + 1, (w - 1) // stride + 1) for b, h, w in sizes]


class _RowsConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, sizes: Sizes, stride: int) -> Tensor:
        # (o, 3 3 c): channels side by side, as in the windows
        matrix = weight.to(rows.dtype).permute(0, 2, 3, 1).flatten(1)
        ctx.save_for_backward(rows, weight, matrix)
        ctx.sizes, ctx.stride = sizes, stride
        return torch.addmm(bias.to(rows.dtype), _windows(rows, sizes, stride), matrix.t())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, matrix = ctx.saved_tensors
        grad, drows, dweight, dbias = grad.contiguous(), None, None, None
        if ctx.needs_input_grad[0]:
            drows = _added_windows(grad @ matrix, ctx.sizes, ctx.stride)
        if ctx.needs_input_grad[1]:
            # windows are gathered again: kept, they would be nine times the rows
            summed = grad.t() @ _windows(rows, ctx.sizes, ctx.stride)
            dweight = torch.empty_like(weight)
            dweight.copy_(summed.view(len(weight), 3, 3, -1).permute(0, 3, 1, 2))
        if ctx.needs_input_grad[2]:
            dbias = grad.sum(0, dtype=torch.float32).to(weight.dtype)
        return drows, dweight, dbias, None, None


def _windows(rows: Tensor, sizes: Sizes, stride: int) -> Tensor:
    """The 3 x 3 pixels around each place of a result, (m, 9 c), border included."""
    channels, after = rows.shape[1], _after(sizes, stride)
    out = rows.new_empty(sum(b * h * w for b, h, w in after), 9 * channels)
    parts = zip(
        rows.split([b * h * w for b, h, w in sizes]),
        out.split([b * h * w for b, h, w in after]),
        sizes,
        after,
        strict=True,
    )
    for part, place, size, (b, h, w) in parts:
        padded = pad(part.view(*size, channels), (0, 0, 1, 1, 1, 1))
        batch, line, pixel, _ = padded.stride()
        strides = (batch, line * stride, pixel * stride, line, pixel, 1)
        place.view(b, h, w, 3, 3, channels).copy_(padded.as_strided((b, h, w, 3, 3, channels), strides))
    return out


def _added_windows(windows: Tensor, sizes: Sizes, stride: int) -> Tensor:
    """The transpose of `_windows`: every pixel's sum over the windows it lies in, rounded once."""
    channels, after = windows.shape[1] // 9, _after(sizes, stride)
    found = []
    for part, (b, h, w), (_, high, wide) in zip(
        windows.split([b * h * w for b, h, w in after]), sizes, after, strict=True
    ):
        taps = part.view(b, high, wide, 3, 3, channels)
        # one line more than the border where the stride leaves the last one out
        total = torch.zeros(b, h + 3, w + 3, channels, dtype=torch.float32)
        for row in range(3):
            for column in range(3):
                total[:, row : row + stride * high : stride, column : column + stride * wide : stride] += (
                    taps[:, :, :, row, column]
                )
        found.append(total[:, 1 : h + 1, 1 : w + 1].reshape(-1, channels).to(windows.dtype))
    return torch.cat(found)
