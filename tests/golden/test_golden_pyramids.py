"""Token maps that are not square: codec, VAR and CAR against the official code on such pyramids."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from golden.car_sets import MANIFEST, as_pixels, assert_near, stored_weights, transformer_arguments, vqvae
from golden.car_sets import config as set_config
from golden.manifest import golden_cases, golden_root, golden_tensors
from torch import Tensor

from genzoo.autoregression.scales import scale_lengths, scale_of_token, stretched_scales
from genzoo.families.car.control.model import CAR
from genzoo.families.car.control.pyramid import control_pyramid

SET = "control"
CASES = {case["name"]: case for case in golden_cases(SET, "pyramid")}
RECTANGLES = json.loads((golden_root() / SET / "manifest.json").read_text())["rectangles"]
SQUARES = {"256": (1, 2, 3, 4, 5, 6, 8, 10, 13, 16), "512": (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)}


def encoded(name: str) -> tuple[list[Tensor], list[Tensor]]:
    case, recorded = CASES[name], golden_tensors(SET, "pyramid", name)
    with torch.no_grad():
        features = vqvae(case["set"]).features(as_pixels(recorded["image_u8"]))
        return vqvae(case["set"]).quantize.encode(features, case["patch_nums"])


@pytest.mark.parametrize("name", CASES)
def test_tokens_and_what_they_make_equal_the_official_ones(name: str) -> None:
    case, recorded = CASES[name], golden_tensors(SET, "pyramid", name)
    model, (ids, sums) = vqvae(case["set"]), encoded(name)
    assert torch.equal(torch.cat(ids, dim=1), recorded["ids"])
    assert_near(sums[-1], recorded["f_hat"].float(), name, atol=2e-4)
    read = torch.cat(model.quantize.teacher_input(ids, case["patch_nums"]), dim=1)
    assert_near(read, recorded["var_input"].float(), name, atol=2e-4)
    step = case["reconstruction_stride"]
    pixels = model.decode(ids, case["patch_nums"])[..., ::step, ::step]
    assert_near(pixels, recorded["reconstruction"].float(), name, atol=1e-3)


def car_of(case: dict[str, Any], positions: Tensor) -> CAR:
    """The set's CAR with the pyramid's places."""
    name, entry = case["set"], MANIFEST[case["set"]]["car"]
    arguments = transformer_arguments(name) | {"patch_nums": case["patch_nums"]}
    model = CAR(**arguments, control_channels=set_config(name)["ctrl_ch"], init_from_base=False)
    base = stored_weights(entry["files"]["base_var_state_dict"]) | {"pos_1LC": positions.float()}
    state = {f"base.{key}": value for key, value in base.items()}
    state |= stored_weights(entry["files"]["car_state_dict"])
    own = {"base.lvl_1L", "base.attn_bias_for_masking"}
    result = model.load_state_dict({key: v for key, v in state.items() if key not in own}, strict=False)
    assert set(result.missing_keys) <= own | {f"base.{key}" for key in MANIFEST[name]["var"]["omitted_keys"]}
    return model.eval()


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_predictions_equal_the_official_ones(name: str) -> None:
    case, recorded = CASES[name], golden_tensors(SET, "pyramid", name)
    model = car_of(case, recorded["pos"])
    assert scale_of_token(case["patch_nums"]).tolist() == recorded["level"].tolist()
    labels = golden_tensors(SET, "mix", f"mix/{case['set']}")["labels"]
    read = recorded["var_input"].float()
    assert_near(model.base(labels, read), recorded["var_logits"].float(), name, atol=1e-3)
    sizes = [(height, width) for _, height, width in model.control_shapes()]
    control = control_pyramid(recorded["control_u8"].movedim(-1, 1), sizes)
    assert_near(model(labels, read, control), recorded["car_logits"].float(), name, atol=1e-3)


@pytest.mark.parametrize("case", RECTANGLES, ids=lambda case: f"{case['base']} {case['size_hw']}")
def test_pyramids_of_other_shapes_follow_from_square_ones(case: dict[str, Any]) -> None:
    found = stretched_scales(SQUARES[case["base"]], tuple(case["size_hw"]))
    pairs = [[scale, scale] if isinstance(scale, int) else list(scale) for scale in found]
    assert pairs == case["patch_nums"]
    assert sum(scale_lengths(found)) == case["tokens"]
