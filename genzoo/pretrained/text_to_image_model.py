"""A small text-to-image model with fresh weights: CLIP's tokenizer and text transformer, diffusers' UNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from genzoo.core.errors import UsageError
from genzoo.pretrained.clip import fresh_text_tower
from genzoo.pretrained.clip_vocabulary import MAX_LENGTH, clip_tokenizer
from genzoo.pretrained.codecs import AutoencoderKLCodec
from genzoo.pretrained.text_features import encode_ids, tokenize
from genzoo.pretrained.text_to_image import TextToImageParts, load_parts, predict
from genzoo.pretrained.write_text_to_image import write_folder


class TextToImageModel(nn.Module):
    """Text encoder and UNet trained together, in the layout of Stable Diffusion 1.x.

    block_out_channels, layers_per_block, num_heads, norm_num_groups: of the UNet; every block attends to the
    text.   text_width, text_layers, text_heads: of the text transformer, 77 tokens long.   in_channels,
    input_size: of the latents.   attention: "fused" is torch's kernel, "plain" products and a softmax, with
    which a training step in bfloat16 takes two thirds of the time on a CPU; weights are the same, rounding is
    not.
    """

    def __init__(
        self,
        *,
        block_out_channels: Sequence[int] = (64, 112),
        layers_per_block: int = 1,
        num_heads: int = 4,
        norm_num_groups: int = 16,
        text_width: int = 64,
        text_layers: int = 2,
        text_heads: int = 4,
        in_channels: int = 4,
        input_size: int = 8,
        attention: Literal["fused", "plain"] = "fused",
    ) -> None:
        super().__init__()
        if attention not in ("fused", "plain"):
            raise UsageError(f"attention is {attention!r}", fix='use "fused" or "plain"')
        if any(channels % norm_num_groups or channels % num_heads for channels in block_out_channels):
            raise UsageError(
                f"block_out_channels {list(block_out_channels)} have to be multiples of norm_num_groups "
                f"{norm_num_groups} and of num_heads {num_heads}"
            )
        self.in_channels, self.input_size = in_channels, input_size
        self.tokenizer = clip_tokenizer()
        self.text_encoder = fresh_text_tower(text_width, text_layers, text_heads)
        self.unet = _unet(
            block_out_channels,
            layers_per_block,
            num_heads,
            norm_num_groups,
            text_width,
            in_channels,
            input_size,
        )
        if attention == "plain":
            _attend_plainly(self.unet)

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Padded ids (b, 77)."""
        return tokenize(self.tokenizer, prompts, MAX_LENGTH)

    def forward(self, x_t: Tensor, timesteps: Tensor, input_ids: Tensor) -> Tensor:
        """The UNet's output (b, c, h, w).   x_t: (b, c, h, w).   timesteps: (b,).   input_ids: (b, 77)."""
        return predict(self.unet, x_t, timesteps, encode_ids([self.text_encoder], [input_ids]))

    def parts(self, codec: Any, scheduler: Mapping[str, Any]) -> TextToImageParts:
        """The same weights, seen as a loaded model: for sampling, and for whoever trains a part of it."""
        vae = codec if isinstance(codec, AutoencoderKLCodec) else None
        return TextToImageParts(self.unet, (self.tokenizer,), (self.text_encoder,), vae, scheduler)

    def write(
        self, folder: str | Path, codec: Any, scheduler: Mapping[str, Any], *, half: bool = False
    ) -> Path:
        """Write a folder that diffusers loads."""
        return write_folder(self.parts(codec, scheduler), folder, half=half)

    def compiled_blocks(self) -> list[nn.Module]:
        """Parts that are one graph each: the whole UNet, whose blocks hand over lists."""
        return [self.unet]

    def example_inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Arguments of `forward` for one sample."""
        x_t = next(self.unet.parameters()).new_zeros(1, self.in_channels, self.input_size, self.input_size)
        return x_t, x_t.new_zeros(1).long(), x_t.new_zeros(1, MAX_LENGTH).long()


def weights_of_base(base: str | Path) -> dict[str, Tensor]:
    """The weights of a folder in diffusers' layout under the names of a TextToImageModel.

    Raises UsageError for one with two text encoders.
    """
    parts = load_parts(base)
    if parts.is_sdxl:
        raise UsageError(
            "a model with one text encoder cannot start from a base with two",
            where=str(base),
            fix="name one of the layout of Stable Diffusion 1.x or 2.x",
        )
    named = {"unet": parts.unet, "text_encoder": parts.text_encoders[0]}
    return {
        f"{part}.{name}": value for part, one in named.items() for name, value in one.state_dict().items()
    }


def _unet(
    channels: Sequence[int], layers: int, heads: int, groups: int, width: int, in_channels: int, size: int
) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=size,
        in_channels=in_channels,
        out_channels=in_channels,
        block_out_channels=tuple(channels),
        layers_per_block=layers,
        norm_num_groups=groups,
        cross_attention_dim=width,
        attention_head_dim=heads,  # diffusers calls the number of heads so
        down_block_types=("CrossAttnDownBlock2D",) * len(channels),
        up_block_types=("CrossAttnUpBlock2D",) * len(channels),
    )


def _attend_plainly(unet: Any) -> None:
    from diffusers.models.attention_processor import AttnProcessor

    unet.set_attn_processor(AttnProcessor())
