"""Tokens with some wrong ones among them, and what finer scales have to say to make up for those.

Han et al., "Infinity: Scaling Bitwise AutoRegressive Modeling for High-Resolution Image Synthesis", 2024,
flip bits of the tokens that the model reads; here whole tokens are another code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genzoo.autoregression.next_scale import shrink
from genzoo.core.seeds import SampleStreams
from genzoo.families.car.vqvae.quantizer import MultiScaleQuantizer


@torch.no_grad()
def with_wrong_tokens(
    quantizer: MultiScaleQuantizer, f: Tensor, most: float, generator: SampleStreams
) -> tuple[list[Tensor], list[Tensor]]:
    """Right tokens of every scale, given the tokens shown of the coarser ones, and those shown.

    f: (b, c, h, w).   most: each sample has a share of 0 to `most` of wrong tokens, drawn evenly, and each
    wrong token is a code drawn from all.   Both: (b, h_k w_k) int64 per scale.
    """
    sizes, rest = quantizer.sizes, f.float()
    lengths = [height * width for height, width in sizes]
    drawn = generator.rand_rows(1 + 2 * sum(lengths), f.device)
    is_wrong = (drawn[:, 1 : 1 + sum(lengths)] < most * drawn[:, :1]).split(lengths, dim=1)
    codes = (drawn[:, 1 + sum(lengths) :] * len(quantizer.weight)).long().split(lengths, dim=1)
    right: list[Tensor] = []
    shown: list[Tensor] = []
    for scale, size in enumerate(sizes):
        right.append(quantizer.nearest(shrink(rest, size)))
        shown.append(torch.where(is_wrong[scale], codes[scale], right[-1]))
        rest = rest - quantizer.added(shown[-1], scale, sizes)
    return right, shown
