"""The latent diffusion task: what training and sampling depend on, and the errors for unfit input."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

import genzoo.diffusion
import genzoo.families  # noqa: F401  (declares the samplers of other kinds, whose configs lie beside ours)
from genzoo.core.errors import DataError, RegistryError, ShapeError, UsageError
from genzoo.core.registry import LOSSES, SAMPLERS, TASKS
from genzoo.core.seeds import SampleStreams
from genzoo.diffusion.latent_task import LatentDiffusionTask
from genzoo.diffusion.sections import check_options, merge_sampler, options_of

CONFIGS = Path(__file__).parents[2] / "configs"
FAST = {"name": "ddpm", "steps": 5}
# other kinds of generation have samplers of their own
SAMPLER_NAMES = SAMPLERS.fitting(["diffusion"])


class TinyModel(nn.Module):
    """Mixes channels per pixel and adds an embedding of the label; records what it was called with."""

    def __init__(self, *, num_classes: int = 3, learn_sigma: bool = True, null_class: bool = True) -> None:
        super().__init__()
        self.num_classes, self.in_channels, self.input_size = num_classes, 2, 4
        self.arguments = {"null_class": null_class}
        self.mix = nn.Conv2d(2, 4 if learn_sigma else 2, 1)
        self.table = nn.Embedding(num_classes + 1, 1) if num_classes else None
        self.calls: list[tuple[Tensor, Tensor | None]] = []

    def forward(self, x: Tensor, timesteps: Tensor, class_labels: Tensor | None) -> Tensor:
        self.calls.append((timesteps, class_labels))
        y = self.mix(x).tanh() * (1 + timesteps.reshape(-1, 1, 1, 1) / 1000)
        return y if self.table is None else y + 0.1 * self.table(class_labels)[..., None, None]


class HalvingCodec:
    """A stand-in codec: two-channel latents at half the size, drawn from moments."""

    fingerprint = "halving"

    def latent_shape(self, pixel_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (2, pixel_shape[1] // 2, pixel_shape[2] // 2)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> None:
        self.moved = (device, dtype)

    def moments(self, pixels: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(pixels, 2).repeat(1, 4, 1, 1)

    def sample_moments(self, moments: Tensor, generator: SampleStreams) -> Tensor:
        return moments[:, :2] + 0.1 * generator.randn_like(moments[:, :2])

    def encode(self, pixels: Tensor, generator: SampleStreams) -> Tensor:
        return self.sample_moments(self.moments(pixels), generator)

    def decode(self, latents: Tensor) -> Tensor:
        return 3 * nn.functional.interpolate(latents[:, :1], scale_factor=2)


def streams(*positions: int, name: str = "noise") -> SampleStreams:
    return SampleStreams.from_seeds(0, name, positions=positions)


def batch(num: int = 4) -> dict[str, Tensor]:
    pixels = torch.rand(num, 2, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return {"pixels": pixels, "class_labels": torch.arange(num) % 3}


def task(model: nn.Module | None = None, **options: Any) -> LatentDiffusionTask:
    torch.manual_seed(0)
    return LatentDiffusionTask(model or TinyModel(), **{"sampler": FAST, **options})


def part(data: dict[str, Tensor], rows: slice) -> dict[str, Tensor]:
    return {key: value[rows] for key, value in data.items()}


def test_prepared_samples_do_not_depend_on_the_partition() -> None:
    for codec, pixels in [(None, batch()), (HalvingCodec(), {**batch(), "pixels": torch.rand(4, 1, 8, 8)})]:
        diffusion = task(codec=codec, label_dropout=0.5)
        whole = diffusion.prepare_batch(pixels, streams(0, 1, 2, 3))
        halves = [diffusion.prepare_batch(part(pixels, slice(i, i + 2)), streams(i, i + 1)) for i in (0, 2)]
        for key, value in whole.items():
            assert torch.equal(value, torch.cat([half[key] for half in halves])), key


def test_loss_is_the_mean_over_any_partition() -> None:
    diffusion = task(TinyModel().double())
    data = {**batch(), "pixels": batch()["pixels"].double()}
    whole = diffusion.loss(diffusion.model, diffusion.prepare_batch(data, streams(0, 1, 2, 3)))
    parts = [
        diffusion.loss(diffusion.model, diffusion.prepare_batch(part(data, slice(i, i + 1)), streams(i))).loss
        for i in range(4)
    ]
    assert whole.loss.item() == pytest.approx(torch.stack(parts).mean().item(), rel=1e-12)
    assert whole.metrics["loss"].item() == whole.loss.item()


def test_loss_uses_the_model_it_is_given() -> None:
    diffusion = task()
    given = copy.deepcopy(diffusion.model)
    output = diffusion.loss(given, diffusion.prepare_batch(batch(), streams(0, 1, 2, 3)), streams(0, 1, 2, 3))
    output.loss.backward()
    assert all(p.grad is None for p in diffusion.model.parameters())
    assert all(p.grad is not None for p in given.parameters())
    assert set(output.metrics) == {"loss", "mse", "vb"}
    assert not any(value.requires_grad for value in output.metrics.values())


def test_cached_moments_equal_encoding_again() -> None:
    codec = HalvingCodec()
    diffusion = task(codec=codec)
    data = {"pixels": torch.rand(3, 1, 8, 8), "class_labels": torch.arange(3)}
    cached = {"moments": codec.moments(data["pixels"]), "class_labels": data["class_labels"]}
    fresh, stored = (diffusion.prepare_batch(d, streams(0, 1, 2)) for d in (data, cached))
    assert all(torch.equal(fresh[key], stored[key]) for key in fresh)


def test_labels_are_dropped_at_the_stated_rate() -> None:
    labels = task(label_dropout=0.25).prepare_batch(batch(2000), streams(*range(2000)))["class_labels"]
    dropped = (labels == 3).float().mean().item()
    assert dropped == pytest.approx(0.25, abs=0.04)  # four standard errors
    kept = labels != 3
    assert torch.equal(labels[kept], batch(2000)["class_labels"][kept])
    assert (task(label_dropout=0.0).prepare_batch(batch(), streams(0, 1, 2, 3))["class_labels"] != 3).all()


def test_timesteps_and_noise_cover_their_ranges() -> None:
    prepared = task().prepare_batch(batch(3000), streams(*range(3000)))
    assert prepared["timesteps"].min() < 5
    assert prepared["timesteps"].max() > 994
    assert prepared["timesteps"].float().mean().item() == pytest.approx(499.5, abs=22)
    assert prepared["noise"].std().item() == pytest.approx(1.0, abs=0.01)
    assert not torch.equal(prepared["noise"][0], prepared["noise"][1])


def test_model_sees_the_timesteps_of_training_on_a_respaced_schedule() -> None:
    diffusion = task(schedule={"name": "linear", "respacing": "ddim10"})
    prepared = diffusion.prepare_batch(batch(), streams(0, 1, 2, 3))
    diffusion.loss(diffusion.model, prepared)
    assert prepared["timesteps"].max() < 10
    assert torch.equal(diffusion.model.calls[-1][0], prepared["timesteps"] * 100)


def test_conditions_cycle_through_the_classes_or_follow_the_user() -> None:
    diffusion = task()
    assert diffusion.conditions(5)["class_labels"].tolist() == [0, 1, 2, 0, 1]
    assert diffusion.conditions(2, class_labels=2)["class_labels"].tolist() == [2, 2]
    assert diffusion.conditions(2, class_labels=[1, 0])["class_labels"].tolist() == [1, 0]
    assert task(TinyModel(num_classes=0)).conditions(3) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_labels": [0, 1]}, "2 class_labels for 3 samples"),
        ({"class_labels": 3}, r"\[3, 3\]"),
        ({"class_labels": -1}, r"\[-1, -1\]"),
        ({"class_label": 1}, "class_labels"),
        ({"prompt": "a cat"}, "prompt"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        task().conditions(3, **options)


@pytest.mark.parametrize("name", SAMPLER_NAMES)
def test_samples_depend_on_their_own_stream_only(name: str) -> None:
    diffusion, labels = task(), [0, 1, 2]
    options = {"sampler": name, "steps": 4, "guidance_scale": 1.5}

    def sample(rows: list[int]) -> Tensor:
        conditions = diffusion.conditions(len(rows), class_labels=[labels[row] for row in rows])
        return diffusion.sample(diffusion.model, conditions, streams(*rows, name="sample"), **options)

    whole = sample([0, 1, 2])
    assert whole.shape == (3, 2, 4, 4)
    assert whole.abs().max() <= 1.0
    assert torch.allclose(whole, torch.cat([sample([2]), sample([0, 1])])[[1, 2, 0]], atol=1e-5)


def test_sampling_leaves_the_model_as_it_was() -> None:
    diffusion = task()
    diffusion.model.train()
    pixels = diffusion.sample(diffusion.model, diffusion.conditions(2), streams(0, 1))
    assert diffusion.model.training
    assert not pixels.requires_grad
    diffusion.model.eval()
    diffusion.sample(diffusion.model, diffusion.conditions(2), streams(0, 1))
    assert not diffusion.model.training


def test_guidance_doubles_the_batch_with_null_labels() -> None:
    diffusion = task()
    diffusion.sample(diffusion.model, diffusion.conditions(2), streams(0, 1), guidance_scale=2.0)
    assert diffusion.model.calls[-1][1].tolist() == [0, 1, 3, 3]
    diffusion.sample(diffusion.model, diffusion.conditions(2), streams(0, 1), guidance_scale=1.0)
    assert diffusion.model.calls[-1][1].tolist() == [0, 1]


def test_overrides_reach_the_sampler_and_guidance_outlives_its_change() -> None:
    diffusion = task(sampler={"name": "ddpm", "steps": 7, "guidance_scale": 2.0, "clip_x_0": True})
    diffusion.sample(diffusion.model, diffusion.conditions(2), streams(0, 1), sampler="ddim", steps=5)
    assert len(diffusion.model.calls) == 5
    assert all(len(call[1]) == 4 for call in diffusion.model.calls)
    diffusion.sample(diffusion.model, diffusion.conditions(2), streams(0, 1))
    assert len(diffusion.model.calls) == 5 + 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": 3}, "steps"),
        ({"guidance": 3.0}, "guidance_scale"),
        ({"sampler": "ddpn"}, "ddpm"),
        ({"eta": 1.0}, "eta"),
    ],
    ids=str,
)
def test_misspelt_overrides_name_the_nearest(options: dict[str, Any], message: str) -> None:
    diffusion = task()
    with pytest.raises((UsageError, RegistryError), match=message):
        diffusion.sample(diffusion.model, diffusion.conditions(1), streams(0), **options)


def test_model_that_knows_the_image_samples_it() -> None:
    target = torch.linspace(-0.9, 0.9, 32).reshape(1, 2, 4, 4)

    class Knows(TinyModel):
        def forward(self, x: Tensor, timesteps: Tensor, class_labels: Tensor | None) -> Tensor:
            return target.expand(len(x), -1, -1, -1)

    diffusion = task(Knows(learn_sigma=False), prediction="x_0", loss="noise_mse")
    for name in SAMPLER_NAMES:
        pixels = diffusion.sample(
            diffusion.model, diffusion.conditions(2), streams(0, 1), sampler=name, steps=50
        )
        assert (pixels - target).abs().mean() < 0.02, name
    prepared = diffusion.prepare_batch({**batch(2), "pixels": target.expand(2, -1, -1, -1)}, streams(0, 1))
    assert diffusion.loss(diffusion.model, prepared).loss.item() == 0.0


def test_model_in_half_precision_samples_in_float32() -> None:
    class Records(TinyModel):
        def forward(self, x: Tensor, timesteps: Tensor, class_labels: Tensor | None) -> Tensor:
            assert x.dtype == torch.bfloat16
            return self.mix(x).tanh()  # without a bound the chain ends in infinity

    diffusion = task(Records().bfloat16())
    pixels = diffusion.sample(diffusion.model, diffusion.conditions(2), streams(0, 1), guidance_scale=1.5)
    assert pixels.dtype == torch.float32
    assert torch.isfinite(pixels).all()


def test_codec_decodes_and_pixels_are_clamped() -> None:
    codec = HalvingCodec()
    diffusion = task(codec=codec)
    pixels = diffusion.sample(diffusion.model, diffusion.conditions(2), streams(0, 1))
    assert pixels.shape == (2, 1, 8, 8)
    assert pixels.abs().max() == 1.0
    diffusion.to("cpu", torch.bfloat16)
    assert codec.moved == ("cpu", torch.bfloat16)


class TinyVideoModel(nn.Module):
    """A stand-in for videos (b, f, c, h, w), channels on axis 2."""

    num_classes = 0

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv3d(2, 4, 1)

    def forward(self, x: Tensor, timesteps: Tensor, class_labels: Tensor | None) -> Tensor:
        assert x.shape[1:] == (3, 2, 4, 5)
        return self.mix(x.transpose(1, 2)).tanh().transpose(1, 2)


def test_videos_train_and_sample() -> None:
    diffusion = task(TinyVideoModel(), channel_axis=2, latent_shape=(3, 2, 4, 5))
    prepared = diffusion.prepare_batch({"pixels": torch.rand(2, 3, 2, 4, 5)}, streams(0, 1))
    output = diffusion.loss(diffusion.model, prepared)
    assert set(output.metrics) == {"loss", "mse", "vb"}
    both = diffusion.sample(diffusion.model, {}, streams(0, 1))
    assert both.shape == (2, 3, 2, 4, 5)
    assert torch.allclose(both[1:], diffusion.sample(diffusion.model, {}, streams(1)), atol=1e-5)


def expect(error: type[Exception], message: str, run: Callable[[], Any]) -> None:
    with pytest.raises(error, match=message):
        run()


def test_batches_that_do_not_fit_are_refused() -> None:
    diffusion, s = task(), streams(0, 1, 2, 3)
    data = batch()
    expect(DataError, "class_labels", lambda: diffusion.prepare_batch({"pixels": data["pixels"]}, s))
    wrong = {**data, "class_labels": torch.tensor([0, 1, 2, 3])}
    expect(DataError, r"\[0, 3\]", lambda: diffusion.prepare_batch(wrong, s))
    expect(DataError, "no codec", lambda: diffusion.prepare_batch({"moments": data["pixels"], **data}, s))
    expect(DataError, "neither", lambda: diffusion.prepare_batch({"class_labels": data["class_labels"]}, s))
    small = {**data, "pixels": data["pixels"][..., :2]}
    expect(ShapeError, r"\(2, 4, 2\)", lambda: diffusion.prepare_batch(small, s))


def test_settings_that_do_not_go_together_are_refused() -> None:
    expect(UsageError, "null class", lambda: task(TinyModel(null_class=False)))
    expect(UsageError, "label_dropout", lambda: task(label_dropout=1.5))
    expect(UsageError, "vb_weight", lambda: task(loss={"name": "hybrid", "vb_wieght": 2}))
    expect(UsageError, "num_timesteps", lambda: task(schedule={"num_timestep": 100}))
    expect(UsageError, "prediction", lambda: task(prediction="velocity"))
    expect(UsageError, "steps", lambda: task(sampler={"name": "ddpm", "setps": 3}))
    plain = task(TinyModel(null_class=False), label_dropout=0.0)
    conditions = plain.conditions(1)
    expect(
        UsageError,
        "null class",
        lambda: plain.sample(plain.model, conditions, streams(0), guidance_scale=2.0),
    )
    free = task(TinyModel(num_classes=0))
    expect(UsageError, "unconditional", lambda: free.sample(free.model, {}, streams(0), guidance_scale=2.0))
    expect(UsageError, "unconditional", lambda: free.conditions(1, class_labels=0))


@pytest.mark.parametrize(
    "path",
    sorted(CONFIGS.glob("losses/*.yaml")) + sorted(CONFIGS.glob("samplers/*.yaml")),
    ids=lambda p: p.stem,
)
def test_every_config_binds(path: Path) -> None:
    section = yaml.safe_load(path.read_text())
    registry = LOSSES if path.parent.name == "losses" else SAMPLERS
    name = section.pop("name")
    check_options(name, section, options_of(registry, name))
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("steps", 2.5, "steps: must be a whole number or text, not 2.5"),
        ("eta", "abc", "eta: must be a finite number"),
        ("guidance_scale", float("nan"), "guidance_scale: must be a finite number"),
        ("guidance_scal", 2.0, "no option 'guidance_scal'; did you mean 'guidance_scale'"),
    ],
)
def test_options_of_the_wrong_kind_are_refused_before_sampling(
    option: str, value: object, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        merge_sampler({"name": "ddim"}, {option: value})
    assert merge_sampler({"name": "ddim"}, {"steps": np.int64(3)})["steps"] == 3


def test_option_names_leave_out_what_the_task_sets() -> None:
    assert list(options_of(LOSSES, "hybrid")) == ["vb_weight"]
    assert {"steps", "eta", "guidance_scale", "cfg_channels"} <= set(options_of(SAMPLERS, "ddim"))


def test_cards_import_no_torch() -> None:
    code = "import sys, genzoo.diffusion, genzoo.pretrained; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )
    assert TASKS.get("latent_diffusion") is LatentDiffusionTask
