"""The timestep features of the machine that recorded a golden set, at any timestep.

The frequencies are float32 exponentials, which differ in the last bit from one processor to the next. At
t = 999 that is 3e-5 of a feature, far above what float64 outputs are compared to. A set records the features
at some timesteps only; they tell which of the neighbouring float32 numbers each frequency was.
"""

from __future__ import annotations

import json
import math
import re
from functools import cache

import torch
from golden.manifest import golden_root, golden_tensors
from torch import Tensor, nn

FEATURES = re.compile(r"temb_(?P<dim>\d+)")
NEIGHBOURS = 4


@cache
def recorded_features(set_name: str, dim: int) -> tuple[Tensor, Tensor] | None:
    """(timesteps, features) of every case of the set that recorded this width: (r,), (r, dim)."""
    manifest = json.loads((golden_root() / set_name / "manifest.json").read_text())
    found = []
    for file_key, file in manifest["files"].items():
        for case in file["cases"]:
            if {"t", f"temb_{dim}"} <= set(case["keys"]):
                tensors = golden_tensors(set_name, file_key, case["name"])
                found.append((tensors["t"], tensors[f"temb_{dim}"]))
    if not found:
        return None
    return torch.cat([t for t, _ in found]), torch.cat([features for _, features in found])


def recover_frequencies(timesteps: Tensor, features: Tensor) -> Tensor:
    """The float32 frequencies that explain recorded features best.   Returns (dim/2,)."""
    half = features.shape[1] // 2
    exact = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float64) / half).float()
    candidates = [exact]
    for toward in (-math.inf, math.inf):
        neighbour = exact
        for _ in range(NEIGHBOURS):
            neighbour = torch.nextafter(neighbour, torch.tensor(toward))
            candidates.append(neighbour)
    frequencies = torch.stack(candidates)
    angles = (timesteps.float()[:, None] * frequencies[:, None]).double()
    error = (angles.cos() - features[:, :half]).square() + (angles.sin() - features[:, half:]).square()
    return frequencies.gather(0, error.sum(1).argmin(0)[None])[0]


class RecordedEmbedding(nn.Module):
    """A timestep embedding whose features are the recording machine's."""

    def __init__(self, mlp: nn.Module, timesteps: Tensor, features: Tensor) -> None:
        super().__init__()
        self.mlp = mlp
        self.rows = {int(t): row for t, row in zip(timesteps, features, strict=True)}
        self.frequencies = recover_frequencies(timesteps, features)

    def forward(self, timesteps: Tensor) -> Tensor:
        rows = torch.stack([self._row(t) for t in timesteps])
        return self.mlp(rows.to(next(self.mlp.parameters()).dtype))

    def _row(self, t: Tensor) -> Tensor:
        if int(t) in self.rows:
            return self.rows[int(t)]
        angles = t.float() * self.frequencies
        return torch.cat([angles.cos(), angles.sin()])
