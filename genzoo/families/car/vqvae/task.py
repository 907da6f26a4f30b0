"""Training of the VQVAE: reconstruct the pixels, and keep features and codes together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from genzoo.core.errors import DataError, UsageError, unused_options
from genzoo.core.seeds import SampleStreams
from genzoo.core.types import Batch, LatentCodec, LossOutput
from genzoo.families.car.control.conditions import Pictures, read_pictures
from genzoo.families.car.vqvae.losses import PictureLosses
from genzoo.families.car.vqvae.model import VQVAE
from genzoo.nn.evaluating import evaluating


class VQVAETask:
    """Trains a VQVAE on pixels.

    codec, sampler: there are none.   The rest: see PictureLosses; the adversarial term needs a model with a
    discriminator. Batches hold "pixels" (b, 3, h, w) in [-1, 1]. Sampling reconstructs pictures.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        codec: LatentCodec | None = None,
        sampler: Mapping[str, Any] | None = None,
        reconstruction: str = "l2",
        vq_weight: float = 1.0,
        opponent_weight: float = 0.0,
        perceptual_weight: float = 0.0,
        perceptual: Mapping[str, Any] | None = None,
        adversarial_weight: float = 0.0,
        adversarial_after: int = 0,
        adaptive: bool = True,
    ) -> None:
        if not isinstance(model, VQVAE):
            raise UsageError(f"this task trains a VQVAE, not a {type(model).__name__}")
        if codec is not None or sampler is not None:
            raise UsageError("a VQVAE trains on pixels", fix="leave out codec and sampler")
        if bool(adversarial_weight) != (model.discriminator is not None):
            raise UsageError(
                "the adversarial term and the discriminator go together",
                fix="set both task.adversarial_weight and model.discriminator_channels, or neither",
            )
        self.model, self.vq_weight = model, vq_weight
        self.sampler: Mapping[str, Any] = {}
        self.losses = PictureLosses(
            reconstruction=reconstruction,
            opponent_weight=opponent_weight,
            perceptual_weight=perceptual_weight,
            perceptual=perceptual,
            adversarial_weight=adversarial_weight,
            adversarial_after=adversarial_after,
            adaptive=adaptive,
        )

    @property
    def pixel_size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        height, width = self.model.quantize.sizes[-1]
        return height * self.model.factor, width * self.model.factor

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        """Move the model and the perceptual network."""
        self.model.to(device)
        self.losses.to(device)

    def prepare_batch(self, batch: Batch, generator: SampleStreams) -> Batch:
        """The pixels, on the model's device, and how many pictures were seen before."""
        if "pixels" not in batch:
            raise DataError("the batch has no pixels", why=f"it holds {', '.join(sorted(batch))}")
        seen = int(batch["position"].min()) if "position" in batch else 0
        return {"pixels": batch["pixels"].to(self.model.quantize.weight.device), "seen": seen}

    def loss(self, model: nn.Module, batch: Batch, generator: SampleStreams | None = None) -> LossOutput:
        """The terms of PictureLosses plus the quantizer's; "used_codes" is the batch's share, in percent."""
        pixels = batch["pixels"]
        reconstruction, vq_loss, ids, *verdicts = model(pixels)
        error, metrics = self.losses.picture_error(pixels, reconstruction)
        chosen = torch.cat(ids, dim=1).unique().numel() if ids else 0
        used = chosen / self.model.arguments["codebook_size"] * 100
        metrics |= {"vq": vq_loss.detach(), "used_codes": error.new_tensor(used)}
        total = error + self.vq_weight * vq_loss
        if verdicts:
            last_layer = self.model.decoder.conv_out.weight
            seen = batch["seen"]
            term, parts = self.losses.adversarial(error, verdicts[0], last_layer, seen=seen)
            total, metrics = total + term, metrics | parts
        return LossOutput(total, metrics)

    def conditions(self, num: int, image: Pictures | None = None, **unknown: Any) -> Batch:
        """The pictures to reconstruct: one for all, or one for each."""
        if unknown:
            raise unused_options(unknown, ["image"])
        if image is None:
            raise UsageError("a VQVAE reconstructs pictures, and none were given", fix="give image=photo.png")
        return {"image": read_pictures(image, num, self.pixel_size, what="image")}

    def conditions_from(self, batch: Batch) -> dict[str, Any]:
        """What `conditions` takes to reconstruct a batch's pictures."""
        return {"image": batch["pixels"]}

    @torch.no_grad()
    def sample(
        self, model: nn.Module, conditions: Batch, generator: SampleStreams, **overrides: Any
    ) -> Tensor:
        """Reconstructions (n, 3, h, w) in [-1, 1]."""
        if overrides:
            raise UsageError(f"reconstructing takes no {next(iter(overrides))!r}")
        assert isinstance(model, VQVAE)
        with evaluating(model):
            return model.reconstruct(conditions["image"])
