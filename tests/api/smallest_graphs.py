"""Small models whose every weight matters, and noise for their graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import genzoo.api  # noqa: F401  (reads every card)
from genzoo.core.registry import MODELS
from genzoo.nn.graphs import Graph

PATCHES = {
    "depth": 2,
    "hidden_size": 24,
    "patch_size": 2,
    "input_size": [8, 6],
    "in_channels": 3,
    "num_classes": 5,
}
CODES = {"codebook_size": 16, "z_channels": 4, "ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "dim": {**PATCHES, "d_state": 3},
    "dit": {**PATCHES, "num_heads": 2},
    "matten": {**PATCHES, "d_state": 3, "num_heads": 2, "num_frames": 4},
    "var": {
        "depth": 2, "hidden_size": 24, "num_heads": 3, "patch_nums": [1, 2, 3], "num_classes": 5,
        "in_channels": 4, "codebook_size": 16,
    },
    "vqvae": {**CODES, "patch_nums": [1, 2, 3, 4]},
    "autoencoder_kl": {
        "block_out_channels": [8, 12], "layers_per_block": 1, "latent_channels": 2, "norm_num_groups": 4,
        "input_size": 16,
    },
}  # fmt: skip
EXPORTED = list(ARGUMENTS)


def model_of(name: str) -> Any:
    torch.manual_seed(0)
    model = MODELS.get(name)(**ARGUMENTS[name])
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def noise_for(graph: Graph, rows: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(rows)
    shapes = [(rows, *example.shape[1:]) for example in graph.inputs]
    return [
        torch.randn(shape, generator=generator)
        if example.is_floating_point()
        else torch.randint(5, shape, generator=generator)
        for shape, example in zip(shapes, graph.inputs, strict=True)
    ]
