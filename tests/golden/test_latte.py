"""Latte, its reshape rules and losses of clips against the official implementation, one test per case.

The tables of positions among the cases are checked with DiT's, in test_dit.py.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from golden.manifest import golden_cases, golden_tensors
from golden.recorded_features import RecordedEmbedding, recorded_features
from golden.test_dit import is_table_case
from torch import Tensor

from genzoo.diffusion.guidance import combine
from genzoo.diffusion.losses import hybrid
from genzoo.diffusion.process import q_sample
from genzoo.diffusion.schedule import make_schedule
from genzoo.families.matten.latte import Latte
from genzoo.nn.scan_order import from_sequences, to_sequences

SET, FILE = "ssm_diffusion", "latte"
# relative to the largest value: float64 differs by the order of sums only, float32 by its rounding
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4}
PRECISIONS = {"f32": torch.float32, "f64": torch.float64}
CASES = [case for case in golden_cases(SET, FILE) if not is_table_case(case)]
MODEL_CASES = [case for case in CASES if any(key.startswith("sd.") for key in case["keys"])]
OTHER_CASES = [case for case in CASES if case not in MODEL_CASES]


def assert_near(actual: Tensor, expected: Tensor, what: str, tolerance: float | None = None) -> None:
    assert actual.shape == expected.shape, f"{what}: {tuple(actual.shape)} != {tuple(expected.shape)}"
    if not expected.is_floating_point():
        assert torch.equal(actual, expected), what
        return
    gap = (actual.double() - expected.double()).abs().max().item()
    limit = (tolerance or TOLERANCE[expected.dtype]) * expected.double().abs().max().item()
    assert gap <= limit, f"{what}: off by {gap:.3g}, allowed {limit:.3g}"


def build(config: dict[str, Any]) -> Latte:
    """The official arguments in our terms: `extras` says whether there are labels."""
    options = dict(config)
    extras = options.pop("extras", 1)
    assert extras in (1, 2), f"no model of ours for extras={extras}"
    null_class = options.pop("class_dropout_prob", 0.1) > 0
    options.pop("use_image_num", None)
    num_classes = options.pop("num_classes", 0)
    return Latte(**options, num_classes=num_classes if extras == 2 else 0, null_class=null_class)


def load(case: dict[str, Any], tensors: dict[str, Tensor], dtype: torch.dtype) -> Latte:
    model = build(case["config"])
    weights = {key.removeprefix("sd."): value for key, value in tensors.items() if key.startswith("sd.")}
    model.load_state_dict(weights, strict=True)
    model = model.to(dtype).eval()
    recorded = recorded_features(SET, model.t_embedder.num_features)
    if dtype == torch.float64 and recorded is not None:
        model.t_embedder = RecordedEmbedding(model.t_embedder.mlp, *recorded)
    return model


def cfg_scale(case: dict[str, Any]) -> float:
    if "cfg_scale" in case:
        return float(case["cfg_scale"])
    stated = re.search(r"cfg_scale\s*=?\s*([\d.]*\d)", case["note"])
    assert stated, f"{case['name']}: the manifest does not say at which scale"
    return float(stated[1])


def run(model: Latte, case: dict[str, Any], x: Tensor, tensors: dict[str, Tensor]) -> Tensor:
    return model(
        x,
        tensors["t"],
        tensors.get("y"),
        image_labels=tensors.get("y_image"),
        use_image_num=case["config"].get("use_image_num", 0),
    )


def guided(model: Latte, case: dict[str, Any], x: Tensor, tensors: dict[str, Tensor]) -> Tensor:
    """Latte's guided output: both halves see the first half's latents and get its guided noise."""
    half, channels = x[: len(x) // 2], x.shape[2]
    conditional, unconditional = run(model, case, torch.cat([half, half]), tensors).chunk(2)
    options = {"num_channels": channels, "channel_axis": 2}
    first = combine(conditional, unconditional, cfg_scale(case), **options)
    return torch.cat([first, torch.cat([first[:, :, :channels], unconditional[:, :, channels:]], dim=2)])


def compute(key: str, case: dict[str, Any], tensors: dict[str, Tensor]) -> Tensor:
    """What our code says for one recorded output."""
    quantity, _, precision = key.rpartition("_")
    dtype = PRECISIONS[precision]
    model = load(case, tensors, dtype)
    x = tensors["x"].to(dtype).requires_grad_()
    if quantity == "cfg_out":
        return guided(model, case, x, tensors).detach()
    output = run(model, case, x, tensors)
    if quantity == "out":
        return output.detach()
    assert quantity == "grad_x", f"no computation for {key}"
    return torch.autograd.grad(output, x, tensors["grad_out"].to(dtype))[0]


@pytest.mark.parametrize("case", MODEL_CASES, ids=lambda case: case["name"])
def test_latte_equals_the_official_model(case: dict[str, Any]) -> None:
    tensors = golden_tensors(SET, FILE, case["name"])
    inputs = {"x", "t", "y", "y_image", "grad_out"}
    recorded = [key for key in case["keys"] if not key.startswith("sd.") and key not in inputs]
    assert recorded
    for key in recorded:
        # without recorded features, those of this processor are off by more than float64 shows
        known = recorded_features(SET, 256) is not None
        tolerance = None if known else TOLERANCE[torch.float32]
        assert_near(compute(key, case, tensors), tensors[key], f"{case['name']}/{key}", tolerance)


@pytest.mark.parametrize("case", MODEL_CASES, ids=lambda case: case["name"])
def test_a_fresh_latte_has_the_official_keys_and_zeros(case: dict[str, Any]) -> None:
    weights = build(case["config"]).state_dict()
    tensors = golden_tensors(SET, FILE, case["name"])
    official = {key.removeprefix("sd.") for key in case["keys"] if key.startswith("sd.")}
    assert set(weights) == official
    if "zero_initialised" in case:
        zeros = {key for key, value in weights.items() if not value.any()}
        assert zeros == set(case["zero_initialised"])
    for table in ("pos_embed", "temp_embed"):
        assert_near(weights[table], tensors[f"sd.{table}"], table)


def reshaped(case: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every order of the recorded tokens, which come as (b f) n d."""
    sizes = {"num_frames": case["dims"]["F"], "num_patches": case["dims"]["N"]}
    clip = from_sequences(tensors["tokens"], "spatial", **sizes)
    found = {}
    for key in case["keys"]:
        order = "spatial" if key == "tokens" else key
        found[key] = to_sequences(clip, order)
        assert torch.equal(from_sequences(found[key], order, **sizes), clip), f"inverse of {order}"
    return found


def clip_losses(case: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Both terms of the loss of clips (b, f, c, h, w)."""
    schedule = make_schedule("linear")
    x_t = q_sample(tensors["x0"], tensors["noise"], tensors["t"], schedule)
    inputs = (tensors["model_output"], tensors["x0"], x_t, tensors["noise"], tensors["t"], schedule)
    return dict(hybrid(*inputs, channel_axis=2))


@pytest.mark.parametrize("case", OTHER_CASES, ids=lambda case: case["name"])
def test_rules_and_losses_of_clips_equal_the_official_ones(case: dict[str, Any]) -> None:
    tensors = golden_tensors(SET, FILE, case["name"])
    found = reshaped(case, tensors) if "dims" in case else clip_losses(case, tensors)
    expected = [key for key in case["keys"] if key not in ("x0", "noise", "t", "model_output")]
    assert expected
    for key in expected:
        assert_near(found[key], tensors[key], f"{case['name']}/{key}")
