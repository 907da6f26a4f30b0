"""Schedules, process, losses and samplers against numbers computed by the official DiT diffusion code.

One test for each case of the manifest, chosen by what the case holds. Every tensor of a case must be
reproduced: one that no rule below computes fails its test.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import torch
from diffusion.reverse_steps import ancestral_step, ddim_reverse_step, ddim_step, prior_bits_per_dimension
from golden.manifest import golden_cases, golden_tensors
from torch import Tensor

from genzoo.diffusion import losses, samplers
from genzoo.diffusion.process import (
    ReverseStep,
    p_mean_variance,
    q_posterior,
    q_sample,
)
from genzoo.diffusion.schedule import NoiseSchedule, make_schedule

SET, FILE = "ssm_diffusion", "diff"
INPUTS = ("x0", "noise", "noise2", "t", "model_output")
# the reference computes in float32 from float64 tables; so do we
RELATIVE = 1e-4
# its divergences subtract terms of size one in float32
ROUNDING = 3e-7


def assert_close(name: str, ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape, f"{name}: {tuple(ours.shape)} != {tuple(theirs.shape)}"
    if not theirs.is_floating_point():
        assert torch.equal(ours, theirs), name
        return
    relative = 1e-12 if theirs.dtype == torch.float64 else RELATIVE
    floor = 0.0 if theirs.dtype == torch.float64 else ROUNDING
    error = (ours.double() - theirs.double()).abs().max().item()
    scale = theirs.double().abs().max().item()
    assert error <= relative * scale + floor, f"{name}: error {error:.3g} at scale {scale:.3g}"


@cache
def base_inputs() -> dict[str, Tensor]:
    """Inputs that the manifest's other cases share: those of the first case that holds them."""
    for case in golden_cases(SET, FILE):
        if set(INPUTS) <= set(case["keys"]):
            tensors = golden_tensors(SET, FILE, case["name"])
            return {key: tensors[key] for key in INPUTS}
    raise AssertionError(f"no case of the manifest holds {INPUTS}")


def channel_axis(x0: Tensor, model_output: Tensor) -> int:
    return next((i for i, (a, b) in enumerate(zip(x0.shape, model_output.shape, strict=True)) if a != b), 1)


class Setting:
    """One configuration of the reference's factory, by its keyword arguments."""

    def __init__(
        self,
        *,
        learn_sigma: bool = True,
        sigma_small: bool = False,
        predict_xstart: bool = False,
        use_kl: bool = False,
        rescale_learned_sigmas: bool = False,
        noise_schedule: str = "linear",
        diffusion_steps: int = 1000,
        timestep_respacing: str | None = None,
    ) -> None:
        self.schedule = make_schedule(
            noise_schedule, num_timesteps=diffusion_steps, respacing=timestep_respacing
        )
        self.learned, self.use_kl, self.rescaled = learn_sigma, use_kl, rescale_learned_sigmas
        self.variance = "learned_range" if learn_sigma else "fixed_small" if sigma_small else "fixed_large"
        self.prediction = "x_0" if predict_xstart else "noise"

    def output(self, data: dict[str, Tensor]) -> Tensor:
        """The fixed tensor that plays the model; a model without learned variance has the first half only."""
        axis = channel_axis(data["x0"], data["model_output"])
        full = data["model_output"]
        return full if self.learned else full.narrow(axis, 0, data["x0"].shape[axis])

    def step(self, output: Tensor, x_t: Tensor, t: Tensor, axis: int, *, clip: bool = False) -> ReverseStep:
        return p_mean_variance(
            output, x_t, t, self.schedule, prediction=self.prediction, variance=self.variance,
            clip_x_0=clip, channel_axis=axis,
        )  # fmt: skip

    def loss(self, output: Tensor, data: dict[str, Tensor], x_t: Tensor, axis: int) -> dict[str, Tensor]:
        inputs = (output, data["x0"], x_t, data["noise"], data["t"], self.schedule)
        options: dict[str, Any] = {"prediction": self.prediction, "channel_axis": axis}
        if self.use_kl:
            return {"loss": losses.kl(*inputs, variance=self.variance, **options)["loss"]}
        if not self.learned:
            return losses.noise_mse(*inputs, **options)
        weight = self.schedule.num_timesteps / 1000 if self.rescaled else 1.0
        return losses.hybrid(*inputs, vb_weight=weight, **options)

    def values(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """Everything a case of this kind may hold."""
        axis = channel_axis(data["x0"], data["model_output"])
        x_0, t, noise = data["x0"], data["t"], data["noise2"]
        x_t = q_sample(x_0, data["noise"], t, self.schedule)
        output = self.output(data).clone().requires_grad_()
        terms = self.loss(output, data, x_t, axis)
        (gradient,) = torch.autograd.grad(terms["loss"].mean(), output)
        mean, variance, log_variance = q_posterior(x_0, x_t, t, self.schedule)
        found = {
            "q_sample": x_t, "q_post_mean": mean, "q_post_var": variance, "q_post_logvar": log_variance,
            "prior_bpd": prior_bits_per_dimension(x_0, self.schedule),
            "grad_loss_wrt_model_output": gradient,
            **{name: term.detach() for name, term in terms.items()},
        }  # fmt: skip
        if self.rescaled:
            found["vb"] = found["vb"] * (self.schedule.num_timesteps / 1000)
        for suffix, clip in (("_clip0", False), ("_clip1", True), ("", False)):
            found |= self.reverse(output.detach(), x_t, t, noise, axis, clip, suffix)
        return found

    def reverse(
        self, output: Tensor, x_t: Tensor, t: Tensor, noise: Tensor, axis: int, clip: bool, suffix: str
    ) -> dict[str, Tensor]:
        step = self.step(output, x_t, t, axis, clip=clip)
        found = {
            f"pmv_mean{suffix}": step.mean, f"pmv_variance{suffix}": step.variance,
            f"pmv_log_variance{suffix}": step.log_variance, f"pmv_pred_xstart{suffix}": step.x_0,
            f"p_sample{suffix}": ancestral_step(step, noise, t),
            f"ddim_reverse{suffix}": ddim_reverse_step(step.x_0, x_t, t, self.schedule),
        }  # fmt: skip
        for eta in (0.0, 0.25, 0.5, 0.75, 1.0):
            found[f"ddim_eta{eta}{suffix}"] = ddim_step(step.x_0, x_t, noise, t, self.schedule, eta=eta)
        return found


def tables(schedule: NoiseSchedule) -> dict[str, Tensor]:
    names = (
        "betas", "alphas_cumprod", "alphas_cumprod_prev", "alphas_cumprod_next", "posterior_variance",
        "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2", "timestep_map",
    )  # fmt: skip
    return {name: getattr(schedule, name) for name in names}


def table_values(case: dict[str, Any]) -> dict[str, Tensor]:
    if "timestep_map" in case["keys"]:
        respacing = case.get("respacing") or case["name"].partition("_")[2]
        return tables(make_schedule(**case.get("kwargs", {}), respacing=respacing))
    found = re.search(r"(linear|squaredcos_cap_v2|cosine)(\d+)", case["name"])
    assert found, f"{case['name']}: which schedule?"
    return tables(make_schedule(found[1], num_timesteps=int(found[2])))


def respaced_values(case: dict[str, Any]) -> dict[str, Tensor]:
    """One step on a respaced schedule from the base case's x_t."""
    base, t = base_inputs(), golden_tensors(SET, FILE, case["name"])["t"]
    setting = Setting(timestep_respacing=case["respacing"], **case.get("kwargs", {}))
    axis = channel_axis(base["x0"], base["model_output"])
    x_t = q_sample(base["x0"], base["noise"], base["t"], make_schedule())
    step = setting.step(setting.output(base), x_t, t, axis)
    return {
        "t": t, "t_seen_by_model": setting.schedule.timestep_map[t], "p_pred_xstart": step.x_0,
        "p_sample": ancestral_step(step, base["noise2"], t),
        "ddim": ddim_step(step.x_0, x_t, base["noise2"], t, setting.schedule),
    }  # fmt: skip


def toy_model(x: Tensor, timesteps: Tensor) -> Tensor:
    """The manifest's stand-in: eps = tanh(x) * (1 + t/1000), v = sin(3x)."""
    t = timesteps.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    return torch.cat([x.tanh() * (1 + t / 1000), (3 * x).sin()], 1)


def chain_values(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Whole chains through the library's samplers, with the recorded noise in place of theirs."""
    tensors = golden_tensors(SET, FILE, case["name"])
    noises, x_T = tensors["noises"], tensors["x_T"]
    recorded = iter(noises)
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *a, **k: next(recorded))
    schedule, steps = make_schedule(), str(len(noises))
    return {
        "noises": noises, "x_T": x_T,
        "ddpm_final": samplers.ddpm(toy_model, x_T, schedule, None, steps=steps),
        "ddim_final": samplers.ddim(toy_model, x_T, schedule, None, steps=steps),
    }  # fmt: skip


def values(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    keys = set(case["keys"])
    if "betas" in keys:
        return table_values(case)
    if "noises" in keys:
        return chain_values(case, monkeypatch)
    if "t_seen_by_model" in keys:
        return respaced_values(case)
    own = golden_tensors(SET, FILE, case["name"])
    data = {**base_inputs(), **{key: own[key] for key in INPUTS if key in own}}
    return {**data, **Setting(**case.get("kwargs", {})).values(data)}


@pytest.mark.parametrize("case", golden_cases(SET, FILE), ids=lambda case: case["name"])
def test_golden_case_is_reproduced(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = values(case, monkeypatch), golden_tensors(SET, FILE, case["name"])
    assert set(theirs) == set(case["keys"])
    assert not set(theirs) - set(ours), f"no rule computes {sorted(set(theirs) - set(ours))}"
    for name, tensor in theirs.items():
        assert_close(name, ours[name], tensor)
