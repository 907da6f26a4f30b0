"""From "my cat" and a folder of photographs to a recipe: token, class, prompts, sizes and steps are
chosen.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from genzoo.core.errors import UsageError
from genzoo.core.files import put_file, write_folder
from genzoo.core.reading import read_json
from genzoo.data.image_decode import read_file
from genzoo.families.custom_diffusion.data.photographs import Photographs, look_at
from genzoo.pretrained.hub import resolve

OWNERS = ("my", "our", "the", "a", "an", "this", "that", "your")
TOKEN = "<new1>"
CLIENTS = ("a1111", "comfyui", "diffusers", "invoke", "peft")
STEPS = 250  # of the paper, for one concept


@dataclass(frozen=True)
class Lesson:
    """class_word: what the thing is.   prompt: of its photographs.   image_size: what the base was made
    for.
    """

    name: str
    class_word: str
    prompt: str
    image_size: int
    photographs: Photographs


def plan_lesson(
    name: str, photos: str | Path, base: str, *, class_word: str | None = None, word: str = TOKEN
) -> Lesson:
    """Look at the photographs and choose words. Raises UsageError, DataError.

    word: that will stand for the thing in prompts, such as "<new1>".
    """
    if not re.fullmatch(r"<[a-z][a-z0-9-]{0,30}>", word):
        raise UsageError(f"{word[:40]!r} is no new word", fix="small letters and digits in brackets: <mycat>")
    words = re.findall(r"[\w'-]+", name.lower())
    while words and words[0] in OWNERS:
        words.pop(0)
    thing = class_word or " ".join(words)
    if not thing.strip() or "<" in thing:
        raise UsageError(f"{name!r} does not say what it is", fix='such as "my cat", or --class-word cat')
    size = base_size(base)
    return Lesson(
        name="-".join(words) or thing.replace(" ", "-"),
        class_word=thing,
        prompt=f"photo of a {word} {thing}",
        image_size=size,
        photographs=look_at(photos, size),
    )


def base_size(base: str) -> int:
    """Pixels along a side that a base in diffusers' layout was made for."""
    unet = read_json(resolve(base, "config.json", subfolder="unet"))
    side = unet.get("sample_size") or 64
    index = read_json(resolve(base, "model_index.json"))
    if not index.get("vae", [None])[0]:
        return int(side)
    vae = read_json(resolve(base, "config.json", subfolder="vae"))
    return int(side) * 2 ** (len(vae["block_out_channels"]) - 1)


def recipe_of(
    lesson: Lesson, base: str, *, concepts: Path, steps: int, regularise: bool, device: str
) -> dict[str, Any]:
    """The recipe, on top of `custom_diffusion`."""
    on_cpu = device == "cpu"
    return {
        "base": "custom_diffusion",
        "name": lesson.name,
        "model": {"base_model": base},
        "data": {
            "concepts": str(concepts),
            "image_size": lesson.image_size,
            "regularise": regularise,
        },
        "train": {
            "steps": steps,
            "checkpoint_every": max(1, steps // 5),
            "precision": "fp32" if on_cpu else "bf16",
            **({"num_workers": 0} if on_cpu else {}),
        },
        "preview": {"every": max(1, steps // 5), "num": 4},
        "report": [{"name": "concept_file", "clients": list(CLIENTS)}],
    }


def write_lesson(
    lesson: Lesson,
    folder: str | Path,
    base: str,
    *,
    class_pictures: str | None,
    steps: int | None,
    device: str,
) -> Path:
    """A new folder: photographs, their sheet, concepts.json in the official format and recipe.yaml."""
    target = Path(folder).resolve()
    entry = {
        "instance_prompt": lesson.prompt,
        "class_prompt": lesson.class_word,
        "instance_data_dir": str(target / "photographs"),
    }
    if class_pictures is not None:
        entry["class_data_dir"] = str(Path(class_pictures).resolve())
    # the paper trains half as long without regularisation
    chosen = steps if steps is not None else STEPS if class_pictures is not None else STEPS // 2
    recipe = recipe_of(
        lesson,
        base,
        concepts=target / "concepts.json",
        steps=chosen,
        regularise=class_pictures is not None,
        device=device,
    )
    header = f"# Made by `genzoo teach`. Edit it and train again: genzoo train {target}/recipe.yaml\n"
    photos = {
        f"photographs/{number:03d}{path.suffix.lower()}": read_file(path)
        for number, path in enumerate(lesson.photographs.paths)
    }

    def fill(where: Path) -> None:
        (where / "photographs").mkdir()
        for name, content in photos.items():
            put_file(where / name, content, sync=False)
        put_file(where / "concepts.json", json.dumps([entry], indent=2) + "\n", sync=False)
        put_file(where / "recipe.yaml", header + yaml.safe_dump(recipe, sort_keys=False), sync=False)
        lesson.photographs.sheet.save(where / "photographs.png")

    return write_folder(target, fill) / "recipe.yaml"
