"""The smallest recipe of everything registered: by rule from the ports, with arguments from one table.

A new name is tested by being registered. When its arguments have no small defaults, it needs one line here.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file

import genzoo.api  # noqa: F401  (reads every card)
from genzoo.core.recipe import Recipe, recipe_from
from genzoo.core.registry import CODECS, DATASETS, MODELS, SAMPLERS, TASKS, Entry, Registry
from genzoo.data.shard_index import make_index

FACTS = {"num_classes": "auto", "in_channels": "auto", "input_size": "auto"}
TRANSFORMER = {"depth": 2, "hidden_size": 24, "patch_size": 2, "learn_sigma": False, **FACTS}
MAMBA = {**TRANSFORMER, "d_state": 3}
CLIPS = {"num_frames": "auto"}
TOKENS = {"patch_nums": [1, 2, 3, 4], "codebook_size": 16}  # as many scales as residual convolutions
MAPS = {**TOKENS, "depth": 2, "hidden_size": 24, "num_heads": 3, "in_channels": 4, "num_classes": "auto"}
EMOJI = {"names": ["cactus", "owl", "rocket"], "image_size": 32, "styles": ["noto"]}
ONE_EMOJI = {"name": "emoji", "image_size": 32, "classes": "none", "styles": ["noto"]}

SMALL: dict[Registry, dict[str, dict[str, Any]]] = {
    MODELS: {
        "dim": MAMBA,
        "dit": {**TRANSFORMER, "num_heads": 2},
        "dim_video": {**MAMBA, **CLIPS},
        "latte": {**TRANSFORMER, **CLIPS, "num_heads": 2},
        "matten": {**MAMBA, **CLIPS, "num_heads": 2},
        "vqvae": {**TOKENS, "z_channels": 4, "ch": 32, "ch_mult": [1, 1], "num_res_blocks": 1},
        "var": MAPS,
        "car": {**MAPS, "control_channels": [4, 6]},
        "autoencoder_kl": {
            "block_out_channels": [8, 12], "layers_per_block": 1, "latent_channels": 2, "norm_num_groups": 4,
        },
        "text_to_image": {
            "block_out_channels": [8, 12], "num_heads": 2, "norm_num_groups": 4, "text_width": 8,
            "text_layers": 1, "text_heads": 2, "in_channels": "auto", "input_size": "auto",
        },
        "custom_diffusion": {
            "base_model": "@base", "modifier_tokens": "auto", "phrases": ["a <new1> plant"],
        },
    },
    TASKS: {"latent_diffusion": {"loss": {"name": "noise_mse"}}},
    DATASETS: {
        "digits": {},
        "moving_digits": {"image_size": 12, "num_frames": 3},
        "image_folder": {"root": "@pictures", "image_size": 8},
        "video_folder": {"root": "@clips", "image_size": 8, "num_frames": 3},
        "emoji": EMOJI,
        "image_shards": {"root": "@shards", "image_size": 8, "captions": True},
        "hf_folder": {"root": "@arrow", "image_size": 8, "captions": True},
        "placed_digits": {},
        "moving_emoji": {"names": ["cactus", "owl"], "num_frames": 3, "styles": ["noto"]},
        "concepts": {
            "image_size": 32,
            "concepts": [
                {
                    "instance_prompt": "an emoji of a <new1> plant",
                    "instance_data": {**ONE_EMOJI, "names": ["cactus"]},
                    "class_data": {**ONE_EMOJI, "names": ["owl", "rocket"]},
                }
            ],
        },
    },
    CODECS: {
        "identity": {"scale": 0.5},
        "autoencoder_kl": {"path": "@autoencoder"},
        "autoencoder": {"path": "@autoencoder"},
        "vqvae": {"weights": "@vqvae", "patch_nums": TOKENS["patch_nums"]},
    },
}  # fmt: skip
DATA_OF = dict.fromkeys(["vqvae", "next_scale", "autoencoder"], "image_folder")  # three channels
TASK_WITH = {("next_scale", "car"): {"control": "canny"}}


class Workshop:
    """Files that the smallest recipes name as "@what", made when first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, value: Any) -> Any:
        """Settings with "@what" replaced by the path of what was made."""
        if isinstance(value, dict):
            return {key: self.fill(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        return self.path(value[1:]) if isinstance(value, str) and value.startswith("@") else value

    def path(self, what: str) -> str:
        path = self.folder / what
        if not path.exists():
            makers: dict[str, Callable[[Path], object]] = {
                "pictures": lambda path: draw(path, ["cats/0", "cats/1", "dogs/0"]),
                "shards": pack,
                "arrow": save_arrow,
                "clips": lambda path: draw(path, [f"{k}/{i}" for k in ("in", "out") for i in range(6)]),
                "vqvae": lambda path: save_file(self.fresh("vqvae").state_dict(), path),
                "autoencoder": lambda path: self.fresh("autoencoder_kl").write(path),
                "base": self.write_base,
            }
            makers[what](path)
        return str(path)

    def fresh(self, model: str, **facts: Any) -> Any:
        torch.manual_seed(0)
        return MODELS.get(model)(**SMALL[MODELS][model] | facts)

    def write_base(self, path: Path) -> None:
        codec = self.build(CODECS, "autoencoder_kl")
        self.fresh("text_to_image", in_channels=2, input_size=16).write(path, codec, {})

    def build(self, registry: Registry, name: str, **changes: Any) -> Any:
        """A registered thing with its smallest arguments."""
        return registry.get(name)(**self.fill(arguments(registry, name) | changes))


def draw(folder: Path, names: list[str]) -> None:
    """PNG files of 10 x 9 pixels, each of its own colour."""
    for number, name in enumerate(names):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (10, 9), (20 * number, 90, 200))
        image.putpixel((2, 3), (255, 255, 0))
        image.save(path)


def save_arrow(folder: Path) -> None:
    """Three captioned pictures of two classes, as `datasets` saves them."""
    import datasets

    draw(folder / "loose", ["0", "1", "2"])
    columns = {
        "picture": [str(folder / "loose" / f"{name}.png") for name in "012"],
        "class": [0, 1, 0],
        "text": [f"picture {name}" for name in "012"],
    }
    kinds = {"picture": datasets.Image(), "class": datasets.ClassLabel(names=["cat", "dog"])}
    features = datasets.Features({**kinds, "text": datasets.Value("string")})
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(folder)


def pack(folder: Path) -> None:
    """Two tar shards of captioned pictures, with their indices."""
    draw(folder / "loose", ["0", "1", "2"])
    for number, names in enumerate((["0", "1"], ["2"])):
        with tarfile.open(folder / f"part-{number}.tar", "w") as archive:
            for name in names:
                (folder / "loose" / f"{name}.cls").write_text(str(int(name) % 2))
                (folder / "loose" / f"{name}.txt").write_text(f"picture {name}")
                for extension in ("png", "cls", "txt"):
                    archive.add(folder / "loose" / f"{name}.{extension}", f"{name}.{extension}")
        make_index(folder / f"part-{number}.tar")


def arguments(registry: Registry, name: str) -> dict[str, Any]:
    """The smallest arguments of a name; of an unlisted one, its defaults."""
    return dict(SMALL.get(registry, {}).get(name, {}))


def pairs() -> Iterator[tuple[str, str]]:
    """Every task with every model whose port it takes."""
    for task in TASKS:
        for model in MODELS:
            if MODELS.entry(model).fits(TASKS.entry(task).takes.get("model", MODELS.entry(model).port)):
                yield task, model


def smallest(task: str, model: str, workshop: Workshop, **sampler: Any) -> Recipe:
    """The smallest recipe of a task with a model; sampler: a section in place of the first that fits."""
    takes = TASKS.entry(task)
    codec = first(CODECS, takes, "codec") if "codec" in takes.needs else None
    sections = {
        "name": f"{task}-{model}",
        "task": {"name": task, **arguments(TASKS, task), **TASK_WITH.get((task, model), {})},
        "model": {"name": model, **arguments(MODELS, model)},
        "data": section(DATASETS, DATA_OF.get(task) or data_for(takes, MODELS.entry(model))),
        **({"codec": section(CODECS, codec)} if codec else {}),
        **({"sampler": sampler or few_steps(task)} if takes.takes.get("sampler") else {}),
        "train": {"steps": 1, "batch_size": 2, "tensorboard": False, "log_every": 1},
    }
    return recipe_from(workshop.fill(sections))


def section(registry: Registry, name: str) -> dict[str, Any]:
    return {"name": name, **arguments(registry, name)}


def few_steps(task: str) -> dict[str, Any]:
    """The section of the first sampler that a task takes, with two steps where it has any."""
    return sampler_section(first(SAMPLERS, TASKS.entry(task), "sampler"))


def sampler_section(name: str) -> dict[str, Any]:
    from genzoo.core.signatures import parameters

    return {"name": name, **({"steps": 2} if "steps" in parameters(SAMPLERS.get(name)) else {})}


def first(registry: Registry, entry: Entry, kind: str) -> str:
    return next(name for name in registry if registry.entry(name).fits(entry.takes[kind]))


def data_for(*entries: Entry) -> str:
    """The first data set of the table, then of all others, that these entries take."""
    names = dict.fromkeys([*SMALL[DATASETS], *DATASETS])
    wanted = [entry.takes["data"] for entry in entries if "data" in entry.takes]
    return next(name for name in names if all(DATASETS.entry(name).fits(ports) for ports in wanted))
