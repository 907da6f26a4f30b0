"""Settings of learning that cannot work: one clear error each, before anything is trained or written."""

from __future__ import annotations

from pathlib import Path

import pytest

from genzoo.api.run import load_run
from genzoo.api.training.train import build_trainer
from genzoo.core.errors import GenzooError
from genzoo.core.recipe import load_recipe

FLOW, PAPER = "quickstart/dim_digits", "quickstart/dim_digits_paper"
REFUSED = {
    "a noise sampler on a flow": (FLOW, "sampler=ddim_50", "ddim does not fit the task flow_matching"),
    "a flow sampler on noise": (PAPER, "sampler=flow_euler_50", "does not fit the task latent_diffusion"),
    "a noise loss on a flow": (FLOW, "task.loss=noise_mse", "noise_mse does not fit the task flow_matching"),
    "a variance loss on a flow": (FLOW, "task.loss=hybrid", "hybrid does not fit the task flow_matching"),
    "a flow loss on noise": (PAPER, "task.loss=velocity_mse", "does not fit the task latent_diffusion"),
    "a variance of a flow": (FLOW, "model.learn_sigma=true", "a variance, which a flow has none of"),
    "a shift without a resolution": (FLOW, "task.times.shift=by_resolution", "compares tokens with"),
    "a shift of nothing": (FLOW, "task.times.shift=0", "shift is 0"),
    "times without spread": (FLOW, "task.times.std=0", "std is 0"),
    "a held-out part without items": (FLOW, "held_out={share: 1e-7, every: 10}", "nothing is left"),
    "a held-out part that is trained on": (
        FLOW, "held_out={data: {name: digits, split: train}, every: 10}", "are trained on, too",
    ),
    "a share of everything": (FLOW, "held_out={share: 1.5, every: 10}", "lies between 0 and 1"),
    "a profile that is too long": (FLOW, "train.ema_profiles=[0.3]", "lie between 0 and 0.289"),
    "numbered timesteps of a flow": (FLOW, "sampler.guidance_interval=[100,500]", "no numbered timesteps"),
    "an interval from behind": (FLOW, "sampler.guidance_interval=[0.9,0.1]", "guidance_interval is"),
    "an infinite form": (FLOW, "sampler={name: flow_sde, form: sbdm, steps: 10}", "sbdm is infinite"),
    "a last step of everything": (
        FLOW, "sampler={name: flow_sde, steps: 10, last_step_size: 1.5}", "last_step_size is 1.5",
    ),
    "churn": (FLOW, "sampler={name: flow_heun, steps: 10, s_churn: 1.0}", "no argument 's_churn'"),
    "inverted noise shares": (
        FLOW, "sampler={name: flow_euler, steps: 10, invert_sigmas: true}", "no argument 'invert_sigmas'",
    ),
    "rotary positions of scans": (FLOW, "model.rope=true", "dim has no argument 'rope'"),
    "normed queries of scans": (FLOW, "model.qk_norm=true", "dim has no argument 'qk_norm'"),
    "an unknown convolution": (FLOW, "model.conv2d=after", "did you mean 'after_block'"),
    "an unknown order": (FLOW, "model.scan_orders=[colums]", "did you mean 'columns'"),
    "a route from behind": (FLOW, "task.routing={rate: 0.5, start: 3, end: 1}", "blocks 3 to 1"),
    "a route beyond the model": (FLOW, "task.routing={rate: 0.5, start: 0, end: 9}", "blocks 0 to 9"),
    "a route without tokens": (FLOW, "task.routing={rate: 1.0, start: 0, end: 1}", "rate of routing is 1.0"),
    "a route of scales": ("var_emoji", "task.routing={rate: 0.5, start: 0, end: 1}", "no argument 'routing'"),
    "an unknown tracker": (FLOW, "train.trackers=[wandbb]", "did you mean 'wandb'"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_settings_that_cannot_work_are_refused_before_training(what: str, tmp_path: Path) -> None:
    recipe, setting, named = REFUSED[what]
    with pytest.raises(GenzooError) as caught:
        build_trainer(load_recipe(recipe, [setting, "preview=null", "report=[]"]), output=tmp_path / "run")
    said = str(caught.value)
    assert named in said
    assert len(said.splitlines()) <= 6
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("length", "named"),
    [(0.05, "stored averages to combine at 0 step(s)"), (0.3, "0.289"), (-0.1, "0.289"), ("x", "ema is 'x'")],
)
def test_averages_that_cannot_be_had_are_refused(trained: object, length: object, named: str) -> None:
    run = load_run(trained.folder)  # type: ignore[attr-defined]
    with pytest.raises(GenzooError) as caught:
        run.sample(num=1, ema=length)
    assert named in str(caught.value)
