"""Depth by a depth-estimation model in transformers' layout: DPT (MiDaS), Depth-Anything and others."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genzoo.core.controls import control_fingerprint
from genzoo.core.errors import UsageError, WeightsError
from genzoo.core.reading import read_json
from genzoo.pretrained.control_pictures import (
    as_control,
    check_resolution,
    looked_at,
    one_by_one,
    resized,
    spread,
)
from genzoo.pretrained.hub import fetched, resolve
from genzoo.pretrained.known_weights import file_sha256
from genzoo.pretrained.quiet import without_bars

FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
ADVICE = (
    "fetch config.json, preprocessor_config.json and model.safetensors of a depth model, such as "
    "https://huggingface.co/Intel/dpt-hybrid-midas, and name their folder as weights"
)


class Depth:
    """Nearness in grey levels, from black for the farthest point of the picture to white for its nearest.

    weights: a folder in transformers' layout, or a hub id.   resolution: short side that the network looks
    at; None for the folder's own.
    """

    channels = 1

    def __init__(self, *, weights: str | None = None, resolution: int | None = None) -> None:
        self.network = DepthNetwork(weights, resolution)
        self.fingerprint = control_fingerprint(
            "depth", self.network.digest, resolution=self.network.resolution
        )

    def to(self, device: torch.device | str) -> None:
        """Move the network."""
        self.network.to(device)

    def __call__(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) in [-1, 1] -> depth of that shape."""
        return as_control(spread(self.network(pixels)))


class DepthNetwork:
    """Inverse depth of pictures, as the model predicts it."""

    def __init__(self, weights: str | None, resolution: int | None) -> None:
        if weights is None:
            raise UsageError("depth comes without weights", fix=ADVICE)
        preparation = _json(resolve(weights, "preprocessor_config.json", together=FILES))
        self.model = _load(weights)
        self.mean, self.std = (_channels(preparation.get(f"image_{name}")) for name in ("mean", "std"))
        self.multiple = int(preparation.get("ensure_multiple_of") or self.model.config.patch_size or 16)
        # models that were trained on squares, such as MiDaS's, know no other shape
        self.square = not preparation.get("keep_aspect_ratio", False)
        self.resolution = resolution or _short_side(preparation.get("size"))
        check_resolution(self.resolution, self.multiple)
        self.digest = _digest(weights)

    def to(self, device: torch.device | str) -> None:
        """Move the model."""
        self.model.to(device)

    def __call__(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) in [-1, 1] -> (b, 1, h, w), larger where nearer."""
        settings = self.resolution, self.multiple, self._predict
        return one_by_one(pixels, lambda one: looked_at(one, *settings, square=self.square))

    def _predict(self, pixels: Tensor) -> Tensor:
        scaled = ((pixels + 1) / 2 - self.mean.to(pixels)) / self.std.to(pixels)
        predicted: Tensor = self.model(pixel_values=scaled).predicted_depth.float()[:, None]
        return resized(predicted, list(pixels.shape[-2:]))


def _load(weights: str) -> Any:
    from transformers import AutoModelForDepthEstimation

    place = fetched(weights, FILES, together=FILES)
    try:
        with without_bars():
            model = AutoModelForDepthEstimation.from_pretrained(
                place, dtype=torch.float32, use_safetensors=True, local_files_only=True
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(
            "the depth model cannot be read",
            where=weights,
            why=str(error).strip().partition("\n")[0][:200],
            fix=ADVICE,
        ) from error
    return model.requires_grad_(False).eval()


def _json(path: Path) -> dict[str, Any]:
    found = read_json(path, path.name, error=WeightsError)
    if not isinstance(found, dict):
        raise WeightsError(f"{path.name} holds no settings", where=str(path))
    return found


def _channels(values: Any) -> Tensor:
    given = values if isinstance(values, list) and len(values) == 3 else [0.5, 0.5, 0.5]
    return torch.tensor(given, dtype=torch.float32).view(3, 1, 1)


def _short_side(size: Any) -> int | None:
    sides = [value for value in size.values() if isinstance(value, int)] if isinstance(size, dict) else []
    return min(sides) if sides else None


def _digest(weights: str) -> str:
    """Of the files that the result depends on."""
    folder = Path(weights)
    paths = [folder / name if folder.is_dir() else resolve(weights, name) for name in FILES]
    shards = sorted(folder.glob("model-*.safetensors")) if folder.is_dir() else []
    digests = [file_sha256(path) for path in (*paths, *shards) if path.is_file()]
    return hashlib.sha256("".join(digests).encode()).hexdigest()
