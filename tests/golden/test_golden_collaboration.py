"""Two models that share the scales of a picture, against the official collaborative decoding in float64."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from golden.car_sets import assert_near, config, transformer_arguments, var, vqvae
from golden.manifest import golden_cases, golden_root, golden_tensors
from safetensors.torch import load_file
from torch import Tensor

from genzoo.autoregression.filters import keep_top_k, keep_top_p
from genzoo.autoregression.sampling import GivenTokens, NextScaleOptions, sample_scales
from genzoo.autoregression.scales import split_scales
from genzoo.families.car.control.collaboration import CollaborativeDecoder
from genzoo.families.car.control.decoder import MixedDecoder
from genzoo.families.car.var.model import VAR

SET = "control"
CASES = {case["name"]: case for case in golden_cases(SET, "code")}
LOGITS_TOLERANCE = 3e-3  # float32 here, float64 there


@cache
def refiner(set_name: str) -> VAR:
    case = next(case for case in CASES.values() if case["set"] == set_name)
    sizes = {"depth": case["refiner"]["depth"], "hidden_size": case["refiner"]["embed_dim"],
             "num_heads": case["refiner"]["num_heads"]}  # fmt: skip
    model = VAR(**{**transformer_arguments(set_name), **sizes})
    tensors = load_file(golden_root() / SET / f"{set_name}_refiner_sd.safetensors")
    state = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    result = model.load_state_dict(state, strict=False)
    assert set(result.missing_keys) <= {"attn_bias_for_masking"}
    assert not result.unexpected_keys
    return model.eval()


@torch.no_grad()
def logits_after(case: dict[str, Any], ids: Tensor) -> Tensor:
    """Logits of all positions, after the tokens that the official models drew."""
    name = case["set"]
    options = config(name)
    labels = golden_tensors(SET, "code", f"code/{name}")["labels"]
    labels = torch.cat([labels, torch.full_like(labels, options["num_classes"])])
    given = [part[..., 0] for part in split_scales(ids[..., None], options["patch_nums"])]
    decoders = [MixedDecoder(model, labels) for model in (var(name), refiner(name))]
    drawn = sample_scales(
        CollaborativeDecoder(decoders[0], decoders[1], case["draft_scales"]),
        vqvae(name).quantize,
        options["patch_nums"],
        torch.Generator(),
        NextScaleOptions(guidance_scale=1 + case["cfg"]),
        given=GivenTokens(given, [torch.ones_like(part, dtype=torch.bool) for part in given]),
        keep_logits=True,
    )
    return torch.cat(drawn.logits, dim=1)


def temperatures(case: dict[str, Any]) -> Tensor:
    """One for every position, (1, l, 1)."""
    sides = config(case["set"])["patch_nums"]
    pairs = zip(case["temperature"], sides, strict=True)
    return torch.cat([torch.full((side**2,), value) for value, side in pairs])[None, :, None]


@pytest.mark.parametrize("kind", ["greedy", "uniform"])
@pytest.mark.parametrize("name", CASES)
def test_shared_scales_equal_the_official_ones(name: str, kind: str) -> None:
    case, recorded = CASES[name], golden_tensors(SET, "code", name)
    ids = recorded[f"{kind}_ids"]
    logits = logits_after(case, ids)
    kept = logits[:, :: case["logits_stride"]]
    assert_near(kept, recorded[f"{kind}_logits"].float(), name, atol=LOGITS_TOLERANCE)
    if kind == "greedy":
        assert torch.equal(logits.argmax(dim=-1), ids)
        return
    filtered = keep_top_p(keep_top_k(logits, case["top_k"]), case["top_p"]) / temperatures(case)
    numbers = golden_tensors(SET, "code", f"code/{case['set']}")["u"]
    assert torch.equal((filtered.double().softmax(-1).cumsum(-1) <= numbers[..., None]).sum(-1), ids)
