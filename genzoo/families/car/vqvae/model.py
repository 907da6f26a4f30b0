"""The multi-scale VQVAE: pixels as token maps from coarse to fine, and back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.autoregression.scales import plain_scales
from genzoo.core.errors import ShapeError, UsageError
from genzoo.core.sizes import Size
from genzoo.families.car.vqvae.autoencoder import Decoder, Encoder, group_norm
from genzoo.families.car.vqvae.discriminator import PatchDiscriminator
from genzoo.families.car.vqvae.quantizer import MultiScaleQuantizer
from genzoo.nn.graphs import Called, Graph, graph

PATCH_NUMS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
NORM_GROUPS = 32


class VQVAE(nn.Module):
    """Encoder, multi-scale quantizer and decoder; keys are those of the released weights.

    codebook_size, z_channels: number and width of the codes.   ch, ch_mult, num_res_blocks: of the
    convolutions; each step of ch_mult but the first halves the size.   patch_nums: sides of the token maps,
    or height and width of each; the last is the size of the features.   quant_resi, share_quant_resi,
    using_znorm, beta, codebook_init, revive_below, quantize_after: see MultiScaleQuantizer.
    discriminator_channels: of a PatchDiscriminator to train beside, 0 for none; discriminator_layers: its
    depth.   norm_groups: at most so many in a norm, each of at least group_channels channels. A channel that
    is a group of its own loses its mean over the picture, and colours with it; the released width has five
    to a group.
    """

    def __init__(
        self,
        *,
        codebook_size: int = 4096,
        z_channels: int = 32,
        ch: int = 160,
        ch_mult: Sequence[int] = (1, 1, 2, 2, 4),
        num_res_blocks: int = 2,
        patch_nums: Sequence[Size] = PATCH_NUMS,
        dropout: float = 0.0,
        quant_resi: float = 0.5,
        share_quant_resi: int = 4,
        using_znorm: bool = False,
        beta: float = 0.25,
        codebook_init: float | None = None,
        revive_below: float = 0.0,
        discriminator_channels: int = 0,
        discriminator_layers: int = 3,
        norm_groups: int = NORM_GROUPS,
        group_channels: int = 1,
        quantize_after: int = 0,
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        _check_widths(ch, ch_mult, norm_groups, group_channels)
        self.arguments: dict[str, Any] = arguments
        self.patch_nums, self.factor = plain_scales(patch_nums), 2 ** (len(ch_mult) - 1)
        sizes: dict[str, Any] = {
            "ch": ch, "ch_mult": ch_mult, "num_res_blocks": num_res_blocks, "z_channels": z_channels,
            "dropout": dropout,
            "norm": partial(group_norm, most_groups=norm_groups, least_channels=group_channels),
        }  # fmt: skip
        self.encoder, self.decoder = Encoder(**sizes), Decoder(**sizes)
        self.quantize = MultiScaleQuantizer(
            codebook_size=codebook_size, channels=z_channels, patch_nums=patch_nums, quant_resi=quant_resi,
            share_quant_resi=share_quant_resi, using_znorm=using_znorm, beta=beta,
            codebook_init=codebook_init, revive_below=revive_below, quantize_after=quantize_after,
        )  # fmt: skip
        self.quant_conv = nn.Conv2d(z_channels, z_channels, 3, padding=1)
        self.post_quant_conv = nn.Conv2d(z_channels, z_channels, 3, padding=1)
        if (norm_groups, group_channels) != (NORM_GROUPS, 1):
            # shapes do not show how channels are grouped; a file of weights has to tell
            self.register_buffer("norm_grouping", torch.tensor([norm_groups, group_channels]))
        self.discriminator: PatchDiscriminator | None = None
        if discriminator_channels:
            self.discriminator = PatchDiscriminator(discriminator_channels, discriminator_layers)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Reconstruct for training.   pixels: (b, 3, h, w) in [-1, 1].

        Returns pixels that are not clamped, the quantizer's loss (), and the tokens of every scale; with a
        discriminator also its Verdicts.
        """
        quantized = self.quantize(self.features(pixels))
        reconstruction: Tensor = self.decoder(self.post_quant_conv(quantized.f_hat.to(pixels.dtype)))
        if self.discriminator is None:
            return reconstruction, quantized.loss, quantized.ids
        verdicts = self.discriminator.judge(pixels, reconstruction)
        return reconstruction, quantized.loss, quantized.ids, verdicts  # type: ignore[return-value]

    def features(self, pixels: Tensor) -> Tensor:
        """What is quantized.   pixels: (b, 3, h, w) in [-1, 1].   Returns (b, z, h / factor, w / factor)."""
        if pixels.ndim != 4 or pixels.shape[1] != 3 or any(side % self.factor for side in pixels.shape[2:]):
            raise ShapeError(
                f"pixels {tuple(pixels.shape)} cannot be encoded",
                fix=f"use (b, 3, h, w) with sides that are multiples of {self.factor}",
            )
        # images read as (h, w, c) arrive channels-last, where the CPU's group norm loses three digits
        features: Tensor = self.quant_conv(self.encoder(pixels.contiguous()))
        return features

    @torch.no_grad()
    def encode(self, pixels: Tensor, patch_nums: Sequence[Size] | None = None) -> list[Tensor]:
        """Tokens (b, h_k w_k) of every scale.   pixels: (b, 3, h, w) in [-1, 1]."""
        return self.quantize.encode(self.features(pixels), patch_nums)[0]

    @torch.no_grad()
    def decode_features(self, f_hat: Tensor) -> Tensor:
        """Pixels (b, 3, h, w) in [-1, 1].   f_hat: (b, z, h', w')."""
        weight = self.post_quant_conv.weight
        pixels: Tensor = self.decoder(self.post_quant_conv(f_hat.to(weight.dtype)))
        return pixels.clamp(-1, 1)

    def decode(self, ids: Sequence[Tensor], patch_nums: Sequence[Size] | None = None) -> Tensor:
        """Pixels (b, 3, h, w) in [-1, 1] from the tokens of all scales."""
        return self.decode_features(self.quantize.partial_sums(ids, patch_nums)[-1])

    def decode_partial(self, ids: Sequence[Tensor], patch_nums: Sequence[Size] | None = None) -> list[Tensor]:
        """Pixels after each scale, coarse to fine, from the tokens of all scales."""
        return [self.decode_features(f_hat) for f_hat in self.quantize.partial_sums(ids, patch_nums)]

    @torch.no_grad()
    def reconstruct(self, pixels: Tensor) -> Tensor:
        """Pixels (b, 3, h, w) float32 in [-1, 1] through tokens and back."""
        return self.decode(self.encode(pixels.to(self.quantize.weight))).float()

    def graphs(self) -> dict[str, Graph]:
        """Pixels to the features that are quantized, and features, quantized or not, to pixels."""
        (pixels,) = self.example_inputs()
        return {"encoder": graph(Called(self, "features"), "features", pixels=pixels), **self.decoder_graph()}

    def decoder_graph(self) -> dict[str, Graph]:
        """Features to pixels."""
        weight = self.quantize.weight
        features = weight.new_zeros(1, weight.shape[1], *self.quantize.sizes[-1])
        return {"decoder": graph(Called(self, "decode_features"), "pixels", features=features)}

    def example_inputs(self) -> tuple[Tensor]:
        """Arguments of `forward` for one sample."""
        sides = (side * self.factor for side in self.quantize.sizes[-1])
        return (torch.zeros(1, 3, *sides, device=self.quantize.weight.device),)


def _check_widths(ch: int, ch_mult: Sequence[int], norm_groups: int, group_channels: int) -> None:
    if min(ch, norm_groups, group_channels) < 1:
        raise UsageError(f"ch, norm_groups and group_channels are {ch}, {norm_groups} and {group_channels}")
    if ch % norm_groups and norm_groups % ch:
        raise UsageError(
            f"ch is {ch}", fix=f"use a multiple or a divisor of {norm_groups}, the number of norm groups"
        )
    for width in (ch * factor for factor in ch_mult):
        groups = min(norm_groups, width // group_channels)
        if groups == 0 or width % groups:
            raise UsageError(
                f"{width} channels cannot be split into {groups} norm groups",
                fix="use a group_channels that divides ch, and factors in ch_mult that norm_groups allow",
            )
