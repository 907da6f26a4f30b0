"""The adversarial term: a discriminator of patches that learns beside the VQVAE, in the same backward pass.

Isola et al. 2017 (PatchGAN), hinge loss; the weight of the term follows Esser et al. 2021 (VQGAN). There is
one optimizer: the reconstruction reaches the discriminator twice, once detached, to teach the discriminator,
and once through its frozen weights, to teach the decoder. Gradients are those of two alternating optimizers
that both look at the weights of the step's beginning.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import relu

MOST_CHANNELS = 8  # times the first layer's
LARGEST_WEIGHT, TINY = 1e4, 1e-4
LEAK = 0.2


@dataclass(frozen=True)
class Verdicts:
    """What the discriminator says of each patch, (b, 1, h, w): high for real ones.

    real, fake: gradients reach the discriminator alone.   posed: of the same fakes; gradients reach the
    pictures alone.
    """

    real: Tensor
    fake: Tensor
    posed: Tensor


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches: convolutions of stride 2, then of stride 1.

    channels: of the first layer; they double up to eight times that.   num_layers: of stride 2; three see
    patches of 70 pixels. Norms are over groups of a picture's own channels: nothing is averaged over batches
    or remembered.
    """

    def __init__(self, channels: int = 64, num_layers: int = 3) -> None:
        super().__init__()
        widths = [channels * min(2**index, MOST_CHANNELS) for index in range(num_layers + 1)]
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 4, stride=2, padding=1), nn.LeakyReLU(LEAK)]
        for index in range(1, num_layers + 1):
            stride = 2 if index < num_layers else 1
            before, after = widths[index - 1], widths[index]
            layers.append(nn.Conv2d(before, after, 4, stride=stride, padding=1, bias=False))
            layers += [nn.GroupNorm(min(32, channels), after), nn.LeakyReLU(LEAK)]
        layers.append(nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.layers = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) in [-1, 1] -> (b, 1, h', w')."""
        verdict: Tensor = self.layers(pixels)
        return verdict

    def judge(self, pixels: Tensor, reconstruction: Tensor) -> Verdicts:
        """Verdicts on originals and reconstructions; see the module."""
        frozen = {name: parameter.detach() for name, parameter in self.named_parameters()}
        posed = functional_call(self, frozen, (reconstruction,))
        return Verdicts(self(pixels), self(reconstruction.detach()), posed)


def hinge(verdicts: Verdicts) -> Tensor:
    """What the discriminator minimises: ()."""
    real, fake = verdicts.real.float(), verdicts.fake.float()
    return (relu(1 - real).mean() + relu(1 + fake).mean()) / 2


def adaptive_weight(error: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """What makes the adversarial term as steep as the error at the decoder's last layer: (), detached."""
    if not torch.is_grad_enabled():
        return error.new_ones(())
    of_error, of_term = (
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0].float().norm()
        for loss in (error, adversarial)
    )
    return (of_error / (of_term + TINY)).clamp(0, LARGEST_WEIGHT).detach()
