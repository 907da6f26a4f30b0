"""A base model in diffusers' layout, of which only what a merge needs is read, matrix by matrix."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from genzoo.core.claims import is_name
from genzoo.core.errors import CheckpointError, WeightsError
from genzoo.core.reading import read_json
from genzoo.core.shapes_alone import has_values
from genzoo.core.tensor_files import named
from genzoo.families.custom_diffusion.files.weight_names import is_cross_attention, is_key_value
from genzoo.pretrained.hub import SMALL, WHOLE, located, resolve

SINGLE = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
INDEX = "diffusion_pytorch_model.safetensors.index.json"
# the folders that hold what paints, and what people call it
MODELS = {"unet": "UNet", "transformer": "transformer"}


class BaseWeights(Mapping[str, Tensor]):
    """The cross-attention weights of base/unet, or of base/transformer where there is no UNet, read from the
    disk at each access and never written.
    """

    def __init__(self, base: str | Path) -> None:
        self.base = str(base)
        self._files = dict(_locate(base))
        # a file's header lists thousands of tensors: read it once
        self._handles = {path: _opened(path) for path in set(self._files.values())}
        if not any(map(is_key_value, self._files)):
            raise WeightsError(
                f"the base's {MODELS[part_of(base)]} has no cross-attention",
                where=self.base,
                fix="use a text-to-image model in diffusers' layout, such as Stable Diffusion 1.x, 2.x or XL",
            )

    def __getitem__(self, name: str) -> Tensor:
        path = self._files[name]
        with named(path, name, error=CheckpointError, fix="fetch the file again"):
            tensor: Tensor = self._handles[path].get_tensor(name)
            return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    @property
    def key_values(self) -> list[str]:
        """Names of the key and value projections."""
        return [name for name in self._files if is_key_value(name)]

    @property
    def files(self) -> list[Path]:
        """The files that hold them."""
        return sorted(set(self._files.values()))

    def shape(self, name: str) -> tuple[int, ...]:
        """Read from the file's header."""
        return tuple(self._handles[self._files[name]].get_slice(name).get_shape())

    @property
    def width(self) -> int:
        """Of the text features."""
        return self.shape(self.key_values[0])[1]


def base_name(base: str | Path) -> str:
    """How a concept's file names its base: the hub id, or the folder's own name."""
    return Path(base).resolve().name if Path(base).exists() else str(base)


def base_place(base: str | Path) -> dict[str, str]:
    """A note for a concept's file: where the base lies on this machine, so that it can be sampled at once."""
    return {"base_path": str(Path(base).resolve())} if Path(base).exists() else {}


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """sha256 of the key and value projections, rounded to half precision: copies of one base in float32 and
    in float16 agree.
    """
    digest = hashlib.sha256()
    for name in sorted(filter(is_key_value, weights)):
        value = weights[name].detach().to("cpu", torch.float16).contiguous()
        digest.update(f"{name} {tuple(value.shape)}\n".encode())
        if has_values(value):
            digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def _locate(base: str | Path) -> Iterator[tuple[str, Path]]:
    """Names of cross-attention weights with their files."""
    for path in _files(base):
        with named(path, path.name, error=CheckpointError, fix="fetch the file again"):
            names = list(_opened(path).keys())
        yield from ((name, path) for name in names if is_cross_attention(name))


def _opened(path: Path) -> Any:
    with named(path, path.name, error=CheckpointError, fix="fetch the file again"):
        return safe_open(path, framework="pt")


def part_of(base: str | Path) -> str:
    """The folder of a base that holds what paints: "transformer" where that is there and no UNet."""
    folder = Path(located(base)).expanduser()
    return "transformer" if (folder / "transformer").is_dir() and not (folder / "unet").is_dir() else "unet"


def _files(base: str | Path) -> list[Path]:
    """The model's weight files: one, half precision, or shards."""
    folder, part = Path(base).expanduser(), part_of(base)
    if not folder.is_dir():
        return [resolve(base, SINGLE[0], subfolder=part, together=WHOLE, instead=SMALL)]
    found = [folder / part / name for name in SINGLE if (folder / part / name).is_file()]
    if found:
        return found[:1]
    if (folder / part / INDEX).is_file():
        return [resolve(base, name, subfolder=part) for name in _shards(folder / part / INDEX)]
    raise WeightsError(
        f"the base has no {part}/{SINGLE[0]}",
        where=str(folder),
        fix="give a folder in diffusers' layout with safetensors weights",
    )


def _shards(index: Path) -> list[str]:
    """The files that an index of shards names, which are parts of the same folder."""
    table = read_json(index, "the index of the base's weights", error=WeightsError)
    named = table.get("weight_map") if isinstance(table, dict) else None
    names = list(named.values()) if isinstance(named, dict) else [None]
    if not all(isinstance(name, str) and is_name(name) for name in names):
        raise WeightsError("the index of the base's weights names no files beside it", where=str(index))
    return sorted(set(map(str, names)))
