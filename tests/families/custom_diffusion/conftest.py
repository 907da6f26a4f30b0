"""Bases of the shapes of Stable Diffusion and SDXL, built once; folders of pictures; a concept list."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families.custom_diffusion.pipelines import tiny_pipeline
from families.custom_diffusion.tiny_bases import build_base, build_clip, make_concept
from PIL import Image

from genzoo.families.custom_diffusion.files.write_layouts import write_concept


@pytest.fixture(scope="session")
def sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_base(tmp_path_factory.mktemp("bases") / "sd", "sd")


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_base(tmp_path_factory.mktemp("bases") / "sdxl", "sdxl")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_clip(tmp_path_factory.mktemp("clip") / "tiny")


def draw_pictures(folder: Path, num: int, *, seed: int = 0) -> Path:
    """Noise pictures of different shapes."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for index in range(num):
        pixels = rng.integers(0, 256, (20 + 3 * index, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cat, pot: 3 and 2 pictures; class_cat, class_pot: 5 and 4."""
    root = tmp_path_factory.mktemp("pictures")
    for seed, (name, num) in enumerate((("cat", 3), ("pot", 2), ("class_cat", 5), ("class_pot", 4))):
        draw_pictures(root / name, num, seed=seed)
    return root


def entry(pictures: Path, number: int, word: str) -> dict[str, Any]:
    """One entry of a concept list, as the official format has it."""
    return {
        "instance_prompt": f"photo of a <new{number}> {word}",
        "class_prompt": word,
        "instance_data_dir": str(pictures / word),
        "class_data_dir": str(pictures / f"class_{word}"),
    }


@pytest.fixture
def listed(pictures: Path, tmp_path: Path) -> Callable[..., Path]:
    """listed("cat", "pot", key=value...): a concept list with these words; keys change the first entry."""

    def write(*words: str, **changes: Any) -> Path:
        entries = [entry(pictures, number, word) for number, word in enumerate(words, 1)]
        entries[0] |= changes
        path = tmp_path / f"{'_'.join(words)}.json"
        path.write_text(json.dumps([{k: v for k, v in one.items() if v is not None} for one in entries]))
        return path

    return write


@pytest.fixture
def concepts(sd: Path, tmp_path: Path) -> list[Path]:
    """A cat with a token, a pot with a token, and a gate without."""
    made = [
        make_concept(sd, 1, token="<new1>", phrase="<new1> cat"),
        make_concept(sd, 2, token="<new2>", phrase="<new2> wooden pot"),
        make_concept(sd, 3, token=None, phrase="moongate"),
    ]
    return [write_concept(delta, tmp_path / f"{k}.safetensors") for k, delta in enumerate(made)]


@pytest.fixture
def pipeline(sd: Path) -> Any:
    """What `apply_concept` needs of a pipeline."""
    return tiny_pipeline(sd, ("",))
