"""Models of the family that fit a test: 8 x 8 pixels, three scales, sixteen codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from genzoo.core.seeds import SampleStreams
from genzoo.families.car.control.model import CAR
from genzoo.families.car.task import NextScaleTask
from genzoo.families.car.var.model import VAR
from genzoo.families.car.vqvae.codec import VQVAECodec
from genzoo.families.car.vqvae.model import VQVAE

PATCH_NUMS = [1, 2, 4]
NUM_CLASSES = 5
CODES = {"codebook_size": 16, "z_channels": 4, "ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1}
SIZES: dict[str, Any] = {
    "depth": 4, "hidden_size": 24, "num_heads": 3, "patch_nums": PATCH_NUMS, "num_classes": NUM_CLASSES,
    "in_channels": 4, "codebook_size": 16,
}  # fmt: skip
CHANNELS = [4, 6]


def randomised(model: nn.Module, seed: int, scale: float = 0.3) -> Any:
    """A model whose every trained tensor matters: fresh ones start close to the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def tiny_vqvae(seed: int = 0, **options: Any) -> VQVAE:
    torch.manual_seed(seed)
    return VQVAE(**{**CODES, "patch_nums": PATCH_NUMS, **options}).eval()


def tiny_var(seed: int = 1, **options: Any) -> VAR:
    torch.manual_seed(seed)
    return randomised(VAR(**{**SIZES, **options}), seed)


def tiny_car(seed: int = 2, **options: Any) -> CAR:
    torch.manual_seed(seed)
    arguments = {**SIZES, "control_channels": CHANNELS, **options}
    return randomised(CAR(**arguments), seed)


def saved(model: nn.Module, path: Path) -> str:
    """The path of a file with the model's weights."""
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return str(path)


def tiny_codec(folder: Path, seed: int = 0) -> VQVAECodec:
    return VQVAECodec(saved(tiny_vqvae(seed), folder / f"vqvae{seed}.safetensors"), patch_nums=PATCH_NUMS)


def tiny_task(folder: Path, model: VAR | CAR, **options: Any) -> NextScaleTask:
    return NextScaleTask(model, codec=tiny_codec(folder), **options)


def pictures(num: int, seed: int = 0) -> Tensor:
    """Pixels (num, 3, 8, 8) in [-1, 1]."""
    return torch.rand(num, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def streams(*positions: int) -> SampleStreams:
    return SampleStreams.from_seeds(3, "sample", positions=positions)
