"""A KL autoencoder of diffusers' layout with fresh weights: what the `autoencoder` task trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.errors import UsageError
from genzoo.core.files import write_folder
from genzoo.nn.graphs import Graph
from genzoo.pretrained.autoencoder_graphs import decoder_graph, encoder_graph


class AutoencoderKLModel(nn.Module):
    """diffusers' AutoencoderKL; every step of block_out_channels but the first halves the size.

    layers_per_block, norm_num_groups, attention: of the convolution blocks; attention is in the middle
    block.   input_size: pixels along a side, only for counting. The scaling factor it writes is 1: a
    codec's own `scaling_factor` is the place to say how far latents are from unit variance.
    """

    def __init__(
        self,
        *,
        block_out_channels: Sequence[int] = (128, 256, 512, 512),
        layers_per_block: int = 2,
        latent_channels: int = 4,
        norm_num_groups: int = 32,
        attention: bool = True,
        in_channels: int = 3,
        input_size: int = 256,
    ) -> None:
        from diffusers import AutoencoderKL

        super().__init__()
        if any(channels % norm_num_groups for channels in block_out_channels):
            raise UsageError(
                f"block_out_channels {list(block_out_channels)} are not multiples of {norm_num_groups}",
                fix="set norm_num_groups to a divisor of all of them",
            )
        depth = len(block_out_channels)
        self.in_channels, self.input_size = in_channels, input_size
        self.latent_channels, self.factor = latent_channels, 2 ** (depth - 1)
        self.vae: Any = AutoencoderKL(
            in_channels=in_channels,
            out_channels=in_channels,
            down_block_types=("DownEncoderBlock2D",) * depth,
            up_block_types=("UpDecoderBlock2D",) * depth,
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            latent_channels=latent_channels,
            norm_num_groups=norm_num_groups,
            mid_block_add_attention=attention,
            sample_size=input_size,
            scaling_factor=1.0,
            force_upcast=False,
        )

    def latent_shape(self, pixels: Tensor) -> tuple[int, int, int, int]:
        """(b, c', h', w') of the latents of pixels (b, c, h, w)."""
        b, _, height, width = pixels.shape
        return (b, self.latent_channels, height // self.factor, width // self.factor)

    def forward(self, pixels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruct from latents drawn with `noise`.

        pixels: (b, c, h, w) in [-1, 1].   noise: (b, c', h', w').   Returns pixels (not clamped), and mean
        and log-variance of the latents, in float32.
        """
        moments = self.vae.encode(pixels).latent_dist.parameters.float()
        mean, log_variance = moments.chunk(2, dim=1)
        log_variance = log_variance.clamp(-30, 20)
        latents = mean + (0.5 * log_variance).exp() * noise.to(mean)
        return self.vae.decode(latents).sample.float(), mean, log_variance

    @torch.no_grad()
    def reconstruct(self, pixels: Tensor) -> Tensor:
        """Pixels in [-1, 1] from the mean latents."""
        mean = self.vae.encode(pixels).latent_dist.mean
        decoded: Tensor = self.vae.decode(mean).sample
        return decoded.clamp(-1, 1)

    @torch.no_grad()
    def latent_deviation(self, pixels: Tensor) -> float:
        """Standard deviation of all mean latents: 1 / this is what makes them unit variance."""
        parts = [self.vae.encode(part).latent_dist.mean for part in pixels.split(64)]
        return float(torch.cat(parts).std())

    def write(self, folder: str | Path, *, half: bool = False) -> Path:
        """Write config.json and weights as diffusers does."""
        copy = type(self.vae).from_config(self.vae.config)
        copy.load_state_dict(self.vae.state_dict())
        copy = copy.half() if half else copy
        return write_folder(folder, lambda part: copy.save_pretrained(str(part)))

    def graphs(self) -> dict[str, Graph]:
        """Pixels to moments of the latents, and latents to pixels."""
        latents = self.input_size // self.factor
        return {**encoder_graph(self.vae, self.input_size), **decoder_graph(self.vae, latents)}

    def example_inputs(self) -> tuple[Tensor, Tensor]:
        """Arguments of `forward` for one sample."""
        like = next(self.parameters())
        pixels = like.new_zeros(1, self.in_channels, self.input_size, self.input_size)
        return pixels, like.new_zeros(self.latent_shape(pixels))
