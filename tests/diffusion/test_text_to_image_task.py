"""Prompted diffusion: schedules of released models, v, guidance, and the tasks that train such a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from torch import Tensor, nn

from genzoo.core.errors import DataError, ShapeError, UsageError, WeightsError
from genzoo.core.seeds import SampleStreams
from genzoo.diffusion.autoencoder_task import AutoencoderTask
from genzoo.diffusion.process import q_sample, x_0_from_noise
from genzoo.diffusion.prompted import noise_from_v, sample_prompts, schedule_from, training_target
from genzoo.diffusion.text_to_image_task import TextToImageTask
from genzoo.pretrained.autoencoder import AutoencoderKLModel
from genzoo.pretrained.text_features import TextFeatures
from genzoo.pretrained.text_to_image_model import TextToImageModel

KINDS = [
    {},
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 50},
    {"trained_betas": [0.1, 0.2, 0.3]},
]


def streams(*positions: int) -> SampleStreams:
    return SampleStreams.from_seeds(3, "noise", positions=positions)


class Recorder:
    """Predicts the pooled number of the text, whatever the input, and remembers how often it was asked."""

    latent_shape, vae = (4, 3, 5), None

    def __init__(self) -> None:
        self.calls = 0

    def encode_prompts(self, prompts: Sequence[str]) -> TextFeatures:
        return TextFeatures(torch.tensor([float(len(prompt)) for prompt in prompts])[:, None, None])

    def encode_negative(self, prompt: str | None) -> TextFeatures:
        return self.encode_prompts([prompt or ""])

    def predict(self, x_t: Tensor, timesteps: Tensor, text: TextFeatures) -> Tensor:
        self.calls += 1
        return text.hidden[:, :, :, None].expand_as(x_t) * 0.1


@pytest.fixture(scope="module")
def task() -> TextToImageTask:
    torch.manual_seed(0)
    model = TextToImageModel(
        block_out_channels=(8, 16), num_heads=2, norm_num_groups=4, text_width=12, text_heads=2,
        text_layers=1, in_channels=3, input_size=8,
    )  # fmt: skip
    return TextToImageTask(model, prompts=["a cat", "a dog"], sampler={"name": "ddim", "steps": 4})


def batch(size: int = 8) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    return {
        "pixels": torch.randn(5, 3, size, size, generator=generator),
        "captions": ["a cat", "two dogs"] * 2 + [""],
    }


@pytest.mark.parametrize("scheduler", KINDS, ids=lambda s: s.get("beta_schedule", "other"))
def test_schedules_equal_those_of_diffusers(scheduler: dict[str, Any]) -> None:
    ours = schedule_from(scheduler).schedule.alphas_cumprod.float()
    theirs = DDIMScheduler(**{"num_train_timesteps": len(ours), **scheduler}).alphas_cumprod
    torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"prediction_type": "sample"}, "sample"),
        ({"beta_schedule": "sigmoid"}, "sigmoid"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
    ],
)
def test_schedules_that_are_not_known_are_refused(entry: dict[str, Any], named: str) -> None:
    with pytest.raises(WeightsError, match=named):
        schedule_from(entry)


def test_v_holds_both_the_noise_and_the_clean_latents() -> None:
    diffusion = schedule_from({"prediction_type": "v_prediction"})
    x_0, noise, timesteps = torch.randn(3, 4, 2, 5), torch.randn(3, 4, 2, 5), torch.tensor([0, 400, 999])
    x_t = q_sample(x_0, noise, timesteps, diffusion.schedule)
    v = training_target(x_0, noise, timesteps, diffusion)
    found = noise_from_v(x_t, v, timesteps, diffusion.schedule)
    torch.testing.assert_close(found, noise, rtol=0, atol=1e-5)
    # at t = 999 the signal is 0.6 % of x_t, which magnifies float32 rounding
    torch.testing.assert_close(
        x_0_from_noise(x_t, found, timesteps, diffusion.schedule), x_0, rtol=0, atol=5e-3
    )


def test_guidance_moves_from_the_negative_prompt_through_the_prompt() -> None:
    diffusion = schedule_from({})
    outcome = {}
    for scale in (1.0, 3.0):
        model = Recorder()
        outcome[scale] = sample_prompts(
            model,
            diffusion,
            ["four"],
            streams(0),
            sampler={"name": "ddim", "steps": 1, "guidance_scale": scale},
        )
        assert model.calls == (1 if scale == 1.0 else 2)
    model = Recorder()
    same = sample_prompts(
        model, diffusion, ["four"], streams(0), negative_prompt="five",
        sampler={"name": "ddim", "steps": 1, "guidance_scale": 3.0},
    )  # fmt: skip
    # predicted noise 0.4; guided 0 + 3 (0.4 - 0) = 1.2; against a negative one of 0.4 (4 letters): 0.4 again
    assert torch.equal(same, outcome[1.0])
    assert not torch.equal(outcome[3.0], outcome[1.0])


def test_a_sample_does_not_depend_on_its_neighbours(task: TextToImageTask) -> None:
    both = task.sample(task.model, task.conditions(2), streams(4, 9))
    alone = task.sample(task.model, task.conditions(1, prompt="a dog"), streams(9))
    assert both.shape == (2, 3, 8, 8)
    torch.testing.assert_close(both[1:], alone, rtol=0, atol=1e-4)
    assert both.abs().max() <= 1


def test_negative_prompts_reach_the_sampler(task: TextToImageTask) -> None:
    plain = task.conditions(1, prompt="a cat")
    negative = task.conditions(1, prompt="a cat", negative_prompt="a dog")
    options = {"guidance_scale": 4.0}
    first = task.sample(task.model, plain, streams(0), **options)
    assert not torch.equal(task.sample(task.model, negative, streams(0), **options), first)


def test_conditions_are_checked(task: TextToImageTask) -> None:
    assert task.conditions(3)["prompts"] == ["a cat", "a dog", "a cat"]
    with pytest.raises(UsageError, match="2 prompts for 3"):
        task.conditions(3, prompt=["a", "b"])
    with pytest.raises(UsageError, match="class_labels"):
        task.conditions(1, class_labels=[1])


def test_dropped_captions_follow_each_samples_own_stream(task: TextToImageTask) -> None:
    half = TextToImageTask(task.model, caption_dropout=0.5)
    whole = half.prepare_batch(batch(), streams(0, 1, 2, 3, 4))
    part = {key: value[2:4] for key, value in batch().items()}
    prepared = half.prepare_batch(part, streams(2, 3))
    for key in ("input_ids", "timesteps", "noise", "latents"):
        assert torch.equal(prepared[key], whole[key][2:4]), key
    empty = task.model.tokenize([""])[0]
    dropped = [bool(torch.equal(row, empty)) for row in whole["input_ids"]]
    assert any(dropped)
    assert not all(dropped)


def test_training_lowers_the_loss_of_text_and_pictures_alike(task: TextToImageTask) -> None:
    prepared = task.prepare_batch(batch(), streams(0, 1, 2, 3, 4))
    optimizer = torch.optim.Adam(task.model.parameters(), 3e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        output = task.loss(task.model, prepared)
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert task.model.text_encoder.get_input_embeddings().weight.grad.abs().sum() > 0


def test_batches_without_captions_or_of_another_size_are_refused(task: TextToImageTask) -> None:
    with pytest.raises(DataError, match="captions"):
        task.prepare_batch({"pixels": torch.zeros(1, 3, 8, 8)}, streams(0))
    with pytest.raises(ShapeError, match="the model takes"):
        task.prepare_batch(batch(size=16), streams(0, 1, 2, 3, 4))


def test_an_autoencoder_learns_to_reconstruct_and_is_written_for_diffusers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: nn.Module = AutoencoderKLModel(
        block_out_channels=(8, 12), layers_per_block=1, norm_num_groups=4, attention=False, input_size=8
    )
    task = AutoencoderTask(model, kl_weight=1e-3)
    pixels = torch.from_numpy(np.sign(np.random.default_rng(0).normal(size=(3, 3, 8, 8)))).float() * 0.5
    prepared = task.prepare_batch({"pixels": pixels}, streams(0, 1, 2))
    assert prepared["noise"].shape == (3, 4, 4, 4)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = task.loss(model, prepared).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    rebuilt = task.sample(model, task.conditions(3, image=pixels), streams(0, 1, 2))
    written = AutoencoderKL.from_pretrained(str(task.export(tmp_path / "vae")))
    theirs = written.decode(written.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
    torch.testing.assert_close(rebuilt, theirs.detach())
    with pytest.raises(UsageError, match="layout"):
        task.export(tmp_path / "other", layout="compvis")
    with pytest.raises(UsageError, match=r"image is 'photo\.png'"):
        task.conditions(1, image="photo.png")
