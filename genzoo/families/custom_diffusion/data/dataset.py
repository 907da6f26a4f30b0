"""The data set of concepts: each item is a picture of a concept and one that keeps its class as it was."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from genzoo.core.errors import DataError, UsageError
from genzoo.data.indexed import Indexed
from genzoo.data.transforms import draw_flip, to_tensor
from genzoo.families.custom_diffusion.data.augmentation import RULES, GeneratorDraws, augment
from genzoo.families.custom_diffusion.data.concept_list import Concept, read_concepts
from genzoo.families.custom_diffusion.data.pictures import CaptionedPictures

NO_BOX = (-1, -1, -1, -1)
CROPS = ("random", "centre")
Item = dict[str, Any]


class ConceptImages(Indexed):
    """fetch gives {"pixels": (3, s, s) float32 in [-1, 1], "captions": str, "box": (4,) int64, "key": str}
    and, with regularisation, {"class_pixels", "class_captions", "class_key"}.

    concepts: a JSON file of the official format, or the same list written into the recipe, one entry or, for
    joint training, several.   image_size: s.   augmentation: the rule, "official", "official_crop",
    "diffusers" or "paper"; augment_size=False leaves sizes alone.   class_crop: "random" as in the official
    trainers, or "centre", which lets the trainer encode each regularisation picture once.   num_class_images:
    of each concept; all that are there when left out.   regularise: False trains without, in half the steps.

    Item i shows concept picture i mod n and class picture i mod m, as the official trainers pair them: a
    larger folder counts more. "box": rows and columns where the concept lies, NO_BOX when everywhere.
    "key", "class_key": name the pixels when these are the same at each visit, else empty. Captions carry
    the words that the augmentation adds.
    """

    tells = ("modifier_tokens", "phrases")  # facts that a model's `auto` arguments may ask for
    num_classes: int | None = None
    class_names: list[str] | None = None

    def __init__(
        self,
        concepts: str | Sequence[Mapping[str, Any]],
        *,
        image_size: int = 512,
        augmentation: str = "official",
        augment_size: bool = True,
        horizontal_flip: bool = True,
        class_crop: str = "random",
        num_class_images: int | None = None,
        regularise: bool = True,
    ) -> None:
        for what, value, known in (("augmentation", augmentation, RULES), ("class_crop", class_crop, CROPS)):
            if value not in known:
                raise UsageError(f"{what}={value!r} is not known", fix=f"one of {', '.join(known)}")
        self.image_size, self.augmentation, self.augment_size = image_size, augmentation, augment_size
        self.horizontal_flip, self.class_crop = horizontal_flip, class_crop
        self.concepts = read_concepts(concepts)
        self.sample_shape: tuple[int, ...] = (3, image_size, image_size)
        self.instances = [(concept, i) for concept in self.concepts for i in range(len(concept.instances))]
        self.classes = _class_items(self.concepts, num_class_images) if regularise else []
        for concept, index in self.instances:
            concept.instances.load(index)  # a handful: better now than in the middle of a run

    @property
    def modifier_tokens(self) -> list[str]:
        """New words of all concepts, in order."""
        return list(dict.fromkeys(token for concept in self.concepts for token in concept.modifier_tokens))

    @property
    def phrases(self) -> list[str]:
        """What each concept is called in prompts."""
        return list(dict.fromkeys(concept.phrase for concept in self.concepts))

    @cached_property
    def fingerprint(self) -> str:
        """Of prompts, pictures (by name and size, so that a copied folder is the same) and settings."""
        settings = [self.image_size, self.augmentation, self.augment_size, self.horizontal_flip]
        digest = hashlib.sha256(repr([*settings, self.class_crop]).encode())
        for concept, index in self.instances:
            digest.update(f"{concept.instance_prompt}|{_named(concept.instances, index)}\0".encode())
        for concept, index in self.classes:
            assert concept.class_pictures is not None
            digest.update(f"{concept.class_prompt}|{_named(concept.class_pictures, index)}\0".encode())
        return digest.hexdigest()[:32]

    def __len__(self) -> int:
        return max(len(self.instances), len(self.classes))

    def fetch(self, index: int, generator: torch.Generator | None = None) -> Item:
        """One pair; without a generator, nothing is drawn. Raises DataError naming the file."""
        item = self._instance(*self.instances[index % len(self.instances)], generator)
        if self.classes:
            item |= self._class(*self.classes[index % len(self.classes)], generator)
        return item

    def _instance(self, concept: Concept, index: int, generator: torch.Generator | None) -> Item:
        image = concept.instances.load(index)
        mirrored = self._mirrored(generator)
        if mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        made = augment(
            image,
            concept.instance_prompt,
            GeneratorDraws(generator or torch.Generator()),
            size=self.image_size,
            rule=self.augmentation,
            enabled=self.augment_size and generator is not None,
        )
        key = "" if made.changed else f"instance|{concept.instances.stamp(index)}|{mirrored}"
        box = torch.tensor(NO_BOX if made.box is None else made.box)
        return {"pixels": made.pixels, "captions": made.prompt, "box": box, "key": key}

    def _class(self, concept: Concept, index: int, generator: torch.Generator | None) -> Item:
        pictures = concept.class_pictures
        assert pictures is not None
        image, mirrored = pictures.load(index), self._mirrored(generator)
        if mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        draw = generator if self.class_crop == "random" else None
        pixels, is_fixed = _cropped(image, self.image_size, draw)
        key = f"class|{pictures.stamp(index)}|{mirrored}" if is_fixed else ""
        return {"class_pixels": pixels, "class_captions": pictures.caption(index), "class_key": key}

    def _mirrored(self, generator: torch.Generator | None) -> bool:
        return self.horizontal_flip and generator is not None and draw_flip(generator)


def _cropped(image: Image.Image, size: int, generator: torch.Generator | None) -> tuple[Tensor, bool]:
    """The shorter side resized to `size`, then a square, drawn or the centre; and whether it is fixed."""
    scale = size / min(image.size)
    width, height = max(size, round(image.width * scale)), max(size, round(image.height * scale))
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    spare = (width - size, height - size)
    if generator is None:
        left, top = (extra // 2 for extra in spare)
    else:
        left, top = (int(torch.randint(0, extra + 1, (), generator=generator)) for extra in spare)
    return to_tensor(image.crop((left, top, left + size, top + size))), generator is None or spare == (0, 0)


def _named(pictures: CaptionedPictures, index: int) -> str:
    """A picture's stamp without the time of change of its file."""
    return re.sub(r"\|\d{16,}$", "", pictures.stamp(index))


def _class_items(concepts: Sequence[Concept], num: int | None) -> list[tuple[Concept, int]]:
    items = []
    for concept in concepts:
        pictures = concept.class_pictures
        if pictures is None:
            raise DataError(
                f"{concept.instance_prompt!r} has no regularisation pictures",
                fix="make some with `genzoo prepare regularization` and name their folder in class_data_dir, "
                "or train without: data.regularise=false",
            )
        if num is not None and len(pictures) < num:
            raise DataError(
                f"{concept.instance_prompt!r} has {len(pictures)} regularisation pictures, not {num}",
                fix=f"add pictures, or data.num_class_images={len(pictures)}",
            )
        items += [(concept, index) for index in range(len(pictures) if num is None else num)]
    return items
