"""What samplers see of a model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from genzoo.diffusion.denoiser import Denoiser
from genzoo.diffusion.guidance import Guidance
from genzoo.diffusion.schedule import make_schedule


class Knows(nn.Module):
    """Predicts one known x_0, whatever it is shown."""

    def __init__(self, x_0: Tensor) -> None:
        super().__init__()
        self.x_0 = nn.Parameter(x_0)

    def forward(self, x_t: Tensor, timesteps: Tensor, class_labels: Tensor | None) -> Tensor:
        return self.x_0


@pytest.mark.parametrize("index", [0, 3, 9])
def test_x_0_on_a_respaced_schedule_becomes_the_noise_of_its_own_index(index: int) -> None:
    schedule = make_schedule("linear", respacing="ddim10")
    g = torch.Generator().manual_seed(0)
    x_0, noise = (torch.randn(2, 3, 4, 5, generator=g, dtype=torch.float64) for _ in range(2))
    signal, spread = schedule.sqrt_alphas_cumprod[index], schedule.sqrt_one_minus_alphas_cumprod[index]
    denoiser = Denoiser(
        Knows(x_0), schedule, class_labels=None, null_label=0, guidance=Guidance(), prediction="x_0"
    )
    seen = schedule.timestep_map[index].expand(2)  # samplers name timesteps as training numbers them
    assert torch.allclose(denoiser(signal * x_0 + spread * noise, seen), noise, atol=1e-10)
