"""The latent diffusion task on clips: encoded and decoded frame by frame, with and without stills."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from families.video_models import CHANNELS, CLASSES, EVERY, FRAMES, SIZE, opened
from torch import Tensor, nn

from genzoo.core.errors import DataError, ShapeError
from genzoo.core.seeds import SampleStreams
from genzoo.diffusion.latent_task import LatentDiffusionTask
from genzoo.families.dim.model import DiM
from genzoo.pretrained.codecs import AutoencoderKLCodec

FAST = {"name": "ddpm", "steps": 3}
SLICE = 3
FACTOR = 2


@pytest.fixture
def codec(tmp_path: Path) -> AutoencoderKLCodec:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 12), norm_num_groups=4, latent_channels=CHANNELS, layers_per_block=1,
    )  # fmt: skip
    vae.save_pretrained(tmp_path)
    return AutoencoderKLCodec(str(tmp_path), slice_size=SLICE)


def streams(*positions: int, name: str = "noise") -> SampleStreams:
    return SampleStreams.from_seeds(0, name, positions=positions)


def random_pixels(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def batch(codec: Any, num: int = 2, stills: int = 0) -> dict[str, Tensor]:
    size = SIZE if codec is None else SIZE * FACTOR
    found = {
        "pixels": random_pixels(num, FRAMES, CHANNELS, size, size),
        "class_labels": torch.arange(num) % CLASSES,
    }
    if stills:
        found["image_pixels"] = random_pixels(num, stills, CHANNELS, size, size, seed=1)
        found["image_labels"] = torch.arange(num * stills).reshape(num, stills) % CLASSES
    return found


def task(name: str = "latte", codec: Any = None, **options: Any) -> LatentDiffusionTask:
    torch.manual_seed(0)
    return LatentDiffusionTask(opened(EVERY[name]()), codec=codec, **{"sampler": FAST, **options})


@pytest.mark.parametrize("name", ["latte", "matten_3", "matten_tokens_1", "dim_video"])
def test_a_clip_is_prepared_learned_and_sampled(name: str, codec: AutoencoderKLCodec) -> None:
    made = task(name, codec)
    prepared = made.prepare_batch(batch(codec), streams(0, 1))
    shape = (2, FRAMES, CHANNELS, SIZE, SIZE)
    assert prepared["latents"].shape == prepared["noise"].shape == shape
    out = made.loss(made.model, prepared, streams(0, 1))
    out.loss.backward()
    assert out.loss.isfinite()
    assert all(p.grad is not None for p in made.model.parameters() if p.requires_grad)
    clips = made.sample(made.model, made.conditions(2), streams(0, 1), guidance_scale=2.0)
    assert clips.shape == (2, FRAMES, 3, SIZE * FACTOR, SIZE * FACTOR)
    assert clips.abs().max() <= 1


def test_the_loss_of_a_clip_is_the_mean_over_all_its_frames() -> None:
    model = opened(EVERY["latte"](learn_sigma=False))
    made = LatentDiffusionTask(model, loss="noise_mse", sampler=FAST)
    prepared = made.prepare_batch(batch(None, stills=2), streams(0, 1))
    x_t = made.schedule.alphas_cumprod[prepared["timesteps"]].float().reshape(-1, 1, 1, 1, 1)
    x_t = x_t.sqrt() * prepared["latents"] + (1 - x_t).sqrt() * prepared["noise"]
    predicted = made.model(
        x_t,
        prepared["timesteps"],
        prepared["class_labels"],
        image_labels=prepared["image_labels"],
        use_image_num=2,
    )
    expected = (predicted - prepared["noise"]).square().mean()
    torch.testing.assert_close(made.loss(made.model, prepared).loss, expected)


def test_stills_are_encoded_behind_their_clip_with_labels_of_their_own(codec: AutoencoderKLCodec) -> None:
    made = task("matten_2", codec, label_dropout=0.5)
    data = batch(codec, 3, stills=2)
    prepared = made.prepare_batch(data, streams(0, 1, 2))
    assert prepared["latents"].shape == (3, FRAMES + 2, CHANNELS, SIZE, SIZE)
    kept = prepared["image_labels"] == data["image_labels"]
    assert torch.equal(prepared["image_labels"][~kept], torch.full((int((~kept).sum()),), CLASSES))
    assert 0 < kept.sum() < kept.numel()
    alone = made.prepare_batch({key: value[1:2] for key, value in data.items()}, streams(1))
    assert torch.equal(alone["image_labels"], prepared["image_labels"][1:2])
    torch.testing.assert_close(alone["latents"], prepared["latents"][1:2])
    made.loss(made.model, prepared).loss.backward()


def test_stills_do_not_change_what_their_clip_draws_from_the_codec(codec: AutoencoderKLCodec) -> None:
    made = task(codec=codec)
    with_stills = made.prepare_batch(batch(codec, stills=1), streams(0, 1))["latents"]
    without = made.prepare_batch(batch(codec), streams(0, 1))["latents"]
    assert torch.equal(with_stills[:, :FRAMES], without)


def test_stills_from_a_latent_cache_are_those_of_their_pixels(codec: AutoencoderKLCodec) -> None:
    made, data = task(codec=codec), batch(codec, stills=2)
    cached = {key: value for key, value in data.items() if "pixels" not in key}
    cached |= {
        "moments": codec.moments(data["pixels"]), "image_moments": codec.moments(data["image_pixels"]),
    }  # fmt: skip
    direct, read = (made.prepare_batch(each, streams(0, 1)) for each in (data, cached))
    assert direct.keys() == read.keys()
    assert all(torch.equal(direct[key], read[key]) for key in direct)
    stills = {"image_moments": cached["image_moments"], "image_labels": data["image_labels"]}
    with pytest.raises(DataError, match="no codec to read them"):
        task().prepare_batch(batch(None) | stills, streams(0, 1))


def test_an_unconditional_model_takes_stills_without_labels() -> None:
    made = LatentDiffusionTask(opened(EVERY["latte"](num_classes=0)), sampler=FAST)
    data = {key: value for key, value in batch(None, stills=2).items() if "labels" not in key}
    prepared = made.prepare_batch(data, streams(0, 1))
    assert set(prepared) == {"latents", "timesteps", "noise"}
    assert made.loss(made.model, prepared).loss.isfinite()


def test_frames_are_encoded_and_decoded_a_few_at_a_time(
    codec: AutoencoderKLCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[str, int]] = []

    def watch(name: str) -> None:
        original = getattr(codec.vae, name)

        def watched(x: Tensor) -> Any:
            sizes.append((name, len(x)))
            return original(x)

        monkeypatch.setattr(codec.vae, name, watched)

    watch("encode")
    watch("decode")
    made = task(codec=codec)
    made.prepare_batch(batch(codec), streams(0, 1))
    made.sample(made.model, made.conditions(2), streams(0, 1))
    frames = 2 * FRAMES
    expected = [SLICE] * (frames // SLICE) + [frames % SLICE]
    assert sizes == [("encode", size) for size in expected] + [("decode", size) for size in expected]


def test_a_clip_does_not_depend_on_its_batch() -> None:
    made = LatentDiffusionTask(opened(EVERY["dim_video"]()).double(), sampler=FAST)
    together = made.sample(made.model, made.conditions(3), streams(0, 1, 2), guidance_scale=3.0)
    alone = made.sample(made.model, {"class_labels": torch.tensor([1])}, streams(1), guidance_scale=3.0)
    torch.testing.assert_close(alone, together[1:2])


class LabelOnly(nn.Module):
    """Predicts 1 for a label and 0 for none in every channel, whatever the clip."""

    def __init__(self) -> None:
        super().__init__()
        self.num_classes, self.num_frames, self.in_channels, self.input_size = 1, 2, 3, 4
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, timesteps: Tensor, class_labels: Tensor) -> Tensor:
        return self.scale * (class_labels == 0).reshape(-1, 1, 1, 1, 1).expand_as(x).to(x.dtype)


@pytest.mark.parametrize(("cfg_channels", "guided"), [("all", 3), (2, 2)])
def test_guidance_of_clips_is_along_their_channels(cfg_channels: Any, guided: int) -> None:
    model = LabelOnly().double()
    made = LatentDiffusionTask(model, sampler={"name": "ddim", "steps": 1}, loss="noise_mse", codec=Tiny())
    plain = made.sample(model, made.conditions(1), streams(0))
    strong = made.sample(model, made.conditions(1), streams(0), guidance_scale=5.0, cfg_channels=cfg_channels)
    moved = (plain - strong).abs().amax((0, 1, 3, 4)) > 0
    assert moved.tolist() == [True] * guided + [False] * (3 - guided)


class Tiny:
    """Latents a thousand times the pixels, so that no sample is clamped."""

    def decode(self, latents: Tensor) -> Tensor:
        return latents / 1000


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"pixels": random_pixels(2, FRAMES - 1, CHANNELS, SIZE, SIZE)}, ShapeError, r"latents are \(3, 3"),
        ({"image_labels": torch.zeros(2, 1).long()}, DataError, r"2 stills a clip but image_labels \(2, 1\)"),
        ({"image_labels": None}, DataError, "2 stills a clip but no image_labels"),
        ({"image_labels": torch.full((2, 2), CLASSES)}, DataError, "span"),
        ({"image_pixels": random_pixels(2, 2, CHANNELS, SIZE, 8)}, ShapeError, "do not go with clips"),
    ],
)
def test_unfit_clips_and_stills_are_named(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    data = {key: value for key, value in (batch(None, stills=2) | change).items() if value is not None}
    with pytest.raises(error, match=message):
        task().prepare_batch(data, streams(0, 1))


def test_a_model_of_images_takes_no_stills() -> None:
    model = DiM(depth=1, hidden_size=16, patch_size=2, input_size=SIZE, in_channels=CHANNELS, num_classes=0)
    data = {"pixels": random_pixels(2, CHANNELS, SIZE, SIZE), "image_pixels": random_pixels(2, 1, 3, 6, 6)}
    with pytest.raises(DataError, match="the model takes images"):
        LatentDiffusionTask(model).prepare_batch(data, streams(0, 1))
