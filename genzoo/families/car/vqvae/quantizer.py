"""The multi-scale quantizer: features as token maps from coarse to fine, each coding what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import embedding as lookup
from torch.nn.functional import mse_loss, normalize

from genzoo.autoregression.next_scale import contribution, enlarge, shrink, teacher_input
from genzoo.autoregression.scales import scale_sizes
from genzoo.core.counts import Count
from genzoo.core.errors import ShapeError, UsageError
from genzoo.core.sizes import Size
from genzoo.families.car.vqvae.dead_codes import dead_codes, drawn_anew
from genzoo.families.car.vqvae.refinement import Refinement
from genzoo.kernels.native.call import is_eager

# the hit average follows the last steps more slowly as it settles
SETTLED_AFTER, FAST, SLOW = 100, 0.9, 0.99
USED_SHARE = 0.08


@dataclass(frozen=True)
class Quantized:
    """f_hat: (b, c, h, w), gradients pass straight through.   loss: ().   ids: (b, h_k w_k) by scale."""

    f_hat: Tensor
    loss: Tensor
    ids: list[Tensor]


class MultiScaleQuantizer(nn.Module):
    """A codebook used at every scale of a residual pyramid.

    using_znorm: choose codes by direction; what is looked up keeps its length.   beta: weight of the
    encoder's commitment.   codebook_init: None for N(0, 1); s > 0 truncated normal of deviation s; s < 0
    uniform in +-|s| / codebook_size.   revive_below: codes that are chosen less often than this share of the
    average start anew in training, as a feature of the batch; 0 leaves them. The first batch then fills the
    whole codebook.   quantize_after: batches of training that pass as they are before quantizing begins, so
    that features are worth a codebook.
    """

    def __init__(
        self,
        *,
        codebook_size: int,
        channels: int,
        patch_nums: Sequence[Size],
        quant_resi: float = 0.5,
        share_quant_resi: int = 4,
        using_znorm: bool = False,
        beta: float = 0.25,
        codebook_init: float | None = None,
        revive_below: float = 0.0,
        quantize_after: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= revive_below < 1:
            raise UsageError(f"revive_below is a share of the average below 1, not {revive_below}")
        if quantize_after < 0:
            raise UsageError(f"quantize_after is a number of batches, not {quantize_after}")
        if share_quant_resi < 0:
            raise UsageError(f"share_quant_resi is {share_quant_resi}; use 0 for one per scale, or how many")
        self.sizes = scale_sizes(patch_nums)
        self.using_znorm, self.beta, self.revive_below = using_znorm, beta, revive_below
        self.quantize_after = quantize_after
        self.embedding = nn.Embedding(codebook_size, channels)
        self.quant_resi = Refinement(
            channels, ratio=quant_resi, share=share_quant_resi, num_scales=len(self.sizes)
        )
        self.ema_vocab_hit_SV: Tensor
        self.register_buffer("ema_vocab_hit_SV", torch.zeros(len(self.sizes), codebook_size))
        self.num_updates = Count()
        self.register_load_state_dict_pre_hook(_keep_own_hits)
        self.reset_codebook(codebook_init)

    def reset_codebook(self, start: float | None) -> None:
        """See `codebook_init`."""
        if start is None:
            nn.init.normal_(self.embedding.weight)
        elif start > 0:
            nn.init.trunc_normal_(self.embedding.weight, std=start)
        else:
            bound = -start / len(self.embedding.weight)
            nn.init.uniform_(self.embedding.weight, -bound, bound)

    @property
    def weight(self) -> Tensor:
        """The codebook, (v, c)."""
        return self.embedding.weight

    def refine(self, h: Tensor, scale: int, num_scales: int) -> Tensor:
        """What is added of a blown-up embedding.   h: (b, c, h, w)."""
        refined: Tensor = self.quant_resi(h, scale, num_scales)
        return refined

    def nearest(self, z: Tensor) -> Tensor:
        """Code of every position.   z: (b, c, h, w).   Returns (b, h w) int64."""
        flat, table = rearrange(z, "b c h w -> (b h w) c").float(), self.weight.detach().float()
        if self.using_znorm:
            ids = (normalize(flat, dim=-1) @ normalize(table, dim=-1).T).argmax(dim=1)
        else:
            lengths = flat.square().sum(dim=1, keepdim=True) + table.square().sum(dim=1)
            ids = torch.addmm(lengths, flat, table.T, alpha=-2).argmin(dim=1)
        return ids.view(z.shape[0], -1)

    def embed(self, ids: Tensor, size: tuple[int, int]) -> Tensor:
        """Tokens of one scale as a map.   ids: (b, h w).   Returns (b, c, h, w)."""
        readable = ids.device.type == "cpu" and is_eager(ids) and ids.numel()
        low, high = (int(ids.min()), int(ids.max())) if readable else (0, 0)
        if low < 0 or high >= len(self.weight) or ids.shape[1] != size[0] * size[1]:
            raise ShapeError(
                f"tokens {tuple(ids.shape)} from {low} to {high} do not fit a {size[0]} x {size[1]} map and "
                f"{len(self.weight)} codes"
            )
        return rearrange(lookup(ids, self.weight), "b (h w) c -> b c h w", h=size[0])

    @torch.no_grad()
    def encode(
        self, f: Tensor, patch_nums: Sequence[Size] | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Tokens of every scale, and the picture so far after each.

        f: (b, c, h, w); the last scale must have this size.   patch_nums: other scales than the own.
        Returns ids (b, h_k w_k) and f_hat (b, c, h, w), one per scale.
        """
        sizes, rest = self._sizes_for(f, patch_nums), f
        ids: list[Tensor] = []
        f_hats: list[Tensor] = []
        for scale, size in enumerate(sizes):
            ids.append(self.nearest(shrink(rest, size)))
            added = self.added(ids[-1], scale, sizes)
            f_hats.append(added if not f_hats else f_hats[-1] + added)
            rest = rest - added
        return ids, f_hats

    def added(self, ids: Tensor, scale: int, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """What the tokens of one scale add.   ids: (b, h_k w_k).   Returns (b, c, h, w)."""
        return contribution(self.embed(ids, sizes[scale]), scale, len(sizes), sizes[-1], self.refine)

    def partial_sums(self, ids: Sequence[Tensor], patch_nums: Sequence[Size] | None = None) -> list[Tensor]:
        """f_hat after each scale, (b, c, h, w), from the tokens of all scales."""
        sizes = self.sizes if patch_nums is None else scale_sizes(patch_nums)
        if len(ids) != len(sizes):
            raise ShapeError(f"tokens of {len(ids)} scales were given, but there are {len(sizes)}")
        sums: list[Tensor] = []
        for scale, tokens in enumerate(ids):
            added = self.added(tokens, scale, sizes)
            sums.append(added if not sums else sums[-1] + added)
        return sums

    def growing_sums(self, embedded: Sequence[Tensor]) -> list[Tensor]:
        """f_hat after each scale at that scale's own size: what is there is blown up, what is added is not.

        embedded: (b, c, h_k, w_k) per scale.
        """
        sums: list[Tensor] = []
        for scale, map_ in enumerate(embedded):
            added = self.refine(map_, scale, len(embedded))
            before = enlarge(sums[-1], tuple(map_.shape[-2:])) if sums else 0  # type: ignore[arg-type]
            sums.append(added + before)
        return sums

    def teacher_input(self, ids: Sequence[Tensor], patch_nums: Sequence[Size] | None = None) -> list[Tensor]:
        """What a model reads at scales 1, 2, ...: (b, h_k w_k, c) each.   ids: (b, h_k w_k) per scale."""
        sizes = self.sizes if patch_nums is None else scale_sizes(patch_nums)
        embedded = [self.embed(tokens, size) for tokens, size in zip(ids, sizes, strict=True)]
        return teacher_input(embedded, sizes, self.refine)

    def forward(self, f: Tensor) -> Quantized:
        """Quantize for training, in float32.   f: (b, c, h, w).

        Each scale's loss draws the sum so far to f, and f to the sum (times beta); their mean is the loss.
        Before quantizing begins f passes, the loss is 0 and there are no ids.
        """
        f = f.float()
        target, sizes = f.detach(), self._sizes_for(f, None)
        trains = self.training and not f.is_meta
        if trains and int(self.num_updates) < self.quantize_after:
            self.num_updates.add()
            return Quantized(f, self._no_loss(self), [])
        if trains and self.revive_below:
            self._revive(target)
        rest, f_hat, losses, all_ids = target, torch.zeros_like(target), [], []
        for scale, size in enumerate(sizes):
            ids = self.nearest(shrink(rest, size))
            added = self.added(ids, scale, sizes)
            f_hat, rest = f_hat + added, rest - added.detach()
            losses.append(self.beta * mse_loss(f_hat.detach(), f) + mse_loss(f_hat, target))
            all_ids.append(ids)
        loss = torch.stack(losses).mean()
        if trains:
            self._count_hits(all_ids)
            # few scales leave some refinements idle
            loss = loss + self._no_loss(self.quant_resi)
        return Quantized(f + (f_hat - f).detach(), loss, all_ids)

    def usage(self, num_positions: int) -> list[float]:
        """Percent of codes in use at each scale.   num_positions: b h w of the batches that were counted."""
        threshold = USED_SHARE * num_positions / len(self.weight)
        used = (self.ema_vocab_hit_SV >= threshold).float().mean(dim=1) * 100
        return [float(share) for share in used]

    @torch.no_grad()
    def _revive(self, f: Tensor) -> None:
        """Move codes out of use to what is to be coded in this batch."""
        dead, hits = dead_codes(self.ema_vocab_hit_SV, self.revive_below), self.ema_vocab_hit_SV
        if not len(dead):
            return
        self.weight[dead] = drawn_anew(self._to_code_exactly(f), len(dead)).to(self.weight.dtype)
        # as if chosen as often as others: a while to be chosen before they are moved again
        hits[:, dead] = hits.mean(dim=1, keepdim=True)

    def _to_code_exactly(self, f: Tensor) -> Tensor:
        """What is left to code at every scale if each were coded exactly: (positions of all scales, c)."""
        rest, left, count = f, [], len(self.sizes)
        for scale, size in enumerate(self.sizes):
            left.append(shrink(rest, size))
            rest = rest - contribution(left[-1], scale, count, self.sizes[-1], self.refine)
        return torch.cat([rearrange(map_, "b c h w -> (b h w) c") for map_ in left])

    @staticmethod
    def _no_loss(module: nn.Module) -> Any:
        """0 that gives each parameter a gradient: optimizers and DDP want one."""
        return 0.0 * sum(parameter.sum() for parameter in module.parameters())

    @torch.no_grad()
    def _count_hits(self, all_ids: Sequence[Tensor]) -> None:
        hits = torch.stack([ids.flatten().bincount(minlength=len(self.weight)) for ids in all_ids]).float()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(hits)
        counted = int(self.num_updates) - self.quantize_after
        decay = SLOW if counted >= SETTLED_AFTER else FAST
        if counted == 0 and not self.ema_vocab_hit_SV.any():
            decay = 0.0
        self.ema_vocab_hit_SV.mul_(decay).add_(hits, alpha=1 - decay)
        self.num_updates.add()

    def _sizes_for(self, f: Tensor, patch_nums: Sequence[Size] | None) -> list[tuple[int, int]]:
        sizes = self.sizes if patch_nums is None else scale_sizes(patch_nums)
        if tuple(f.shape[-2:]) != sizes[-1] or f.shape[1] != self.weight.shape[1]:
            raise ShapeError(
                f"features {tuple(f.shape)} do not fit the last scale {sizes[-1]} and "
                f"{self.weight.shape[1]} channels",
                fix="use pixels of the size that the scales are for, or other patch_nums",
            )
        return sizes


def _keep_own_hits(module: nn.Module, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """The counter of hits has a row per scale; weights made for other scales leave the module's own alone."""
    key, own = f"{prefix}ema_vocab_hit_SV", module.ema_vocab_hit_SV
    if key in state and len(state[key]) != len(own):  # type: ignore[arg-type]
        state[key] = own  # type: ignore[index]
