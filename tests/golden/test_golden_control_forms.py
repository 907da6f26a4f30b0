"""Guidance by a control beside that by the label: every form against official blocks, combined in float64."""

from __future__ import annotations

import pytest
import torch
from golden.car_sampling import control_inputs
from golden.car_sets import assert_near, car, config, vqvae
from golden.manifest import golden_cases, golden_tensors

from genzoo.autoregression.sampling import GivenTokens, NextScaleOptions, sample_scales
from genzoo.autoregression.scales import split_scales
from genzoo.families.car.control.decoder import MixedDecoder, Steering
from genzoo.families.car.control.guidance import ControlGuidance

SET = "control"
CASES = {case["name"]: case for case in golden_cases(SET, "forms")}
RECORDED = {
    "both_halves": "both_halves",
    "class_half_only": "class_half_only",
    "additive": "additive",
    "pix2pix": "pix2pix_control_first",
    "ramped": "ramped_control",
}


@pytest.mark.parametrize("form", RECORDED)
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_forms_of_guidance_equal_the_recorded_ones(name: str, form: str) -> None:
    case, recorded = CASES[name], golden_tensors(SET, "forms", name)
    options, model = config(case["set"]), car(case["set"])
    scales, scale_of_guidance = len(options["patch_nums"]), 1 + case["cfg"]
    strengths = [case["strength"]] * scales
    guidance = ControlGuidance(form, case["control_ramp"] if form == "ramped" else 0.0)
    labels = torch.cat([recorded["labels"], torch.full_like(recorded["labels"], options["num_classes"])])
    given = [part[..., 0] for part in split_scales(recorded["ids"][..., None], options["patch_nums"])]
    drawn = sample_scales(
        MixedDecoder(
            model.base,
            labels,
            [Steering(model, model.encode_control(control_inputs(case["set"])), strengths)],
            weights=guidance.weights([strengths], scales, scale_of_guidance),
        ),
        vqvae(case["set"]).quantize,
        options["patch_nums"],
        torch.Generator(),
        NextScaleOptions(guidance_scale=scale_of_guidance),
        given=GivenTokens(given, [torch.ones_like(part, dtype=torch.bool) for part in given]),
        keep_logits=True,
    )
    assert_near(torch.cat(drawn.logits, dim=1), recorded[RECORDED[form]].float(), name, atol=3e-3)
