"""Handwritten digits: 1,797 grey images of 8 x 8 pixels in 10 classes, embedded in the package."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genzoo.assets import asset
from genzoo.core.errors import DataError
from genzoo.core.tensor_files import read_tensors
from genzoo.data.indexed import Indexed
from genzoo.data.toys import check_choices

SPLITS = ("all", "train", "test")


class Digits(Indexed):
    """The UCI digits; fetch gives {"pixels": (channels, s, s) float32 in [-1, 1], "class_labels": int64 ()}.

    image_size: 8, or a multiple of it up to 64, reached by bilinear interpolation (half-pixel centres).
    split: "test" is every fifth image (359), "train" the others (1,438), "all" both. channels: 1, or 3 equal
    ones.
    """

    augments = False
    num_classes: int | None = 10

    def __init__(self, *, image_size: int = 8, split: str = "all", channels: int = 1) -> None:
        if image_size not in range(8, 65, 8):
            raise DataError(f"digits: image_size {image_size} is not a multiple of 8 from 8 to 64")
        check_choices("digits", "split", [split], SPLITS)
        check_choices("digits", "number of channels", [channels], (1, 3))
        self.class_names: list[str] | None = [str(digit) for digit in range(10)]
        self.sample_shape: tuple[int, ...] = (channels, image_size, image_size)
        images, labels = load_digits()
        rows = rows_of_split(len(labels), split)
        self.pixels = _resize(images[rows], image_size).repeat(1, channels, 1, 1)
        self.labels = labels[rows]
        settings = f"digits|{image_size}|{split}|{channels}"
        content = images.numpy().tobytes() + labels.numpy().tobytes()
        self.fingerprint = hashlib.sha256(settings.encode() + content).hexdigest()[:32]

    def __len__(self) -> int:
        return len(self.labels)

    def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        """One digit; there is no augmentation, so the generator is not used."""
        return {"pixels": self.pixels[index].clone(), "class_labels": self.labels[index].clone()}

    def fetch_many(self, indices: Sequence[int], generators: Sequence[Any]) -> dict[str, Any]:
        """Several digits at once, already stacked: (b, channels, s, s) and (b,)."""
        rows = torch.as_tensor(indices)
        return {"pixels": self.pixels[rows], "class_labels": self.labels[rows]}


def load_digits() -> tuple[Tensor, Tensor]:
    """Images (1797, 1, 8, 8) float32 in [-1, 1] and labels (1797,) int64."""
    tensors = read_tensors(asset("digits.safetensors"), "the data that ship with genzoo", error=DataError)
    return tensors["images"][:, None].float() / 8 - 1, tensors["labels"].long()


def rows_of_split(n: int, split: str) -> Tensor:
    """The rows that a split shows; every fifth is for testing."""
    is_test = torch.arange(n) % 5 == 4
    return {"all": torch.ones_like(is_test), "test": is_test, "train": ~is_test}[split].nonzero().squeeze(1)


def _resize(images: Tensor, size: int) -> Tensor:
    return F.interpolate(images, size=(size, size), mode="bilinear") if size != 8 else images
