"""The two files of an autoencoder in diffusers' layout: where they are, and what they are."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from genzoo.core.errors import CheckpointError, WeightsError
from genzoo.core.reading import read_json
from genzoo.pretrained.hub import resolve

NEEDED = ("*config.json", "*diffusion_pytorch_model.safetensors")
WITHOUT = "train on the pixels of small pictures: codec=null data.image_size=64"


def find_files(
    path: str, subfolder: str | None, variant: str | None, revision: str | None
) -> tuple[Path, Path]:
    """config.json and the weights beside it. Raises WeightsError."""
    places = [subfolder] if subfolder is not None else [None, "vae"]
    config, place = _first([("config.json", place) for place in places], path, revision)
    stem = f"diffusion_pytorch_model.{variant}" if variant else "diffusion_pytorch_model"
    weights, _ = _first([(f"{stem}.safetensors", place), (f"{stem}.bin", place)], path, revision)
    return config, weights


def _first(
    candidates: list[tuple[str, str | None]], path: str, revision: str | None
) -> tuple[Path, str | None]:
    """The first candidate (file, subfolder) that can be had; the error of the first one if none can."""
    errors = []
    for filename, place in candidates:
        try:
            found = resolve(
                path, filename, subfolder=place, revision=revision, together=NEEDED, instead=WITHOUT
            )
            return found, place
        except WeightsError as error:
            errors.append(error)
    raise errors[0]


def read_config(path: Path) -> dict[str, Any]:
    """The content of config.json, the class's name under "_class_name". Raises CheckpointError."""
    config = read_json(path, "the autoencoder's config", error=CheckpointError)
    if not isinstance(config, dict):
        raise CheckpointError(
            "the folder does not hold an autoencoder",
            where=str(path),
            why=f"its config describes {type(config).__name__!r}",
        )
    return config


def fingerprint(
    prefix: str, config: dict[str, Any], weights: Path | None, *, without: tuple[str, ...]
) -> str:
    """What the moments depend on: the config, less what comes after the moments, and the weights, where
    there are such.
    """
    own = {key: value for key, value in config.items() if key not in without and not key.startswith("_")}
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode())
    with contextlib.ExitStack() as stack:
        file = None if weights is None else stack.enter_context(weights.open("rb"))
        while file and (block := file.read(1 << 20)):
            digest.update(block)
    return f"{prefix}-{digest.hexdigest()[:32]}"
