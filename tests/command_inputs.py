"""What commands read, in one folder: pictures, recipes, a run, weights, a base with two concepts, shards."""

from __future__ import annotations

import contextlib
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import torch
from families.custom_diffusion.tiny_bases import build_base, make_concept
from PIL import Image
from recipe_cases import TINY

import genzoo.api.run
import genzoo.api.runs.conversion
from genzoo.api.preparation.shards import prepare_shards
from genzoo.cli import main
from genzoo.core.recipe import recipe_from
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.families.custom_diffusion.files.write_layouts import write_concept

SMALL = {**TINY["model"], "depth": 1, "hidden_size": 16}
EVALUATION = {"every": 4, "protocol": "quick-pixels", "num": 4, "keep_best": "pixel_frechet"}
JUDGE = ("--protocol", "quick-pixels", "--num", "8", "--output")
RECIPE = {
    **TINY,
    "model": SMALL,
    "data": {"name": "image_folder", "root": "pictures", "image_size": 8, "channels": 1},
    "sampler": {"name": "ddim", "steps": 2, "guidance_scale": 1.0, "block_size": 4},
    "train": {**TINY["train"], "steps": 4, "batch_size": 4, "keep_last": 1},
    "preview": {"every": 4, "num": 2},
    "report": [{"name": "sample_grid", "rows": 1, "columns": 2}],
}


def build_inputs(folder: str) -> None:
    """Everything that commands read: pictures, recipes, a run, weights, a base with two concepts."""
    os.chdir(folder)
    for index in range(8):
        path = Path(f"pictures/class_{index % 2}/{index}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 256, (12, 12, 3), generator=torch.Generator().manual_seed(index))
        Image.fromarray(pixels.to(torch.uint8).numpy()).save(path)
    recipes = {
        "recipe.yaml": RECIPE | {"evaluation": EVALUATION},
        "plain.yaml": RECIPE | {"preview": None, "report": None},
        "shards.yaml": RECIPE
        | {
            "data": {**RECIPE["data"], "name": "image_shards", "root": "shards"},
            "preview": None,
            "report": None,
        },
        "latents.yaml": RECIPE
        | {"data": {**RECIPE["data"], "latent_cache": "latents"}, "codec": {"name": "identity"}},
    }
    for name, recipe in recipes.items():
        Path(name).write_text(recipe_from(recipe).to_yaml())
    run = genzoo.api.run.train("plain.yaml", output="run")
    genzoo.api.runs.conversion.export(run, "foreign.safetensors", layout="dit")
    genzoo.api.runs.conversion.export(run, "exported.safetensors", weights="raw")
    base = build_base(Path("base"), "sd")
    for number, word in enumerate(("cat", "pot"), 1):
        delta = make_concept(base, number, token=f"<new{number}>", phrase=f"<new{number}> {word}")
        write_concept(delta, Path(f"concept{number}.safetensors"))
        lora = write_concept(delta, Path(f"kohya{number}"), layout="kohya", base=BaseWeights(base))
        (lora / "lora.safetensors").rename(f"lora{number}.safetensors")
    Path("captions.txt").write_text("\n".join(f"a {word} on a table" for word in ("cat", "dog", "cup")))
    Path("edits.json").write_text(json.dumps([{"edit": "erase", "from": "cat"}]))
    _pack(Path("shards/part-0.tar"), sorted(Path("pictures").rglob("*.png")))
    prepare_shards(Path("shards"))
    np.savez("pictures.npz", np.arange(8 * 12 * 12 * 3, dtype=np.uint8).reshape(8, 12, 12, 3))
    for name in ("first.json", "second.json"):
        with contextlib.suppress(SystemExit):
            main(["evaluate", "pictures", "--reference", "pictures", *JUDGE, name])


def _pack(shard: Path, pictures: list[Path]) -> None:
    shard.parent.mkdir()
    with tarfile.open(shard, "w") as archive:
        for number, picture in enumerate(pictures):
            archive.add(picture, f"{number}.png")
