"""Training of a KL autoencoder: reconstruct pixels from noisy latents that stay near a standard normal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, mse_loss

from genzoo.core.errors import DataError, ShapeError, UsageError, unused_options
from genzoo.core.seeds import SampleStreams
from genzoo.core.types import Batch, LatentCodec, LossOutput

ERRORS = {"l1": l1_loss, "l2": mse_loss}


class AutoencoderTask:
    """Trains a model (pixels, noise) -> (reconstruction, mean, log-variance) such as AutoencoderKLModel.

    reconstruction: "l1" or "l2".   kl_weight: of the mean divergence of a latent from a standard normal, in
    nats.   codec, sampler: there are none. Batches hold "pixels" (b, c, h, w) in [-1, 1]. Sampling
    reconstructs pictures that it is given.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        codec: LatentCodec | None = None,
        sampler: Mapping[str, Any] | None = None,
        reconstruction: str = "l1",
        kl_weight: float = 1e-3,
    ) -> None:
        if codec is not None or sampler is not None:
            raise UsageError("an autoencoder trains on pixels", fix="leave out codec and sampler")
        if reconstruction not in ERRORS:
            raise UsageError(f"reconstruction is {reconstruction!r}", fix=f"use one of {', '.join(ERRORS)}")
        if not kl_weight >= 0:
            raise UsageError(f"kl_weight must not be negative, not {kl_weight}")
        self.model: Any = model
        self.sampler: Mapping[str, Any] = {}
        self.reconstruction, self.kl_weight = reconstruction, kl_weight

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        """Move the model."""
        self.model.to(device)

    def prepare_batch(self, batch: Batch, generator: SampleStreams) -> Batch:
        """The pixels, and the noise of their latents from each sample's own stream."""
        if "pixels" not in batch:
            raise DataError("the batch has no pixels", why=f"it holds {', '.join(sorted(batch))}")
        parameter = next(self.model.parameters())
        pixels = batch["pixels"].to(parameter)
        if any(side % self.model.factor for side in pixels.shape[-2:]):
            raise ShapeError(
                f"pixels are {tuple(pixels.shape)}", fix=f"use sides that {self.model.factor} divides"
            )
        like = torch.empty(self.model.latent_shape(pixels), device=pixels.device, dtype=pixels.dtype)
        return {"pixels": pixels, "noise": generator.randn_like(like)}

    def loss(self, model: nn.Module, batch: Batch, generator: SampleStreams | None = None) -> LossOutput:
        """Reconstruction error plus kl_weight times the divergence."""
        reconstruction, mean, log_variance = model(batch["pixels"], batch["noise"])
        error = ERRORS[self.reconstruction](reconstruction, batch["pixels"])
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        metrics = {"reconstruction": error.detach(), "kl": kl.detach()}
        return LossOutput(error + self.kl_weight * kl, metrics)

    def conditions(self, num: int, image: Tensor | Sequence[Tensor] | None = None, **unknown: Any) -> Batch:
        """The pictures to reconstruct, (3, h, w) in [-1, 1]: one for all, or one for each."""
        if unknown:
            raise unused_options(unknown, ["image"])
        if image is None:
            raise UsageError("an autoencoder reconstructs pictures, and none were given", fix="pass image")
        if not isinstance(image, Tensor) and not all(isinstance(one, Tensor) for one in image):
            raise UsageError(f"image is {image!r}", fix="give pixels from Python, (3, h, w) in [-1, 1]")
        pictures = image if isinstance(image, Tensor) else torch.stack(list(image))
        pictures = pictures[None] if pictures.ndim == 3 else pictures
        if len(pictures) not in (1, num):
            raise UsageError(f"{len(pictures)} images for {num} samples", fix="pass one for each, or one")
        return {"image": pictures.expand(num, -1, -1, -1)}

    def conditions_from(self, batch: Batch) -> dict[str, Any]:
        """What `conditions` takes to reconstruct a batch's pictures."""
        return {"image": batch["pixels"]}

    def export(
        self, path: str | Path, *, layout: str | None = None, half: bool = False, **notes: Any
    ) -> Path:
        """Write the autoencoder as a folder in diffusers' layout, the only one there is."""
        if layout not in (None, "diffusers"):
            raise UsageError(f"an autoencoder has no layout {layout!r}", fix="use diffusers")
        plain: Any = self.model
        written: Path = plain.write(path, half=half)
        return written

    @torch.no_grad()
    def sample(
        self, model: nn.Module, conditions: Batch, generator: SampleStreams, **overrides: Any
    ) -> Tensor:
        """Reconstructions (n, 3, h, w) in [-1, 1]."""
        if overrides:
            raise UsageError(f"reconstructing takes no {next(iter(overrides))!r}")
        plain: Any = model
        reconstruction: Tensor = plain.reconstruct(conditions["image"].to(next(model.parameters())))
        return reconstruction.float()
