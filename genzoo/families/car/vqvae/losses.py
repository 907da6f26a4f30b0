"""What a reconstruction is judged by: error, perceptual distance, and a discriminator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from genzoo.core.errors import UsageError
from genzoo.families.car.var.blocks import own_precision
from genzoo.families.car.vqvae.discriminator import Verdicts, adaptive_weight, hinge
from genzoo.pretrained.perceptual import PerceptualDistance

ERRORS = {"l1": l1_loss, "l2": mse_loss}


class PictureLosses:
    """The terms of a VQVAE's training that look at pixels.

    reconstruction: "l1" or "l2".   opponent_weight, perceptual_weight, adversarial_weight: of the terms; 0
    leaves one out. The opponent term is the absolute error of red less green and of blue less yellow: an
    error over red, green and blue alone forgives a wrong hue of the right brightness.   perceptual: arguments
    of PerceptualDistance.   adaptive: let the adversarial term be as steep as the error.   adversarial_after:
    pictures seen before the adversarial term and the discriminator begin.
    """

    def __init__(
        self,
        *,
        reconstruction: str = "l2",
        opponent_weight: float = 0.0,
        perceptual_weight: float = 0.0,
        perceptual: Mapping[str, Any] | None = None,
        adversarial_weight: float = 0.0,
        adversarial_after: int = 0,
        adaptive: bool = True,
    ) -> None:
        if reconstruction not in ERRORS:
            raise UsageError(f"reconstruction is {reconstruction!r}", fix=f"use one of {', '.join(ERRORS)}")
        weights = {
            "opponent": opponent_weight,
            "perceptual": perceptual_weight,
            "adversarial": adversarial_weight,
        }
        for name, weight in weights.items():
            if not weight >= 0:
                raise UsageError(f"{name}_weight must not be negative, not {weight}")
        if perceptual_weight and perceptual is None:
            raise UsageError(
                "the perceptual term needs a network", fix="task.perceptual={network: lpips, weights: FOLDER}"
            )
        self.error, self.weights = ERRORS[reconstruction], weights
        self.adaptive, self.adversarial_after = adaptive, adversarial_after
        self.distance = PerceptualDistance(**perceptual or {}) if perceptual_weight else None

    def to(self, device: torch.device | str) -> None:
        """Move the perceptual network."""
        if self.distance is not None:
            self.distance.to(device)

    def picture_error(self, pixels: Tensor, reconstruction: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Error, opponent term and perceptual distance: their weighted sum, and each.

        pixels, reconstruction: (b, 3, h, w) in [-1, 1].
        """
        total = self.error(reconstruction.float(), pixels.float())
        terms = {"reconstruction": total.detach()}
        if self.weights["opponent"]:
            opponent = opponent_error(reconstruction.float() - pixels.float())
            total = total + self.weights["opponent"] * opponent
            terms["opponent"] = opponent.detach()
        if self.distance is not None:
            with own_precision(pixels):
                distance = self.distance(reconstruction.float(), pixels.float())
            total = total + self.weights["perceptual"] * distance
            terms["perceptual"] = distance.detach()
        return total, terms

    def adversarial(
        self, error: Tensor, verdicts: Verdicts, last_layer: Tensor, *, seen: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The adversarial term with the discriminator's own loss, and both.

        error: what the term is weighed against.   last_layer: the decoder's last weight.   seen: pictures so
        far.
        """
        begun = 1.0 if seen >= self.adversarial_after else 0.0
        term, own = -verdicts.posed.float().mean(), hinge(verdicts)
        weight = adaptive_weight(error, term, last_layer) if self.adaptive else term.new_ones(())
        # a factor and not a branch: every parameter has a gradient in every step, as DDP wants it
        total = begun * (self.weights["adversarial"] * weight * term + own)
        parts = {"adversarial": term, "discriminator": own, "adversarial_weight": begun * weight}
        return total, {name: part.detach() for name, part in parts.items()}


def opponent_error(difference: Tensor) -> Tensor:
    """Mean absolute difference in hue: of R - G, and of B - (R + G) / 2.   difference: (b, 3, h, w).   ()."""
    red, green, blue = difference.unbind(1)
    return ((red - green).abs() + (blue - (red + green) / 2).abs()).mean() / 2
