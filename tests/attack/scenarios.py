"""The commands under attack: what they read, what they write, and what was there before."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

MERGE = (
    "merge-concepts", "concept1.safetensors", "concept2.safetensors", "--base", "base",
    "--captions", "captions.txt", "-o",
)  # fmt: skip


@dataclass(frozen=True)
class Scenario:
    """arguments: of `genzoo`.   reads: inputs that are copied into the work folder.   writes: names in it.

    stopped_at: for a command that goes on, where the first start was killed: before the last operation of
    this kind on a path that holds this text.   again: the command was done once before.
    """

    name: str
    arguments: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    stopped_at: tuple[str, str] | None = None
    again: bool = False


def copy_inputs(inputs: Path, work: Path, scenario: Scenario) -> None:
    """Put what a command reads into its work folder."""
    for name in scenario.reads:
        source = inputs / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, work / name)


TRAIN = ("train", "recipe.yaml", "--output", "out")
BESIDE = (*TRAIN, "train.save=background")  # in TRAIN's place: saved by a thread beside the steps
SCENARIOS = (
    Scenario("train", TRAIN, ("recipe.yaml", "pictures"), ("out", "cache")),
    Scenario(
        "train, resuming",
        TRAIN,
        ("recipe.yaml", "pictures"),
        ("out", "cache"),
        stopped_at=("rename", "-step_00000004"),
    ),
    Scenario("train beside the steps", BESIDE, ("recipe.yaml", "pictures"), ("out", "cache")),
    Scenario(
        "train beside the steps, resuming",
        BESIDE,
        ("recipe.yaml", "pictures"),
        ("out", "cache"),
        stopped_at=("rename", "-step_00000004"),
    ),
    Scenario("sample", ("sample", "run", "--num", "5", "--out", "out"), ("run", "pictures"), ("out",)),
    Scenario(
        "prepare latents",
        ("prepare", "latents", "latents.yaml"),
        ("latents.yaml", "pictures"),
        ("latents",),
    ),
    Scenario(
        "prepare controls",
        ("prepare", "controls", "pictures/class_0", "--control", "canny", "-o", "out"),
        ("pictures",),
        ("out",),
    ),
    Scenario(
        "evaluate",
        (
            "evaluate", "pictures", "--reference", "pictures", "--protocol", "quick-pixels", "--num", "8",
            "--output", "out.json",
        ),
        ("pictures",),
        ("out.json", "cache"),
    ),
    Scenario(
        "merge-concepts to a file",
        (*MERGE, "out.safetensors"),
        ("concept1.safetensors", "concept2.safetensors", "base", "captions.txt"),
        ("out.safetensors",),
    ),
    Scenario(
        "merge-concepts to a folder",
        (*MERGE, "out"),
        ("concept1.safetensors", "concept2.safetensors", "base", "captions.txt"),
        ("out",),
    ),
    Scenario(
        "export over a file",
        ("export", "run", "exported.safetensors", "--overwrite"),
        ("run", "pictures", "exported.safetensors"),
        ("exported.safetensors",),
    ),
    Scenario(
        "convert",
        ("convert", "foreign.safetensors", "out", "--recipe", "plain.yaml", "--argument", "num_heads=2"),
        ("foreign.safetensors", "plain.yaml", "pictures"),
        ("out",),
    ),
)  # fmt: skip
JUDGE = ("--protocol", "quick-pixels", "--num", "8", "--output", "out.json")
RESULTS = ("first.json", "second.json", "first.terms.safetensors", "second.terms.safetensors")
LORAS = ("lora1.safetensors", "lora2.safetensors")
# what these read another command reads too
NOT_READ = (
    "train",
    "train beside the steps",
    "train beside the steps, resuming",
    "merge-concepts to a folder",
)
READING = (
    *(one for one in SCENARIOS if one.name not in NOT_READ),
    Scenario("sample a file", ("sample", "exported.safetensors", "--num", "5", "--out", "out"),
             ("exported.safetensors",), ("out",)),
    Scenario("evaluate an npz", ("evaluate", "pictures.npz", "--reference", "pictures", *JUDGE),
             ("pictures", "pictures.npz"), ("out.json",)),
    Scenario("compare", ("compare", *RESULTS[:2], "--output", "out"), RESULTS, ("out",)),
    Scenario("convert-concept", ("convert-concept", "concept1.safetensors", "--base", "base", "--to", "kohya",
             "-o", "out"), ("concept1.safetensors", "base"), ("out",)),
    Scenario("merge-concepts of LoRA", ("merge-concepts", *LORAS, "--base", "base", "--phrase",
             "a cat", "--phrase", "a pot", "-o", "out.safetensors"), (*LORAS, "base"), ("out.safetensors",)),
    Scenario("edit-concepts", ("edit-concepts", "edits.json", "--base", "base", "--captions", "captions.txt",
             "-o", "out"), ("edits.json", "base", "captions.txt"), ("out",)),
    Scenario("prepare shards", ("prepare", "shards", "shards", "-o", "out"), ("shards",), ("out",)),
    Scenario("train on shards", ("train", "shards.yaml", "--output", "out"), ("shards.yaml", "shards"),
             ("out",)),
)  # fmt: skip
"""Commands whose reading is attacked: every kind of file that genzoo opens."""
LATENTS_AGAIN = Scenario(
    "prepare latents, again",
    ("prepare", "latents", "latents.yaml"),
    ("latents.yaml", "pictures"),
    ("latents",),
    again=True,
)
