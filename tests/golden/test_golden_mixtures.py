"""Controls at a strength, and several at once, against the official blocks mixed in float64."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import torch
from golden.car_sampling import control_inputs
from golden.car_sets import assert_near, car, config, new_car, vqvae
from golden.manifest import golden_cases, golden_root, golden_tensors
from safetensors.torch import load_file
from torch import Tensor

from genzoo.autoregression.filters import keep_top_k, keep_top_p
from genzoo.autoregression.sampling import GivenTokens, NextScaleOptions, sample_scales
from genzoo.autoregression.scales import split_scales
from genzoo.families.car.control.decoder import MixedDecoder, Steering
from genzoo.families.car.control.model import CAR

SET = "control"
CASES = {case["name"]: case for case in golden_cases(SET, "mix")}
LOGITS_TOLERANCE = 3e-3  # float32 here, float64 there


@cache
def second_car(set_name: str) -> CAR:
    """The other branch of a set, on the same base."""
    manifest = json.loads((golden_root() / SET / "manifest.json").read_text())
    assert "second branches" in manifest["sets"]
    model = new_car(set_name)
    tensors = load_file(golden_root() / SET / f"{set_name}_car2_sd.safetensors")
    result = model.load_state_dict({key: value.float() for key, value in tensors.items()}, strict=False)
    assert not result.unexpected_keys
    assert all(key.startswith("base.") for key in result.missing_keys)
    return model


def steering(set_name: str, control: str, strengths: list[float]) -> Steering:
    """ "A": the set's own CAR and control; "B", "C": the second CAR, or the own, with the other control."""
    pyramid = control_inputs(set_name)
    if control != "A":
        pyramid = [-picture.flip(-1) for picture in pyramid]
    model = second_car(set_name) if control == "B" else car(set_name)
    return Steering(model, model.encode_control(pyramid), strengths)


@torch.no_grad()
def mixed_logits(case: dict[str, Any], ids: Tensor) -> list[Tensor]:
    """Logits of every scale, after the tokens that the official blocks drew."""
    options, set_name = config(case["set"]), case["set"]
    scales = len(options["patch_nums"])
    rows = [row if isinstance(row, list) else [row] for row in case["strength"]]
    table = (
        rows if len(rows[0]) == len(case["controls"]) and len(rows) == scales else [case["strength"]] * scales
    )
    steerings = [
        steering(set_name, name, [row[index] for row in table]) for index, name in enumerate(case["controls"])
    ]
    labels = golden_tensors(SET, "mix", f"mix/{set_name}")["labels"]
    if case["cfg"]:
        labels = torch.cat([labels, torch.full_like(labels, options["num_classes"])])
    tokens = split_scales(ids[..., None], options["patch_nums"])
    given = [part[..., 0] for part in tokens]
    drawn = sample_scales(
        MixedDecoder(car(set_name).base, labels, steerings),
        vqvae(set_name).quantize,
        options["patch_nums"],
        torch.Generator(),
        NextScaleOptions(guidance_scale=1 + case["cfg"]),
        given=GivenTokens(given, [torch.ones_like(part, dtype=torch.bool) for part in given]),
        keep_logits=True,
    )
    return drawn.logits


def drawn_with(case: dict[str, Any], logits: Tensor, numbers: Tensor) -> Tensor:
    """The tokens that uniform numbers in [0, 1) draw, or the likeliest ones."""
    filtered = keep_top_p(keep_top_k(logits, case["top_k"]), case["top_p"])
    if case["draw"] == "greedy":
        return filtered.argmax(dim=-1)
    cumulative = filtered.double().softmax(dim=-1).cumsum(dim=-1)
    return (cumulative <= numbers[..., None]).sum(dim=-1)


@pytest.mark.parametrize("name", CASES)
def test_mixtures_equal_the_official_ones(name: str) -> None:
    case, recorded = CASES[name], golden_tensors(SET, "mix", name)
    logits = torch.cat(mixed_logits(case, recorded["ids"]), dim=1)
    kept = logits[:, :: case["logits_stride"]]
    assert_near(kept, recorded["logits"].float(), name, atol=LOGITS_TOLERANCE)
    numbers = golden_tensors(SET, "mix", f"mix/{case['set']}")["u"]
    assert torch.equal(drawn_with(case, logits, numbers), recorded["ids"])
