"""Flow matching trains every model that predicts noise: images, clips with stills, and prompts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import genzoo.families  # noqa: F401  (declares the models)
from genzoo.core.registry import MODELS
from genzoo.core.seeds import SampleStreams
from genzoo.diffusion.flow.losses import velocity_mse
from genzoo.diffusion.flow.paths import Flow
from genzoo.diffusion.flow.task import FlowMatchingTask
from genzoo.diffusion.flow.text_to_image_task import FlowTextToImageTask
from genzoo.pretrained.text_to_image_model import TextToImageModel

SMALL: dict[str, Any] = {
    "depth": 2, "hidden_size": 24, "patch_size": 2, "input_size": 4, "in_channels": 3, "num_classes": 5,
    "learn_sigma": False,
}  # fmt: skip
IMAGES = {"dim": {"d_state": 4}, "dit": {"num_heads": 2}}
CLIPS = {
    "dim_video": {"num_frames": 2, "d_state": 4},
    "matten": {"num_frames": 2, "d_state": 4, "num_heads": 2},
    "latte": {"num_frames": 2, "num_heads": 2},
}
SAMPLER = {"name": "flow_heun", "steps": 2, "guidance_scale": 1.5}


def streams(*positions: int) -> SampleStreams:
    return SampleStreams.from_seeds(3, "noise", positions=positions)


def build(name: str) -> FlowMatchingTask:
    torch.manual_seed(0)
    model = MODELS.get(name)(**SMALL, **(IMAGES | CLIPS)[name])
    return FlowMatchingTask(model, sampler=SAMPLER, times={"name": "logit_normal"})


@pytest.mark.parametrize(("name", "stills"), [*[(n, 0) for n in IMAGES | CLIPS], *[(n, 2) for n in CLIPS]])
def test_a_step_teaches_the_model_and_samples_have_its_shape(name: str, stills: int) -> None:
    flow = build(name)
    frames = () if name in IMAGES else (2,)
    data: dict[str, Any] = {
        "pixels": torch.rand(3, *frames, 3, 4, 4),
        "class_labels": torch.tensor([0, 2, 4]),
    }
    if stills and name in IMAGES:
        pytest.skip("stills stand beside clips")
    if stills:
        data |= {"image_pixels": torch.rand(3, stills, 3, 4, 4), "image_labels": torch.ones(3, stills).long()}
    optimizer = torch.optim.Adam(flow.model.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        loss = flow.loss(flow.model, flow.prepare_batch(data, streams(0, 1, 2))).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    samples = flow.sample(flow.model, flow.conditions(2), streams(0, 1))
    assert samples.shape == (2, *frames, 3, 4, 4)
    assert torch.isfinite(samples).all()


def test_the_direction_of_clips_is_compared_along_channels_in_each_frame() -> None:
    x_1, noise, output = (torch.randn(2, 4, 3, 5, 5, dtype=torch.float64) for _ in range(3))
    times = torch.tensor([0.3, 0.8], dtype=torch.float64)
    clip = velocity_mse(output, x_1, x_1, noise, times, Flow(), direction_weight=1.0, channel_axis=2)
    frames = [
        velocity_mse(output[:, f], x_1[:, f], x_1[:, f], noise[:, f], times, Flow(), direction_weight=1.0)[
            "loss"
        ]
        for f in range(4)
    ]
    assert torch.allclose(clip["loss"], torch.stack(frames).mean(0))


def prompted(**options: Any) -> FlowTextToImageTask:
    torch.manual_seed(0)
    model = TextToImageModel(
        block_out_channels=(8, 16), num_heads=2, norm_num_groups=4, text_width=8, text_layers=1, text_heads=2,
        in_channels=3, input_size=4,
    )  # fmt: skip
    return FlowTextToImageTask(model, sampler=SAMPLER, prompts=["a cat"], **options)


def test_prompted_flow_prepares_alike_in_any_partition_and_trains() -> None:
    flow = prompted(caption_dropout=0.5, times={"name": "logit_normal"})
    data = {"pixels": torch.rand(3, 3, 4, 4), "captions": ["a cat", "a dog", "a red apple"]}
    whole = flow.prepare_batch(data, streams(0, 1, 2))
    part = flow.prepare_batch({"pixels": data["pixels"][1:2], "captions": ["a dog"]}, streams(1))
    assert all(torch.equal(part[key], whole[key][1:2]) for key in whole)
    loss = flow.loss(flow.model, whole)
    loss.loss.backward()
    assert all(p.grad is not None for p in flow.model.unet.parameters() if p.requires_grad)
    assert loss.metrics["loss"].item() == loss.loss.item()


def test_prompted_flow_samples_follow_prompts_and_streams() -> None:
    flow = prompted()
    with torch.no_grad():
        for parameter in flow.model.unet.conv_out.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    first = flow.sample(flow.model, flow.conditions(2), streams(0, 1))
    assert first.shape == (2, 3, 4, 4)
    assert first.abs().max() <= 1
    assert torch.allclose(flow.sample(flow.model, flow.conditions(1), streams(1)), first[1:], atol=1e-5)
    other = flow.sample(flow.model, flow.conditions(2, prompt="a dog"), streams(0, 1))
    assert not torch.allclose(first, other, atol=1e-4)
