"""The VQVAE as a frozen codec: pixels to the features it quantizes, to tokens, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from genzoo.autoregression.scales import plain_scales, stretched_scales
from genzoo.core.checkpoint import tensors_digest
from genzoo.core.errors import ShapeError, UsageError
from genzoo.core.files import as_safetensors, put_file
from genzoo.core.seeds import SampleStreams
from genzoo.core.sizes import Size
from genzoo.families.car.var.bf16_copy import HalfCopy, Precision
from genzoo.families.car.var.blocks import own_precision
from genzoo.families.car.vqvae.quantizer import MultiScaleQuantizer
from genzoo.families.car.weights.loading import load_vqvae
from genzoo.kernels.group_norm import channels_last_where_faster
from genzoo.nn.graphs import Graph

SAVED = "vqvae.safetensors"


class VQVAECodec:
    """A multi-scale VQVAE with frozen weights.

    weights: a released or exported file, a run folder, or "owner/name:file" on the hub.   patch_nums: sides
    of the maps, or height and width of each, where the file does not tell them, or other ones: the same
    weights serve all sizes and shapes.   slice_size: images encoded or decoded at once, which bounds memory.
    Latents are the features before quantization, in float32 whatever the decoder's type: rounding would
    change tokens.
    """

    def __init__(
        self, weights: str, *, patch_nums: Sequence[Size] | None = None, slice_size: int = 8
    ) -> None:
        if slice_size < 1:
            raise UsageError(f"slice_size is a number of images, not {slice_size}")
        self.slice_size = slice_size
        known = {} if patch_nums is None else {"patch_nums": list(patch_nums)}
        self.vqvae = load_vqvae(weights, **known).eval().requires_grad_(False)
        self._decoder = nn.Sequential(self.vqvae.post_quant_conv, self.vqvae.decoder)
        self._half = HalfCopy(channels_last_where_faster)
        self.patch_nums = self.vqvae.patch_nums
        self.fingerprint = f"vqvae-{tensors_digest(dict(self.vqvae.state_dict()))}-{list(self.patch_nums)}"

    def save(self, folder: Path) -> dict[str, str | None]:
        """Write the VQVAE into a folder; the name of the file as `weights`."""
        put_file(folder / SAVED, as_safetensors(dict(self.vqvae.state_dict())))
        return {"weights": SAVED}

    @property
    def quantizer(self) -> MultiScaleQuantizer:
        """The codebook and how scales add up."""
        return self.vqvae.quantize

    def require_tokens(self, patch_nums: Sequence[Size], channels: int, codebook_size: int) -> None:
        """Raise UsageError unless a model reads and writes this codec's tokens."""
        ours = (plain_scales(patch_nums), channels, codebook_size)
        size, width = self.quantizer.weight.shape
        theirs = (self.patch_nums, width, size)
        if ours != theirs:
            raise UsageError(
                "the model and the VQVAE disagree about tokens",
                why=f"scales, width, number: {ours} and {theirs}",
                fix="set the model's patch_nums, in_channels and codebook_size, or the codec's patch_nums",
            )

    def latent_shape(self, pixel_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(3, h, w) of the pixels to (c, h', w') of the features."""
        channels, height, width = pixel_shape
        factor = self.vqvae.factor
        size = (height // factor, width // factor)
        if channels != 3 or height % factor or width % factor or size != self.quantizer.sizes[-1]:
            sides = tuple(side * factor for side in self.quantizer.sizes[-1])
            raise ShapeError(
                f"this VQVAE codes pictures of shape {(3, *sides)}, not {tuple(pixel_shape)}",
                fix=f"set data.image_size to {list(sides)}{self._other_scales(height, width)}",
            )
        return (self.quantizer.weight.shape[1], *size)

    def _other_scales(self, height: int, width: int) -> str:
        """The scales that pictures of another shape would take, of the codec and of the model."""
        factor = self.vqvae.factor
        squares = [p for p in self.patch_nums if isinstance(p, int)]
        if height % factor or width % factor or squares != list(self.patch_nums):
            return f"; sides are multiples of {factor}"
        size = (height // factor, width // factor)
        scales = [p if isinstance(p, int) else list(p) for p in stretched_scales(squares, size)]
        return f", or patch_nums of codec and model to {scales}"

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        """Move everything; dtype goes to the decoder alone."""
        self.vqvae.to(device)
        for part in (self.vqvae.decoder, self.vqvae.post_quant_conv):
            part.to(dtype=dtype)

    @torch.no_grad()
    def moments(self, pixels: Tensor) -> Tensor:
        """Features (b, c, h, w) float32.   pixels: (b, 3, h', w') in [-1, 1]."""
        self.latent_shape(tuple(pixels.shape[1:]))
        with own_precision(pixels):
            return self._sliced(lambda part: self.vqvae.features(part.float()), pixels)

    def sample_moments(self, moments: Tensor, generator: SampleStreams) -> Tensor:
        """The features themselves; nothing is drawn."""
        return moments.float()

    def encode(self, pixels: Tensor, generator: SampleStreams) -> Tensor:
        """Features of the pixels; nothing is drawn."""
        return self.moments(pixels)

    @torch.no_grad()
    def decode(self, latents: Tensor, *, precision: Precision = "fp32") -> Tensor:
        """Pixels (b, 3, h', w') float32 in [-1, 1] of features, quantized or not.

        latents: (b, c, h, w).   precision: "bf16" decodes with a copy of the decoder in 16 bits.
        """
        decoder = self._half(self._decoder) if precision == "bf16" else self._decoder
        dtype = next(decoder.parameters()).dtype
        return self._sliced(lambda part: decoder(part.to(dtype)).clamp(-1, 1).float().contiguous(), latents)

    def tokens(self, latents: Tensor) -> list[Tensor]:
        """Tokens (b, h_k w_k) of every scale.   latents: (b, c, h, w)."""
        return self.quantizer.encode(latents.float())[0]

    def sums(self, latents: Tensor) -> list[Tensor]:
        """The quantized features after each scale, (b, c, h, w)."""
        return self.quantizer.encode(latents.float())[1]

    def graphs(self) -> dict[str, Graph]:
        """What makes pixels of a VAR's or a CAR's features."""
        return self.vqvae.decoder_graph()

    def _sliced(self, compute: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return torch.cat([compute(part) for part in x.split(self.slice_size)])
