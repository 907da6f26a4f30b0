"""A text-to-image model in diffusers' layout (Stable Diffusion 1.x, 2.x, XL), part by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genzoo.core.errors import CheckpointError, GenzooError, WeightsError
from genzoo.core.reading import read_json
from genzoo.core.shapes_alone import shapes
from genzoo.nn.resting import Resting
from genzoo.pretrained.codecs import AutoencoderKLCodec
from genzoo.pretrained.hub import SMALL, WEIGHTS_FILE, WHOLE, fetched, resolve, weights_lack
from genzoo.pretrained.prompts import load_prompt_encoder
from genzoo.pretrained.text_features import (
    TextFeatures,
    encode_ids,
    num_chunks,
    tokenize,
    tokenize_weighted,
    weighted_features,
)

NUM_TIME_IDS = 6  # SDXL: original height and width, corner of the crop, target height and width


@dataclass(frozen=True)
class TextToImageParts:
    """unet: a UNet2DConditionModel.   tokenizers, text_encoders: one each, or two for SDXL.

    vae: None when the UNet works on pixels.   scheduler: scheduler_config.json, see
    `genzoo.diffusion.prompted.schedule_from`.   zeros_for_empty: a negative prompt that is left out means
    zeros and not the features of "" (SDXL).   source: the folder or hub id.   resting: the text encoders,
    where they lie in the host's memory but while they read.
    """

    unet: Any
    tokenizers: tuple[Any, ...]
    text_encoders: tuple[Any, ...]
    vae: AutoencoderKLCodec | None
    scheduler: Mapping[str, Any]
    zeros_for_empty: bool = False
    source: str = ""
    resting: Resting | None = None

    @property
    def is_sdxl(self) -> bool:
        """Whether there are two text encoders and the size of the picture is a condition."""
        return len(self.text_encoders) == 2

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(c, h, w) of what the UNet was made for."""
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return (self.unet.config.in_channels, height, width)

    @property
    def pixel_factor(self) -> int:
        """Pixels along one side of a latent."""
        return 1 if self.vae is None else 2 ** (len(self.vae.vae.config.block_out_channels) - 1)

    @property
    def max_length(self) -> int:
        """Tokens of the longest prompt, beginning and end included."""
        return int(self.text_encoders[0].config.max_position_embeddings)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        """Move everything."""
        for module in (self.unet, *self.text_encoders):
            module.to(device, dtype)
        if self.vae is not None:
            self.vae.to(device, dtype)

    def freeze(self) -> None:
        """No part gets gradients; evaluation mode."""
        for module in (self.unet, *self.text_encoders):
            module.requires_grad_(False).eval()

    def token_ids(self, texts: Sequence[str], *, chunks: int = 1) -> list[Tensor]:
        """Padded ids (b, k l) for each text encoder, of texts as they stand; see `text_features.tokenize`."""
        return [tokenize(tokenizer, texts, self.max_length, chunks=chunks) for tokenizer in self.tokenizers]

    def num_chunks(self, prompt: str, *, weighted: bool = True) -> int:
        """How many times the encoders have to read to reach a prompt's end."""
        return num_chunks(self.tokenizers[0], prompt, self.max_length, weighted=weighted)

    def encode_captions(self, captions: Sequence[str]) -> TextFeatures:
        """Features of texts as they stand; differentiable in whatever parameters have gradients."""
        return self.encode(self.token_ids(captions))

    def encode(self, ids: Sequence[Tensor]) -> TextFeatures:
        """Features of ids (b, k l), one for each text encoder; see `text_features.encode_ids`."""
        if self.resting is None:
            return encode_ids(self.text_encoders, ids)
        return self.resting.read(lambda *given: encode_ids(self.text_encoders, given), *ids)

    def encode_prompts(self, prompts: Sequence[str]) -> TextFeatures:
        """Features of prompts as people type them, with weights such as (word:1.2), of any length; of
        encoders that lie in fewer bits than the UNet, as the UNet computes.
        """
        features = self._prompts(prompts)
        dtype = torch.promote_types(features.hidden.dtype, next(self.unet.parameters()).dtype)
        return features.to(features.hidden.new_empty(0, dtype=dtype))

    def _prompts(self, prompts: Sequence[str]) -> TextFeatures:
        read = [tokenize_weighted(tokenizer, prompts, self.max_length) for tokenizer in self.tokenizers]
        features, weights = self.encode([ids for ids, _ in read]), read[0][1]
        if bool((weights == 1).all()):
            return features
        empty = self.encode_captions([""]).hidden.repeat(1, weights.shape[1] // self.max_length, 1)
        return TextFeatures(weighted_features(features.hidden, weights, empty), features.pooled)

    def encode_negative(self, prompt: str | None) -> TextFeatures:
        """One row: the features of a negative prompt, or of none."""
        features = self.encode_prompts([prompt or ""])
        return features.zeros_like() if prompt is None and self.zeros_for_empty else features

    def predict(self, x_t: Tensor, timesteps: Tensor, text: TextFeatures) -> Tensor:
        """The UNet's output, noise or v as its scheduler says.   x_t: (b, c, h, w).   timesteps: (b,)."""
        return predict(self.unet, x_t, timesteps, text, pixel_factor=self.pixel_factor)


def predict(
    unet: nn.Module, x_t: Tensor, timesteps: Tensor, text: TextFeatures, *, pixel_factor: int = 1
) -> Tensor:
    """One call of a UNet2DConditionModel. SDXL is told the picture's size and that nothing was cropped.

    x_t: (b, c, h, w).   timesteps: (b,).   text: b rows.   Returns (b, c, h, w).
    """
    added = None
    if text.pooled is not None:
        height, width = (side * pixel_factor for side in x_t.shape[-2:])
        time_ids = x_t.new_tensor([[height, width, 0, 0, height, width]]).expand(len(x_t), NUM_TIME_IDS)
        added = {"text_embeds": text.pooled.to(x_t.dtype), "time_ids": time_ids}
    output: Tensor = unet(
        x_t,
        timesteps,
        encoder_hidden_states=text.hidden.to(x_t.dtype),
        added_cond_kwargs=added,
        return_dict=False,
    )[0]
    return output


def load_parts(
    base: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    codec_precision: Literal["fp32", "bf16"] = "fp32",
) -> TextToImageParts:
    """The parts of a folder or hub id in diffusers' layout, or of "assets:NAME", frozen, on the CPU.

    codec_precision: of the autoencoder, see `AutoencoderKLCodec`. safetensors only. A folder without "vae" is
    a model of pixels. Raises WeightsError naming the file that is not there, CheckpointError when weights and
    configs disagree.
    """
    index = _read_json(base, "model_index.json", None)
    scheduler = _read_json(base, "scheduler_config.json", "scheduler")
    encoder = load_prompt_encoder(base)
    for model in encoder.models:
        model.to(dtype)
    vae = None
    if index.get("vae", [None])[0]:
        vae = AutoencoderKLCodec(str(base), subfolder="vae", precision=codec_precision)
    if vae is not None and dtype != torch.float32:
        vae.to("cpu", dtype)
    parts = TextToImageParts(
        unet=_load_unet(base, dtype),
        tokenizers=tuple(encoder.tokenizers),
        text_encoders=tuple(encoder.models),
        vae=vae,
        scheduler=scheduler,
        zeros_for_empty=bool(index.get("force_zeros_for_empty_prompt", len(encoder.models) == 2)),
        source=str(base),
    )
    _check_widths(parts)
    parts.freeze()
    return parts


def _load_unet(base: str | Path, dtype: torch.dtype) -> nn.Module:
    from diffusers import UNet2DConditionModel

    if weights_lack(base, WEIGHTS_FILE, subfolder="unet"):
        with shapes():
            empty: nn.Module = UNet2DConditionModel.from_config(_read_json(base, "config.json", "unet"))
            return nn.Module.to(empty, dtype)  # diffusers' own warns of layers to be kept in float32
    names = ("config.json", WEIGHTS_FILE)
    place = fetched(base, names, subfolder="unet", together=WHOLE, instead=SMALL)
    try:
        unet, report = UNet2DConditionModel.from_pretrained(
            place,
            subfolder="unet",
            local_files_only=True,
            torch_dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
        )
    except GenzooError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(
            "cannot read the UNet",
            where=f"{base}/unet",
            why=str(error).strip().partition("\n")[0][:200],
            fix="use a folder in diffusers' layout with safetensors weights",
        ) from error
    wrong = {kind: names for kind, names in report.items() if names and kind != "error_msgs"}
    if wrong:
        listed = "; ".join(f"{kind}: {', '.join(map(str, list(names)[:3]))}" for kind, names in wrong.items())
        raise CheckpointError("the UNet's weights do not fit its config", where=f"{base}/unet", why=listed)
    found: nn.Module = unet
    return found


def _read_json(base: str | Path, filename: str, subfolder: str | None) -> dict[str, Any]:
    path = resolve(base, filename, subfolder=subfolder, together=WHOLE, instead=SMALL)
    content = read_json(path, filename, error=CheckpointError)
    if not isinstance(content, dict):
        raise CheckpointError(f"{filename} does not hold an object", where=str(path))
    return content


def _check_widths(parts: TextToImageParts) -> None:
    """Text encoders and cross-attention must speak of the same width, latents of the same channels."""
    width = sum(model.config.hidden_size for model in parts.text_encoders)
    expected = parts.unet.config.cross_attention_dim
    if expected != width:
        raise CheckpointError(
            f"the UNet attends to text {expected} wide and the text encoders give {width}",
            where=parts.source,
            fix="use unet and text_encoder of one model",
        )
    channels = 3 if parts.vae is None else parts.vae.vae.config.latent_channels
    if parts.unet.config.in_channels != channels:
        raise CheckpointError(
            f"the UNet takes {parts.unet.config.in_channels} channels and gets {channels}",
            where=parts.source,
            fix="in-painting and depth models are not supported; use the plain text-to-image model",
        )
