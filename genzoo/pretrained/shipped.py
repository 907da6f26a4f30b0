"""Weights that ship with genzoo, by names such as "assets:text_to_image_emoji"."""

from __future__ import annotations

from pathlib import Path

from genzoo.assets.shipped import SCHEME, is_shipped, shipped_folder
from genzoo.core.cache_folder import cache_folder
from genzoo.core.errors import WeightsError
from genzoo.core.seeds import mix_seed
from genzoo.pretrained.known_weights import file_sha256
from genzoo.pretrained.packing import is_packed, unpack

__all__ = ["is_shipped", "shipped"]


def shipped(place: str | Path) -> Path:
    """The folder or file of shipped weights.   place: "assets:NAME", or "assets:NAME/part".

    A packed text-to-image model is unpacked into genzoo's cache folder, once. Raises WeightsError.
    """
    name, _, inside = str(place).removeprefix(SCHEME).partition("/")
    complete = _complete(shipped_folder(name))
    path = complete / inside
    if not path.resolve().is_relative_to(complete.resolve()) or not path.exists():
        raise WeightsError(f"the shipped weights {name!r} have no {inside}")
    return path


def _complete(folder: Path) -> Path:
    if not is_packed(folder):
        return folder
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    key = mix_seed(*(f"{path.relative_to(folder)} {file_sha256(path)}" for path in files))
    target = cache_folder("unpacked") / f"{folder.name}-{key:016x}"
    target.parent.mkdir(parents=True, exist_ok=True)
    return target if target.is_dir() else unpack(folder, target)
