"""SiT's networks as our DiT, and its sampling through our task, case by case."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden.gaussian_flow import RecordedNoise
from golden.manifest import golden_cases, golden_tensors
from golden.test_dit import RecordedFeatures
from torch import Tensor

from genzoo.diffusion.flow.field import FlowGuidance, VelocityField, class_output
from genzoo.diffusion.flow.paths import Flow
from genzoo.diffusion.flow.solvers import flow_euler, time_grid
from genzoo.diffusion.flow.task import FlowMatchingTask
from genzoo.diffusion.guidance import combine
from genzoo.families.dim.convert import sit_converter
from genzoo.families.dim.dit import DiT

SET = "learning"
CASES = golden_cases(SET, "sit")
NETWORKS = [case for case in CASES if "config" in case]
TRAJECTORIES = [case for case in CASES if "weights_of" in case]
# float64 with the recording machine's features; float32 by its rounding; trajectories as the manifest says
TOLERANCE = {"f64": 1e-8, "f32": 1e-4, "trajectory": 1e-6, "float32 trajectory": 1e-5}


def assert_near(ours: Tensor, theirs: Tensor, kind: str, what: str) -> None:
    assert ours.shape == theirs.shape, what
    gap = (ours.double() - theirs.double()).abs().max().item()
    assert gap <= TOLERANCE[kind] * theirs.abs().max().item(), f"{what}: off by {gap:.3g}"


def weights(name: str) -> dict[str, Tensor]:
    tensors = golden_tensors(SET, "sit", name)
    return {key.removeprefix("sd."): value for key, value in tensors.items() if key.startswith("sd.")}


def network(case: dict[str, Any], dtype: torch.dtype) -> DiT:
    """Built by the converter from the recorded weights."""
    heads = case["config"]["num_heads"]
    conversion = sit_converter().to_genzoo(weights(case["name"]), num_heads=heads)
    assert {key: conversion.arguments[key] for key in case["config"]} == case["config"]
    model = DiT(**conversion.arguments)
    model.load_state_dict(conversion.weights, strict=True)
    return model.to(dtype).eval()


def first_half(output: Tensor, channels: int) -> Tensor:
    """SiT drops the variance channels of models that have them."""
    return output[:, :channels]


def guided(
    model: DiT, case: dict[str, Any], x: Tensor, t: Tensor, labels: Tensor, cfg_channels: Any
) -> Tensor:
    half = x[: len(x) // 2]
    conditional, unconditional = model(torch.cat([half, half]), t, labels).chunk(2)
    return combine(
        conditional, unconditional, case["cfg_scale"], num_channels=x.shape[1], cfg_channels=cfg_channels
    )[:, : x.shape[1]]


def network_value(key: str, case: dict[str, Any], data: dict[str, Tensor]) -> Tensor:
    quantity, _, precision = key.rpartition("_")
    dtype = {"f32": torch.float32, "f64": torch.float64}[precision]
    model = network(case, dtype)
    prefix = "cfg_" if quantity.startswith("cfg") else ""
    if dtype == torch.float64:
        model.t_embedder = RecordedFeatures(model.t_embedder.mlp, data[f"{prefix}temb_256"])
    x, t, y = data["x"].to(dtype), data[f"{prefix}t"], data[f"{prefix}y"]
    channels = x.shape[1]
    if quantity == "cfg_all_channels":
        return guided(model, case, x, t, y, "all").detach()
    if quantity == "cfg_out":
        ours = guided(model, case, x, t, y, case["cfg_channels"]).detach()
        # the second half of SiT's batch has the guided channels and its own others
        other = model(torch.cat([x[: len(x) // 2]] * 2), t, y)[len(x) // 2 :, case["cfg_channels"] : channels]
        return torch.cat([ours, torch.cat([ours[:, : case["cfg_channels"]], other.detach()], 1)])
    x.requires_grad_()
    output = first_half(model(x, t, y), channels)
    if quantity == "out":
        return output.detach()
    assert quantity == "grad_x", f"no computation for {key}"
    return torch.autograd.grad(output, x, data["grad_out"].to(dtype))[0]


@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case["name"])
def test_converted_networks_equal_the_official_ones(case: dict[str, Any]) -> None:
    data = golden_tensors(SET, "sit", case["name"])
    inputs = {"x", "t", "y", "grad_out", "temb_256", "cfg_t", "cfg_y", "cfg_temb_256"}
    recorded = [key for key in case["keys"] if not key.startswith("sd.") and key not in inputs]
    assert recorded
    for key in recorded:
        assert_near(
            network_value(key, case, data), data[key], key.rpartition("_")[2], f"{case['name']}/{key}"
        )


@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case["name"])
def test_weights_go_there_and_back(case: dict[str, Any]) -> None:
    original = weights(case["name"])
    converter = sit_converter()
    back = converter.from_genzoo(converter.to_genzoo(original, num_heads=case["config"]["num_heads"]).weights)
    assert set(back) == set(original)
    assert all(torch.equal(back[key], original[key]) for key in original)


class Halving:
    """A codec that keeps recorded latents within the range of pixels."""

    fingerprint = "halving"

    def decode(self, latents: Tensor) -> Tensor:
        return latents / 64


class Streams(RecordedNoise):
    def __len__(self) -> int:
        return 2


def field(model: DiT, case: dict[str, Any], labels: Tensor, guidance_scale: float) -> VelocityField:
    guidance = FlowGuidance(guidance_scale, case["cfg_channels"])
    output = class_output(model, labels, model.num_classes, guidance, 1)
    return VelocityField(output, Flow(), prediction="velocity", time_scale=1.0)


def through_task(
    case: dict[str, Any], model: DiT, noise: list[Tensor], labels: Tensor, **options: Any
) -> Tensor:
    task = FlowMatchingTask(model, codec=Halving(), time_scale=1.0, drop_variance=True)
    pixels = task.sample(model, {"class_labels": labels}, Streams(noise), **options)
    assert pixels.abs().max() < 1
    return pixels * 64


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("case", TRAJECTORIES, ids=lambda case: case["name"])
def test_trajectories_equal_the_official_ones(case: dict[str, Any], dtype: torch.dtype) -> None:
    data = golden_tensors(SET, "sit", case["name"])
    source = next(other for other in NETWORKS if other["name"] == case["weights_of"])
    model, labels = network(source, dtype), data["labels"]
    kind = "trajectory" if dtype == torch.float64 else "float32 trajectory"
    steps = len(data["times"]) - 1
    guide = {"guidance_scale": case["cfg_scale"], "cfg_channels": case["cfg_channels"]}
    init = data["init"].to(dtype)
    ours = {
        "euler_guided": through_task(case, model, [init], labels, sampler="flow_euler", steps=steps, **guide),
        "heun2": through_task(case, model, [init], labels, sampler="flow_heun", steps=steps),
        "sde_states": through_task(
            case, model, [init, *data["sde_noise"]], labels, sampler="flow_sde", steps=len(data["sde_times"]),
            form=case["form"], last_step=case["last_step"].lower(), last_step_size=case["last_step_size"],
            **guide,
        ),
    }  # fmt: skip
    for key, final in ours.items():
        assert_near(final, data[key][-1], kind, f"{case['name']}/{key}")
    times = torch.tensor(time_grid(Flow(), steps), dtype=torch.float64)
    assert torch.allclose(times, data["times"].double(), atol=1e-12)
    times = torch.tensor(time_grid(Flow(), len(data["sde_times"]) - 1, end=1 - case["last_step_size"]))
    assert torch.allclose(times.double(), data["sde_times"].double(), atol=1e-7)
    half_way = flow_euler(
        field(model, case, labels, case["cfg_scale"]), init, Flow(end=float(data["times"][2])), None, steps=2
    )
    assert_near(half_way.detach(), data["euler_guided"][2], kind, f"{case['name']}/half way")
