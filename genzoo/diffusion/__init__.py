"""Gaussian diffusion: the card that names its losses, samplers and task; importing it imports no torch."""

from __future__ import annotations

from genzoo.core.registry import LOSSES, SAMPLERS, SCHEDULES, TASKS

# Ports, by kind of entry:
# model "denoiser": (x_t, timesteps, class_labels) -> noise, or noise and variance; x_t (b, c, h, w);
#     "clip_denoiser": the same with x_t (b, f, c, h, w); "prompted_denoiser": input_ids in place of labels.
# loss "diffusion": as in genzoo.diffusion.losses.   sampler "diffusion": as in genzoo.diffusion.samplers.
# loss "flow": as in genzoo.diffusion.flow.losses.   sampler "flow": as in genzoo.diffusion.flow.solvers.
#     sampler "either_path": one of "diffusion" that flow tasks take in their own form, "flow_NAME".
# codec "latents": a LatentCodec whose latents are continuous.
# task "generates": samples need nothing but a seed; "reconstructs": they need pictures.
TASKS.lazy(
    "latent_diffusion",
    "genzoo.diffusion.latent_task:LatentDiffusionTask",
    help="predict the noise in pixels or in a codec's latents, with class labels or without",
    port="generates",
    takes={
        "model": ("denoiser", "clip_denoiser"),
        "loss": "diffusion",
        "sampler": "diffusion",
        "codec": "latents",
    },
)
TASKS.lazy(
    "autoencoder",
    "genzoo.diffusion.autoencoder_task:AutoencoderTask",
    help="reconstruct pixels through noisy latents",
    port="reconstructs",
    takes={"model": "autoencoder", "data": "pictures", "codec": None, "sampler": None},
)
TASKS.lazy(
    "text_to_image",
    "genzoo.diffusion.text_to_image_task:TextToImageTask",
    help="predict the noise of captioned pictures; trains text encoder and UNet",
    port="generates",
    takes={
        "model": "prompted_denoiser",
        "data": "captioned_pictures",
        "sampler": "diffusion",
        "codec": "latents",
    },
)

TASKS.lazy(
    "flow_matching",
    "genzoo.diffusion.flow.task:FlowMatchingTask",
    help="predict the velocity from noise to data in pixels or latents, with class labels or without",
    port="generates",
    takes={
        "model": ("denoiser", "clip_denoiser"),
        "loss": "flow",
        "sampler": ("flow", "either_path"),
        "codec": "latents",
    },
)
TASKS.lazy(
    "flow_text_to_image",
    "genzoo.diffusion.flow.text_to_image_task:FlowTextToImageTask",
    help="predict the velocity of captioned pictures; trains text encoder and UNet",
    port="generates",
    takes={
        "model": "prompted_denoiser",
        "data": "captioned_pictures",
        "loss": "flow",
        "sampler": ("flow", "either_path"),
        "codec": "latents",
    },
)

_LOSSES = {
    "noise_mse": "squared error of the noise; fixed variance",
    "hybrid": "squared error plus the bound for a learned variance",
    "kl": "the variational bound alone",
}
for _name, _help in _LOSSES.items():
    LOSSES.lazy(_name, f"genzoo.diffusion.losses:{_name}", help=_help, port="diffusion")

SCHEDULES.lazy(
    "linear", "genzoo.diffusion.schedule:linear_betas", help="DDPM's betas, 1e-4 to 2e-2 over 1000 timesteps"
)
SCHEDULES.lazy("cosine", "genzoo.diffusion.schedule:cosine_betas", help="the squared cosine of Improved DDPM")
SCHEDULES.lazy(
    "squaredcos_cap_v2", "genzoo.diffusion.schedule:cosine_betas", help="what diffusers calls the cosine one"
)

_SAMPLERS = {
    "ddpm": "ancestral sampling, the learned variance included",
    "ddim": "deterministic at eta 0, constant stride",
    "dpm_solver_pp": "DPM-Solver++ multistep, 15 to 30 steps",
    "unipc": "predictor-corrector, 10 to 20 steps",
    "euler": "Euler steps along the ODE",
    "euler_ancestral": "Euler steps with fresh noise",
    "heun": "second order along the ODE, two model calls a step",
}
_ANY_PATH = ("dpm_solver_pp", "euler", "heun", "unipc")  # a flow takes its own form of these
for _name, _help in _SAMPLERS.items():
    _ports = ("diffusion", "either_path") if _name in _ANY_PATH else ("diffusion",)
    SAMPLERS.lazy(_name, f"genzoo.diffusion.samplers:{_name}", help=_help, port=_ports)

_FLOW_LOSSES = {
    "velocity_mse": "squared error of the velocity, whatever the network predicts",
    "prediction_mse": "squared error of the prediction itself, with SiT's weights for noise and score",
}
for _name, _help in _FLOW_LOSSES.items():
    LOSSES.lazy(_name, f"genzoo.diffusion.flow.losses:{_name}", help=_help, port="flow")

_FLOW_SAMPLERS = {
    "flow_euler": ("solvers", "Euler steps along the velocity, 25 to 50 steps"),
    "flow_heun": ("solvers", "second order, two model calls a step"),
    "flow_ode": ("solvers", "another Runge-Kutta method of order 1 to 4"),
    "flow_dpm_solver_pp": ("multistep", "DPM-Solver++ multistep, ODE or SDE form, 10 to 25 steps"),
    "flow_unipc": ("multistep", "predictor-corrector on the linear path, 10 to 20 steps"),
    "flow_sde": ("sde", "the SDE by Euler-Maruyama or Heun, 100 to 250 steps"),
}
for _name, (_module, _help) in _FLOW_SAMPLERS.items():
    SAMPLERS.lazy(_name, f"genzoo.diffusion.flow.{_module}:{_name}", help=_help, port="flow")
