"""The embedded emoji: 1,339 concepts in three styles, with names as captions and seven categories."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genzoo.assets import asset
from genzoo.core.errors import DataError
from genzoo.core.seeds import mix_seed
from genzoo.data.class_lists import ClassList, kept_labels
from genzoo.data.image_decode import decode_image
from genzoo.data.indexed import Indexed
from genzoo.data.toys import block_means, check_choices, first_of
from genzoo.data.transforms import draw_flip, moved
from genzoo.pictures.pixels import from_uint8

STYLES = {"noto": "noto", "fluent_flat": "flat", "fluent_3d": "3d"}  # style -> its word in captions
CLASSES = ("category", "name", "style", "none")
SPLITS = ("all", "train", "held_out")
CELL, COLUMNS = 64, 32


class Emoji(Indexed):
    """fetch gives {"pixels": (3, s, s) float32 in [-1, 1], "captions": str} and, with classes,
    {"class_labels"}.

    image_size: 64, or 32 (each pixel the mean of 2 x 2). styles: which of noto, fluent_flat, fluent_3d.
    classes: what a label means: "category" (7), "name" (1,339), "style", or "none". categories, names: keep
    these concepts only, the categories being the classes in the order given. A concept is held out in all
    styles when hold_out lists its name or its category, or by chance with hold_out_fraction, which depends
    on the name alone; split shows "all", "train" (the rest) or "held_out". include_classes, exclude_classes:
    show these classes only, or all but these: names, or a file with one a line. Labels mean the same in every
    split and under every class list. max_shift: drawings are moved by up to so many pixels, whole ones, along
    both axes at random; what comes in repeats the border.
    """

    def __init__(
        self,
        *,
        image_size: int = 64,
        styles: Sequence[str] = tuple(STYLES),
        classes: str = "category",
        categories: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        hold_out: Sequence[str] = (),
        hold_out_fraction: float = 0.0,
        split: str = "all",
        include_classes: ClassList | None = None,
        exclude_classes: ClassList | None = None,
        caption: str = "a {style} emoji of a {name}",
        horizontal_flip: bool = False,
        max_shift: int = 0,
    ) -> None:
        check_choices("emoji", "image_size", [image_size], (32, 64))
        check_choices("emoji", "style", styles, tuple(STYLES))
        check_choices("emoji", "classes", [classes], CLASSES)
        check_choices("emoji", "split", [split], SPLITS)
        check_choices("emoji", "max_shift", [max_shift], range(image_size))
        concepts = load_concepts()
        drawn = _choose(concepts, categories, names)
        shown = [row for row in drawn if _in_split(concepts[row], split, hold_out, hold_out_fraction)]
        check_choices(
            "emoji", "hold_out", hold_out, [c[key] for key in ("category", "name") for c in concepts]
        )
        if not shown or not styles:
            raise DataError("emoji: no image is left", fix="widen styles, categories, names or the split")
        self.class_names: list[str] | None = {
            "category": list(categories or sorted({concept["category"] for concept in concepts})),
            "name": [concepts[row]["name"] for row in drawn],
            "style": list(styles),
            "none": None,
        }[classes]
        self.num_classes: int | None = None if self.class_names is None else len(self.class_names)
        items = [{"style": style} | concepts[row] for style in styles for row in shown]
        rows = self._rows(items, classes, kept_labels(self.class_names, include_classes, exclude_classes))
        self.items = [items[row] for row in rows]
        self.captions = [caption.format(**item | {"style": STYLES[item["style"]]}) for item in self.items]
        self.labels = self._labels(classes)
        self.images = torch.cat([block_means(load_style(style)[shown], image_size) for style in styles])[rows]
        self.sample_shape: tuple[int, ...] = (3, image_size, image_size)
        self.horizontal_flip, self.max_shift = horizontal_flip, max_shift
        facts, pixels = (
            f"{image_size}|{classes}|{self.class_names}|{self.captions}",
            self.images.numpy().tobytes(),
        )
        self.fingerprint = _digest(f"{facts}|{horizontal_flip}{f'|{max_shift}' if max_shift else ''}", pixels)
        self.pictures_fingerprint = _digest(facts, pixels)

    def _rows(self, items: list[dict[str, str]], classes: str, labels: list[int] | None) -> list[int]:
        """Which items have one of these labels; None means any."""
        if labels is None or self.class_names is None:
            return list(range(len(items)))
        names = {self.class_names[label] for label in labels}
        rows = [row for row, item in enumerate(items) if item[classes] in names]
        if not rows:
            raise DataError("emoji: no image is left", fix="widen the class lists or the split")
        return rows

    def _labels(self, classes: str) -> Tensor | None:
        if self.class_names is None:
            return None
        label_of = {name: label for label, name in enumerate(self.class_names)}
        return torch.tensor([label_of[item[classes]] for item in self.items])

    @property
    def augments(self) -> bool:
        """Whether fetch makes use of a generator."""
        return self.horizontal_flip or self.max_shift > 0

    def __len__(self) -> int:
        return len(self.items)

    def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        """One emoji with its caption; with a generator mirrored and moved as the options say."""
        return first_of(self.fetch_many([index], [generator]))

    def fetch_many(
        self, indices: Sequence[int], generators: Sequence[torch.Generator | None]
    ) -> dict[str, Any]:
        """Several emoji at once, already stacked."""
        rows = torch.as_tensor(indices)
        pixels = from_uint8(self.images[rows])
        if self.horizontal_flip:
            flips = torch.tensor([generator is not None and draw_flip(generator) for generator in generators])
            pixels = torch.where(flips[:, None, None, None], pixels.flip(-1), pixels)
        if self.max_shift:
            pixels = torch.stack(
                [
                    moved(one, generator, self.max_shift)
                    for one, generator in zip(pixels, generators, strict=True)
                ]
            )
        batch: dict[str, Any] = {"pixels": pixels, "captions": [self.captions[index] for index in indices]}
        return batch if self.labels is None else batch | {"class_labels": self.labels[rows]}


def load_concepts() -> list[dict[str, str]]:
    """The 1,339 concepts as {"code", "name", "category"}, in the order of the atlases."""
    concepts: list[dict[str, str]] = json.loads(asset("emoji/meta.json").read_text(encoding="utf-8"))
    return concepts


def load_style(style: str) -> Tensor:
    """All drawings of a style: (1339, 3, 64, 64) uint8."""
    path = asset(f"emoji/{style}_64.webp")
    atlas = np.array(decode_image(path.read_bytes(), where=str(path)))
    cells = atlas.reshape(-1, CELL, COLUMNS, CELL, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, CELL, CELL)
    return torch.from_numpy(cells[: len(load_concepts())])


def _choose(
    concepts: list[dict[str, str]], categories: Sequence[str] | None, names: Sequence[str] | None
) -> list[int]:
    """The rows of the concepts in these categories and of these names; None means any."""
    check_choices(
        "emoji", "category", categories or (), sorted({concept["category"] for concept in concepts})
    )
    check_choices("emoji", "name", names or (), [concept["name"] for concept in concepts])
    return [
        row
        for row, concept in enumerate(concepts)
        if concept["category"] in (categories or [concept["category"]])
        and concept["name"] in (names or [concept["name"]])
    ]


def _in_split(concept: dict[str, str], split: str, hold_out: Sequence[str], fraction: float) -> bool:
    chance = mix_seed("emoji", "hold out", concept["name"]) / 2**63
    held_out = concept["name"] in hold_out or concept["category"] in hold_out or chance < fraction
    return split == "all" or held_out == (split == "held_out")


def _digest(facts: str, pixels: bytes) -> str:
    return hashlib.sha256(facts.encode() + pixels).hexdigest()[:32]
