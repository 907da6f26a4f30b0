"""The flow matching task: what training and sampling depend on, and errors for sections that mix paths."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recipe_cases import TINY
from torch import Tensor, nn

from genzoo.api.recipes.plan import check_recipe
from genzoo.core.errors import RecipeError, RegistryError, ShapeError, UsageError
from genzoo.core.recipe import recipe_from
from genzoo.core.seeds import SampleStreams
from genzoo.diffusion.flow.field import FlowGuidance
from genzoo.diffusion.flow.losses import prediction_mse, velocity_mse
from genzoo.diffusion.flow.paths import Flow, interpolate, path_velocity, velocity_from
from genzoo.diffusion.flow.settings import flow_settings
from genzoo.diffusion.flow.task import FlowMatchingTask
from genzoo.diffusion.flow.times import Times, build_times
from genzoo.diffusion.latent_task import LatentDiffusionTask


class Tiny(nn.Module):
    """Mixes channels per pixel, adds an embedding of the label; records what it was called with."""

    def __init__(self, *, num_classes: int = 3, learn_sigma: bool = False, null_class: bool = True) -> None:
        super().__init__()
        self.num_classes, self.in_channels, self.input_size, self.patch_size = num_classes, 2, 4, 2
        self.learn_sigma, self.arguments = learn_sigma, {"null_class": null_class}
        self.mix = nn.Conv2d(2, 4 if learn_sigma else 2, 1)
        self.table = nn.Embedding(num_classes + 1, 1) if num_classes else None
        self.calls: list[tuple[Tensor, Tensor | None]] = []

    def forward(self, x: Tensor, timesteps: Tensor, class_labels: Tensor | None) -> Tensor:
        self.calls.append((timesteps, class_labels))
        y = self.mix(x).tanh() * (1 + timesteps.reshape(-1, 1, 1, 1).to(x) / 1000)
        return y if self.table is None else y + 0.1 * self.table(class_labels)[..., None, None]


def streams(*positions: int, name: str = "noise") -> SampleStreams:
    return SampleStreams.from_seeds(0, name, positions=positions)


def batch(num: int = 4, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    pixels = torch.rand(num, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=dtype) * 2 - 1
    return {"pixels": pixels, "class_labels": torch.arange(num) % 3}


def task(model: nn.Module | None = None, **options: Any) -> FlowMatchingTask:
    torch.manual_seed(0)
    return FlowMatchingTask(model or Tiny(), **{"sampler": {"name": "flow_euler", "steps": 4}, **options})


TIMES = [None, {"name": "logit_normal", "mean": -0.5, "std": 0.8, "shift": 3.0}, {"name": "mode"}]


@pytest.mark.parametrize("times", TIMES, ids=str)
def test_prepared_samples_do_not_depend_on_the_partition(times: Any) -> None:
    flow = task(times=times, label_dropout=0.5)
    whole = flow.prepare_batch(batch(), streams(0, 1, 2, 3))
    for i in range(4):
        part = {key: value[i : i + 1] for key, value in batch().items()}
        single = flow.prepare_batch(part, streams(i))
        assert set(single) == set(whole) == {"latents", "class_labels", "times", "noise"}
        assert all(torch.equal(single[key], whole[key][i : i + 1]) for key in whole)


def test_loss_is_the_mean_over_any_partition_and_trains_the_model_it_is_given() -> None:
    flow = task(Tiny().double())
    data = batch(dtype=torch.float64)
    whole = flow.loss(flow.model, flow.prepare_batch(data, streams(0, 1, 2, 3)))
    parts = []
    for i in range(4):
        part = {key: value[i : i + 1] for key, value in data.items()}
        parts.append(flow.loss(flow.model, flow.prepare_batch(part, streams(i))).loss)
    assert whole.loss.item() == pytest.approx(torch.stack(parts).mean().item(), rel=1e-12)
    given_model = Tiny()
    flow.loss(given_model.double(), flow.prepare_batch(data, streams(0, 1, 2, 3))).loss.backward()
    assert all(p.grad is None for p in flow.model.parameters())
    assert all(p.grad is not None for p in given_model.parameters())


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_the_network_is_fed_the_scaled_time_in_training_and_in_sampling(scale: float) -> None:
    flow = task(time_scale=scale)
    prepared = flow.prepare_batch(batch(), streams(0, 1, 2, 3))
    flow.loss(flow.model, prepared)
    assert torch.allclose(flow.model.calls[-1][0], scale * prepared["times"])
    flow.model.calls.clear()
    flow.sample(flow.model, flow.conditions(2), streams(0, 1))
    assert [float(seen[0]) for seen, _ in flow.model.calls] == pytest.approx(
        [scale * k / 4 for k in range(4)]
    )


PREDICTIONS = ["velocity", "x_0", "noise", "score"]


@pytest.mark.parametrize("path", ["linear", "gvp", "vp"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_perfect_prediction_has_no_loss_and_gives_the_path_s_velocity(path: str, prediction: Any) -> None:
    flow, times = Flow(path), torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    x_1, noise = (torch.randn(3, 2, 4, 4, dtype=torch.float64) for _ in range(2))
    x_t, velocity = interpolate(x_1, noise, times, flow), path_velocity(x_1, noise, times, flow)
    perfect = {"velocity": velocity, "x_0": x_1, "noise": noise, "score": -noise / flow.at(times, x_1).sigma}
    output = perfect[prediction]
    assert torch.allclose(velocity_from(prediction, x_t, output, flow.at(times, x_t)), velocity)
    for loss in (velocity_mse, prediction_mse):
        assert loss(output, x_1, x_t, noise, times, flow, prediction=prediction)["loss"].abs().max() < 1e-20


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_velocity_loss_is_the_error_of_the_velocity_for_every_prediction(prediction: Any) -> None:
    flow, times = Flow(), torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    x_1, noise, output = (torch.randn(3, 2, 4, 4, dtype=torch.float64) for _ in range(3))
    x_t = interpolate(x_1, noise, times, flow)
    error = velocity_from(prediction, x_t, output, flow.at(times, x_t)) - (x_1 - noise)
    loss = velocity_mse(output, x_1, x_t, noise, times, flow, prediction=prediction)["loss"]
    assert torch.allclose(loss, error.square().flatten(1).mean(1))


def test_the_weight_of_x_0_stops_growing_near_the_data() -> None:
    flow, near = Flow(), torch.tensor([0.999], dtype=torch.float64)
    x_1, noise, output = (torch.randn(1, 2, 4, 4, dtype=torch.float64) for _ in range(3))
    x_t = interpolate(x_1, noise, near, flow)
    loss = velocity_mse(output, x_1, x_t, noise, near, flow, prediction="x_0", smallest=0.05)["loss"]
    assert loss.item() == pytest.approx((output - x_1).square().mean().item() / 0.05**2)


def test_sd3_weights_multiply_the_error_and_stay_finite_at_the_data() -> None:
    flow, times = Flow(), torch.tensor([0.25, 1.0], dtype=torch.float64)
    x_1, noise, output = (torch.randn(2, 2, 4, 4, dtype=torch.float64) for _ in range(3))
    inputs = (output, x_1, interpolate(x_1, noise, times, flow), noise, times, flow)
    plain = velocity_mse(*inputs)["loss"]
    weighted = velocity_mse(*inputs, weighting="sigma_sqrt")["loss"]
    assert (weighted / plain).tolist() == pytest.approx([0.75**-2, 1e6])
    cosmap = velocity_mse(*inputs, weighting="cosmap")["loss"]
    assert (cosmap / plain)[0].item() == pytest.approx(2 / (math.pi * (1 - 1.5 + 2 * 0.5625)))


def test_min_snr_caps_the_weight_of_the_predicted_data() -> None:
    flow, times = Flow(), torch.tensor([0.3, 0.95], dtype=torch.float64)
    x_1, noise, output = (torch.randn(2, 2, 4, 4, dtype=torch.float64) for _ in range(3))
    x_t = interpolate(x_1, noise, times, flow)
    inputs = (output, x_1, x_t, noise, times, flow)
    snr = (times / (1 - times)) ** 2
    error = velocity_mse(*inputs)["mse"] * (1 - times) ** 2  # of the clean latents
    assert torch.allclose(velocity_mse(*inputs, weighting="min_snr")["loss"], snr.clamp(max=5.0) * error)


@given(mean=st.floats(-2, 2), std=st.floats(0.2, 2), shift=st.floats(0.1, 10))
@settings(max_examples=30, deadline=None)
def test_a_shifted_logit_normal_is_a_logit_normal(mean: float, std: float, shift: float) -> None:
    moved = Times("logit_normal", mean=mean - math.log(shift), std=std)
    there = Times("logit_normal", mean=mean, std=std, shift=shift)
    ours, theirs = (times.draw(streams(*range(16)), 1) for times in (there, moved))
    assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    t = torch.linspace(0.01, 0.99, 7, dtype=torch.float64)
    assert torch.allclose(there.density(t, 1), moved.density(t, 1), rtol=1e-8, atol=1e-12)


DENSITIES = [
    {"shift": 3.0},
    {"name": "logit_normal", "mean": 0.4, "shift": 0.5},
    {"name": "mode", "shift": 2.0},
]


@pytest.mark.parametrize("section", DENSITIES, ids=str)
def test_densities_of_times_integrate_to_one(section: dict[str, Any]) -> None:
    t = torch.linspace(0, 1, 200_001, dtype=torch.float64)[1:-1]
    assert build_times(section).density(t, 1).mean().item() == pytest.approx(1.0, abs=1e-4)


def test_a_shift_by_resolution_counts_the_tokens_after_patching() -> None:
    flow = task(times={"shift": "by_resolution", "base_tokens": 1})
    assert flow.settings.num_tokens == 4
    assert flow.settings.times.factor(flow.settings.num_tokens) == pytest.approx(2.0)


def test_guidance_acts_within_its_interval_of_noise_only() -> None:
    flow = task()
    options = {"guidance_scale": 2.0, "guidance_interval": [0.2, 0.6]}
    flow.sample(flow.model, flow.conditions(2), streams(0, 1), **options)
    # noise shares 1, 0.75, 0.5, 0.25: the doubled batch at the last two
    assert [len(seen) for seen, _ in flow.model.calls] == [2, 2, 4, 4]


def test_guided_velocity_extrapolates_from_the_null_class() -> None:
    flow = task()
    conditions, noise = flow.conditions(3), streams(0, 1, 2)
    plain = {
        scale: flow.sample(flow.model, conditions, streams(0, 1, 2), steps=1, guidance_scale=scale)
        for scale in (0.0, 1.0)
    }
    flow.model.calls.clear()
    guided = flow.sample(flow.model, conditions, noise, steps=1, guidance_scale=1.2)
    assert flow.model.calls[0][1].tolist() == [0, 1, 2, 3, 3, 3]
    inside = (guided.abs() < 1) & (plain[0.0].abs() < 1) & (plain[1.0].abs() < 1)
    assert inside.any()
    expected = plain[0.0] + 1.2 * (plain[1.0] - plain[0.0])
    assert torch.allclose(guided[inside], expected[inside], atol=1e-5)


def test_samples_do_not_depend_on_the_batch_and_stay_in_range() -> None:
    flow = task(sampler={"name": "flow_dpm_solver_pp", "steps": 5, "stochastic": True, "guidance_scale": 1.5})
    whole = flow.sample(flow.model, flow.conditions(3), streams(0, 1, 2))
    single = flow.sample(flow.model, flow.conditions(1, class_labels=2), streams(2))
    assert torch.allclose(whole[2:], single, atol=1e-5)
    assert whole.abs().max() <= 1


def test_a_variance_is_refused_unless_it_is_dropped() -> None:
    with pytest.raises(UsageError, match="a flow has none of"):
        task(Tiny(learn_sigma=True))
    dropping = task(Tiny(learn_sigma=True), drop_variance=True)
    prepared = dropping.prepare_batch(batch(), streams(0, 1, 2, 3))
    dropping.loss(dropping.model, prepared).loss.backward()
    gradient = dropping.model.mix.weight.grad
    assert gradient[:2].abs().sum() > 0
    assert not gradient[2:].any()
    assert dropping.sample(dropping.model, dropping.conditions(2), streams(0, 1)).shape == (2, 2, 4, 4)


def test_losses_refuse_outputs_of_another_shape() -> None:
    x = torch.zeros(2, 2, 4, 4)
    with pytest.raises(UsageError, match="variance"):
        velocity_mse(torch.zeros(2, 4, 4, 4), x, x, x, torch.zeros(2), Flow())
    with pytest.raises(ShapeError, match="must hold 2 channels"):
        velocity_mse(torch.zeros(2, 3, 4, 4), x, x, x, torch.zeros(2), Flow())


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"path": "cubic"}, "no path 'cubic'"),
    ({"prediction": "v"}, "a flow predicts no 'v'"),
    ({"time_scale": 0.0}, "time_scale is 0.0"),
    ({"times": {"name": "beta"}}, "no times 'beta'"),
    ({"times": {"name": "logit_normal", "std": 0.0}}, "std is 0.0"),
    ({"times": {"shift": 0.0}}, "shift is 0.0"),
    ({"times": {"shift": "by_resolution"}}, "base_tokens, which is None"),
    ({"times": {"shift": "by_size"}}, "shift is 'by_size'"),
    ({"times": {"mean": 0.0, "deviation": 1.0}}, "no option 'deviation'"),
    ({"label_dropout": 1.0}, "a probability below 1"),
    ({"sampler": {"name": "flow_euler", "guidance_interval": [100, 700]}}, "no numbered timesteps"),
    ({"sampler": {"name": "flow_euler", "guidance_interval": [0.9, 0.1]}}, "guidance_interval is"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_impossible_settings_are_refused_when_the_task_is_built(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        task(**options)


MIXED: list[tuple[type, dict[str, Any], str]] = [
    (FlowMatchingTask, {"sampler": {"name": "ddim"}}, "ddim"),
    (FlowMatchingTask, {"loss": "hybrid"}, "hybrid"),
    (FlowMatchingTask, {"loss": "noise_mse"}, "noise_mse"),
    (LatentDiffusionTask, {"sampler": {"name": "flow_euler"}}, "flow_euler"),
    (LatentDiffusionTask, {"loss": "velocity_mse"}, "velocity_mse"),
]


@pytest.mark.parametrize(("kind", "options", "name"), MIXED, ids=lambda value: str(value)[:40])
def test_sections_that_mix_paths_are_refused(kind: type, options: dict[str, Any], name: str) -> None:
    with pytest.raises((UsageError, RegistryError), match=name):
        kind(Tiny(), **options)
    section = {"name": "flow_matching" if kind is FlowMatchingTask else "latent_diffusion"}
    fitting = {"name": "flow_euler"} if kind is FlowMatchingTask else {"name": "ddim"}
    data = {**TINY, "task": section | {k: v for k, v in options.items() if k == "loss"}}
    data["sampler"] = options.get("sampler", fitting)
    with pytest.raises(RecipeError, match=f"{name} does not fit the task {section['name']}, which takes"):
        check_recipe(recipe_from(data))


def test_velocity_weights_are_refused_for_predictions_that_have_none() -> None:
    x = torch.zeros(2, 2, 4, 4)
    with pytest.raises(UsageError, match="belongs to predictions of noise or score"):
        prediction_mse(x, x, x, x, torch.full((2,), 0.5), Flow(), weighting="likelihood")


@pytest.mark.parametrize("prediction", ["noise", "score", "x_0"])
def test_times_of_training_stay_where_the_prediction_says_something(prediction: Any) -> None:
    chosen = flow_settings("linear", prediction, None, 1.0, 1)
    ends = chosen.within_range(torch.tensor([0.0, 1.0]))
    assert ends[1] <= 0.9991
    assert (ends[0] >= 0.0009) == (prediction != "x_0")


def test_guidance_is_off_at_scale_one() -> None:
    assert not FlowGuidance().active(0.5)
    assert FlowGuidance(2.0, guidance_interval=[0.0, 0.89]).active(0.5)
    assert not FlowGuidance(2.0, guidance_interval=[0.0, 0.89]).active(0.9)


@pytest.mark.parametrize("name", ["dpm_solver_pp", "euler", "heun", "unipc"])
def test_a_method_for_either_path_is_taken_in_its_form_for_flows(name: str) -> None:
    plain, flow = task(sampler={"name": name, "steps": 4}), task(sampler={"name": f"flow_{name}", "steps": 4})
    drawn = [
        one.sample(one.model, one.conditions(3), streams(0, 1, 2), guidance_scale=1.5)
        for one in (plain, flow)
    ]
    assert torch.equal(*drawn)
    again = flow.sample(flow.model, flow.conditions(3), streams(0, 1, 2), guidance_scale=1.5, sampler=name)
    assert torch.equal(again, drawn[0])
    assert plain.sampler["name"] == f"flow_{name}"


def test_a_method_of_gaussian_paths_alone_is_refused() -> None:
    with pytest.raises(RegistryError, match="does not fit here"):
        task(sampler={"name": "ddim", "steps": 4})
