"""Token maps as a sum: each scale adds its embedding, blown up to the finest size, to the picture so far.

`Refine` is a learned correction of what is added: refine(map, scale, num_scales) -> map of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate

from genzoo.autoregression.scales import scale_sizes
from genzoo.core.sizes import Size

Refine = Callable[[Tensor, int, int], Tensor]


def enlarge(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic, to a finer grid.   x: (b, c, h, w)."""
    return x if tuple(x.shape[-2:]) == size else interpolate(x, size=size, mode="bicubic")


def shrink(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Mean over areas, to a coarser grid.   x: (b, c, h, w)."""
    return x if tuple(x.shape[-2:]) == size else interpolate(x, size=size, mode="area")


def contribution(
    embedded: Tensor, scale: int, num_scales: int, size: tuple[int, int], refine: Refine
) -> Tensor:
    """What one scale adds at the finest size.   embedded: (b, c, h_k, w_k).   Returns (b, c, *size)."""
    return refine(enlarge(embedded, size), scale, num_scales)


def teacher_input(embedded: Sequence[Tensor], patch_nums: Sequence[Size], refine: Refine) -> list[Tensor]:
    """What the model reads at scales 1, 2, ... when the true tokens of all scales before are given.

    embedded: (b, c, h_k, w_k) for each scale but, if wished, the last.   Returns (b, h_k w_k, c) for each
    scale from the second.
    """
    sizes = scale_sizes(patch_nums)
    f_hat = None
    inputs = []
    for scale, following in enumerate(sizes[1:]):
        added = contribution(embedded[scale], scale, len(sizes), sizes[-1], refine)
        f_hat = added if f_hat is None else f_hat + added
        inputs.append(rearrange(shrink(f_hat, following), "b c h w -> b (h w) c"))
    return inputs
