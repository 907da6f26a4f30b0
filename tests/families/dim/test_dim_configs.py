"""The model configs: every size of the papers, each buildable, none with another name's numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import genzoo.families  # noqa: F401  # reads the cards
from genzoo.core.registry import MODELS

FOLDER = Path(__file__).parents[3] / "configs" / "models"
# Table 1 of DiM, and Table 1 of DiT
SIZES = {
    "dim": {"s": (16, 384), "b": (16, 768), "l": (32, 1024), "xl": (36, 1152)},
    "dit": {"s": (12, 384, 6), "b": (12, 768, 12), "l": (24, 1024, 16), "xl": (28, 1152, 16)},
}
NAMES = [(kind, size, patch) for kind, sizes in SIZES.items() for size in sizes for patch in (2, 4, 8)]


@pytest.mark.parametrize(("kind", "size", "patch"), NAMES)
def test_a_config_is_the_row_of_the_table(kind: str, size: str, patch: int) -> None:
    arguments = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{kind}_{size}{patch}.yaml"))
    assert arguments.pop("name") == kind
    with torch.device("meta"):
        model = MODELS.get(kind)(**{**arguments, "depth": 1})
    heads = [arguments["num_heads"]] if kind == "dit" else []
    assert (arguments["depth"], arguments["hidden_size"], *heads) == SIZES[kind][size]
    assert model.patch_size == patch
    assert (model.input_size, model.in_channels, model.num_classes) == (32, 4, 1000)


def test_there_is_no_config_without_a_row() -> None:
    found = {path.stem for kind in SIZES for path in FOLDER.glob(f"{kind}_[!v]*.yaml")}
    assert found == {f"{kind}_{size}{patch}" for kind, size, patch in NAMES}
