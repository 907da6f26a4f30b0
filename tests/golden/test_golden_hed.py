"""HED as ControlNet's annotator against the official detector; weights follow the manifest's recipe."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch
from golden.manifest import golden_cases, golden_tensors
from torch import Tensor, nn

from genzoo.core.errors import WeightsError
from genzoo.pretrained.edges import ControlNetHEDEdges, annotator_levels
from genzoo.pretrained.hed import HED
from genzoo.pretrained.hed_controlnet import ControlNetHED, load_controlnet_hed

SET = "control"
CASES = {case["name"]: case for case in golden_cases(SET, "hed")}
SIDES_TOLERANCE, PROBABILITY_TOLERANCE, DIFFERING = 2e-4, 2e-5, 1e-3


def recipe_value(name: str, parameter: Tensor) -> Tensor:
    """As the manifest's weights_recipe says."""
    numbers = np.random.RandomState(crc32(name.encode())).random_sample(parameter.numel())
    u = torch.from_numpy(numbers.astype(np.float32) * 2 - 1).view(parameter.shape)
    if name == "norm":
        return torch.tensor([120.0, 115.0, 105.0]).view(1, 3, 1, 1)
    projects = "projection" in name
    if name.endswith("bias"):
        return u * (0.5 if projects else 0.1)
    fan_in = parameter[0].numel()
    return u * np.float32(0.04 * np.sqrt(3 / fan_in) if projects else np.sqrt(6 / fan_in))


@cache
def network() -> ControlNetHED:
    module = ControlNetHED()
    module.load_state_dict({name: recipe_value(name, p) for name, p in module.named_parameters()})
    return module.requires_grad_(False).eval()


def image(tensors: dict[str, Tensor]) -> Tensor:
    return tensors["image_u8"].movedim(-1, 0)[None]


@pytest.mark.parametrize("name", CASES)
def test_sides_probability_and_levels_equal_the_official_ones(name: str) -> None:
    tensors = golden_tensors(SET, "hed", name)
    for number, side in enumerate(network().sides(image(tensors)), 1):
        expected = tensors[f"side{number}"].reshape(side.shape)
        assert (side - expected).abs().max() < SIDES_TOLERANCE
    probability = network()(image(tensors))[0]
    expected = tensors["probability"].reshape(probability.shape)
    assert (probability - expected).abs().max() < PROBABILITY_TOLERANCE
    for key, safe in (("u8", False), ("safe_u8", True)):
        if key in tensors:
            levels = annotator_levels(probability, safe=safe)
            off = (levels - tensors[key].reshape(levels.shape).double()).abs()
            assert (off > 0).double().mean() <= DIFFERING
            assert safe or off.max() <= 1


def test_keys_and_size_are_those_of_the_published_file() -> None:
    parameters = dict(network().named_parameters())
    assert len(parameters) == 37
    assert sum(p.numel() for p in parameters.values()) == 14_716_168
    assert parameters["block3.projection.weight"].shape == (1, 256, 1, 1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "ControlNetHED.pth"
    torch.save(network().state_dict(), path)
    return path


def test_the_extractor_makes_the_recorded_picture(weights: Path) -> None:
    tensors = golden_tensors(SET, "hed", next(iter(CASES)))
    extract = ControlNetHEDEdges(weights=str(weights.parent), resolution=None)
    control = extract(image(tensors).float() / 127.5 - 1)
    levels = ((control[0, 0] + 1) * 127.5).round()
    assert (levels != tensors["u8"].reshape(levels.shape)).double().mean() <= DIFFERING
    assert torch.equal(control[:, :1].expand(-1, 3, -1, -1), control)
    assert extract.fingerprint.startswith("hed_controlnet-")
    safe = ControlNetHEDEdges(weights=str(weights), resolution=None, safe=True)
    assert safe.fingerprint != extract.fingerprint


def test_the_other_hed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "hed.pth"
    module: nn.Module = HED()
    torch.save(module.state_dict(), path)
    with pytest.raises(WeightsError, match="fused output, not ControlNet's"):
        load_controlnet_hed(path)
