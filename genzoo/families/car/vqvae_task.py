"""Training of the VQVAE: reconstruct the pixels, and keep features and codes together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, mse_loss

from genzoo.core.errors import DataError, UsageError, did_you_mean
from genzoo.core.seeds import SampleStreams
from genzoo.core.types import Batch, LatentCodec, LossOutput
from genzoo.families.car.conditions import Pictures, read_pictures
from genzoo.families.car.drawing import evaluating
from genzoo.families.car.vqvae import VQVAE

ERRORS = {"l1": l1_loss, "l2": mse_loss}


class VQVAETask:
    """Trains a VQVAE on pixels.

    reconstruction: "l1" or "l2".   vq_weight: of the quantizer's loss.   codec, sampler: there are none.
    Batches hold "pixels" (b, 3, h, w) in [-1, 1]. Sampling reconstructs pictures.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        codec: LatentCodec | None = None,
        sampler: Mapping[str, Any] | None = None,
        reconstruction: str = "l2",
        vq_weight: float = 1.0,
    ) -> None:
        if not isinstance(model, VQVAE):
            raise UsageError(f"this task trains a VQVAE, not a {type(model).__name__}")
        if codec is not None or sampler is not None:
            raise UsageError("a VQVAE trains on pixels", fix="leave out codec and sampler")
        if reconstruction not in ERRORS:
            raise UsageError(f"reconstruction is {reconstruction!r}", fix=f"use one of {', '.join(ERRORS)}")
        self.model, self.reconstruction, self.vq_weight = model, reconstruction, vq_weight

    @property
    def pixel_size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        height, width = self.model.quantize.sizes[-1]
        return height * self.model.factor, width * self.model.factor

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        """Move the model."""
        self.model.to(device)

    def prepare_batch(self, batch: Batch, generator: SampleStreams) -> Batch:
        """The pixels, on the model's device."""
        if "pixels" not in batch:
            raise DataError("the batch has no pixels", why=f"it holds {', '.join(sorted(batch))}")
        return {"pixels": batch["pixels"].to(self.model.quantize.weight.device)}

    def loss(self, model: nn.Module, batch: Batch, generator: SampleStreams | None = None) -> LossOutput:
        """Reconstruction error plus the quantizer's loss; "used_codes" is the batch's share, in percent."""
        reconstruction, vq_loss, ids = model(batch["pixels"])
        error = ERRORS[self.reconstruction](reconstruction.float(), batch["pixels"].float())
        used = torch.cat(ids, dim=1).unique().numel() / self.model.arguments["codebook_size"] * 100
        metrics = {
            "reconstruction": error.detach(),
            "vq": vq_loss.detach(),
            "used_codes": error.new_tensor(used),
        }
        return LossOutput(error + self.vq_weight * vq_loss, metrics)

    def conditions(self, num: int, image: Pictures | None = None, **unknown: Any) -> Batch:
        """The pictures to reconstruct: one for all, or one for each."""
        if unknown:
            name = next(iter(unknown))
            raise UsageError(
                f"this task has no use for {name!r}", fix=did_you_mean(name, ["image"]) or "it takes image"
            )
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
            pixels = conditions["image"].to(model.quantize.weight.device)
            return model.decode(model.encode(pixels)).float()
