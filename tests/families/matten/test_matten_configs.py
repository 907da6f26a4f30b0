"""The configs of models of clips: every size of the papers, each buildable, none without a row."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import genzoo.families  # noqa: F401  # reads the cards
from genzoo.core.registry import MODELS

FOLDER = Path(__file__).parents[3] / "configs" / "models"
# Table 3 of Matten, whose heads are DiT's and Latte's; Table 1 of DiM
SIZES = {
    "matten": {"s": (12, 384, 6), "b": (12, 768, 12), "l": (24, 1024, 16), "xl": (28, 1152, 16)},
    "latte": {"s": (12, 384, 6), "b": (12, 768, 12), "l": (24, 1024, 16), "xl": (28, 1152, 16)},
    "dim_video": {"s2": (16, 384), "b2": (16, 768), "l2": (32, 1024), "xl2": (36, 1152)},
}
NAMES = [(kind, size) for kind, sizes in SIZES.items() for size in sizes]


@pytest.mark.parametrize(("kind", "size"), NAMES)
def test_a_config_of_clips_is_the_row_of_the_table(kind: str, size: str) -> None:
    arguments = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{kind}_{size}.yaml"))
    assert arguments.pop("name") == kind
    with torch.device("meta"):
        model = MODELS.get(kind)(**{**arguments, "depth": 2})
    heads = [] if kind == "dim_video" else [arguments["num_heads"]]
    assert (arguments["depth"], arguments["hidden_size"], *heads) == SIZES[kind][size]
    assert arguments.get("variant", 3) == 3
    assert (model.patch_size, model.num_frames, model.input_size, model.in_channels) == (2, 16, 32, 4)
    assert model.num_classes == (101 if kind == "dim_video" else 0)


@pytest.mark.parametrize("kind", SIZES)
def test_there_is_no_config_of_clips_without_a_row(kind: str) -> None:
    found = {path.stem for path in FOLDER.glob(f"{kind}_*.yaml")}
    assert found == {f"{kind}_{size}" for size in SIZES[kind]}
