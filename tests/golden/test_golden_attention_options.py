"""LightningDiT's blocks as options of our DiT, with its guidance in an interval, one test a case."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden.manifest import golden_cases, golden_tensors
from golden.test_dit import RecordedFeatures
from torch import Tensor

from genzoo.diffusion.guidance import combine
from genzoo.families.dim.dit import DiT

SET = "learning"
CASES = golden_cases(SET, "lightningdit")
SHARED = ("input_size", "patch_size", "in_channels", "hidden_size", "depth", "num_heads", "num_classes")
OPTIONS = {"use_qknorm": "qk_norm", "use_swiglu": "swiglu", "use_rope": "rope", "use_rmsnorm": "rms_norm"}
# of the largest value: rotary tables and features were recorded in float32
TOLERANCE = {"f64": 1e-6, "f32": 1e-4}


def network(case: dict[str, Any], data: dict[str, Tensor], dtype: torch.dtype) -> DiT:
    """With the recorded weights, every one of which has its place."""
    config = case["config"]
    unknown = set(config) - {*SHARED, *OPTIONS, "wo_shift"}
    assert not unknown
    options = {ours: config.get(theirs, False) for theirs, ours in OPTIONS.items()}
    options |= {"modulation_shift": not config.get("wo_shift", False), "learn_sigma": False}
    model = DiT(**{name: config[name] for name in SHARED}, **options)
    weights = {key.removeprefix("sd."): value for key, value in data.items() if key.startswith("sd.")}
    model.load_state_dict(weights, strict=True)
    if case["config"].get("use_swiglu"):
        assert weights["blocks.0.mlp.w3.weight"].shape[1] == case["mlp_hidden"]
    return model.to(dtype).eval()


def assert_near(ours: Tensor, theirs: Tensor, kind: str, what: str) -> None:
    assert ours.shape == theirs.shape, what
    gap = (ours.double() - theirs.double()).abs().max().item()
    assert gap <= TOLERANCE[kind] * theirs.abs().max().item(), f"{what}: off by {gap:.3g}"


def guided(case: dict[str, Any], data: dict[str, Tensor], where: str) -> Tensor:
    """Both halves as LightningDiT returns them: channels beyond the guided ones are each half's own."""
    model, t = network(case, data, torch.float64), data[f"cfg_{where}_t"]
    half = data["x"][: len(data["x"]) // 2].double()
    output = model(torch.cat([half, half]), t.double(), data["cfg_y"]).detach()
    conditional, unconditional = output.chunk(2)
    is_guided = bool((t >= case["cfg_interval_start"]).all())
    assert is_guided == (where == "inside")
    channels = case["cfg_channels"]
    scale = case["cfg_scale"] if is_guided else 1.0
    ours = combine(conditional, unconditional, scale, num_channels=output.shape[1], cfg_channels=channels)
    return torch.cat([ours, torch.cat([ours[:, :channels], unconditional[:, channels:]], dim=1)])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_blocks_with_options_equal_lightningdits(case: dict[str, Any]) -> None:
    data = golden_tensors(SET, "lightningdit", case["name"])
    for precision, dtype in (("f32", torch.float32), ("f64", torch.float64)):
        model = network(case, data, dtype)
        if dtype == torch.float64:
            model.t_embedder = RecordedFeatures(model.t_embedder.mlp, data["temb_256"])
        ours = model(data["x"].to(dtype), data["t"], data["y"]).detach()
        assert_near(ours, data[f"out_{precision}"], precision, f"{case['name']}/out_{precision}")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_guidance_in_an_interval_equals_lightningdits(case: dict[str, Any]) -> None:
    data = golden_tensors(SET, "lightningdit", case["name"])
    for where in ("inside", "below"):
        assert_near(guided(case, data, where), data[f"cfg_{where}_f64"], "f64", f"{case['name']}/{where}")
