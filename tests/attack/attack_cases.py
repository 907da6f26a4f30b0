"""What forked processes run under attack: genzoo's command line, with the preloaded library armed or not."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from families.custom_diffusion.tiny_bases import build_base, make_concept
from PIL import Image
from recipe_cases import TINY
from scenarios import SCENARIOS, copy_inputs

import genzoo.api.run
import genzoo.api.runs.conversion
from genzoo.cli import main
from genzoo.core.recipe import recipe_from
from genzoo.families.custom_diffusion.files.write_layouts import write_concept

SMALL = {**TINY["model"], "depth": 1, "hidden_size": 16}
EVALUATION = {"every": 4, "protocol": "quick-pixels", "num": 4, "keep_best": "pixel_frechet"}
RECIPE = {
    **TINY,
    "model": SMALL,
    "data": {"name": "image_folder", "root": "pictures", "image_size": 8, "channels": 1},
    "sampler": {"name": "ddim", "steps": 2, "guidance_scale": 1.0, "block_size": 4},
    "train": {**TINY["train"], "steps": 4, "batch_size": 4, "keep_last": 1},
    "preview": {"every": 4, "num": 2},
    "report": [{"name": "sample_grid", "rows": 1, "columns": 2}],
}


def arm(fault: dict[str, Any]) -> None:
    """Arm the preloaded library in this process."""
    library = ctypes.CDLL(None)
    text, number = ctypes.c_char_p, ctypes.c_int
    library.faults_arm.argtypes = [text, number, ctypes.c_long, number, text, number, number]
    keys = ("folder", "action", "number", "code", "record", "data", "reads")
    values = [fault[key] for key in keys]
    library.faults_arm(*[os.fsencode(value) if isinstance(value, str) else int(value) for value in values])


def command(arguments: list[str], folder: str, *, fault: dict[str, Any] | None = None) -> None:
    """Run a command in a folder; ends the process with its exit code."""
    os.chdir(folder)
    sys.argv = ["genzoo", *arguments]
    if fault is not None:
        arm(fault)
    code = 0
    try:
        main(arguments)
    except SystemExit as end:
        code = int(end.code or 0)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def warm_up(inputs: str) -> None:
    """Run every command once in this process, so that its children need not import anything."""
    before = Path.cwd()
    with open(os.devnull, "w") as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        build_inputs(inputs)
        for scenario in SCENARIOS:
            with tempfile.TemporaryDirectory() as work, contextlib.suppress(SystemExit):
                copy_inputs(Path(inputs), Path(work), scenario)
                os.chdir(work)
                main(list(scenario.arguments))
    os.chdir(before)


def save_five_times(folder: str, *, fault: dict[str, Any]) -> None:
    """Five checkpoints, of which the last two stay."""
    from genzoo.core.checkpoint import save_checkpoint

    arm(fault)
    for step in range(1, 6):
        weights = {"w": torch.full((7,), float(step))}
        save_checkpoint(Path(folder, "checkpoints"), step, weights=weights, state={}, keep_last=2)


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
    Path("captions.txt").write_text("\n".join(f"a {word} on a table" for word in ("cat", "dog", "cup")))


warm_up(os.environ["ATTACK_INPUTS"])
