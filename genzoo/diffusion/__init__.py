"""Gaussian diffusion: the card that names its losses, samplers and task; importing it imports no torch."""

from __future__ import annotations

from genzoo.core.registry import LOSSES, SAMPLERS, TASKS

TASKS.lazy(
    "latent_diffusion",
    "genzoo.diffusion.latent_task:LatentDiffusionTask",
    help="predict the noise in pixels or in a codec's latents, with class labels or without",
)
TASKS.lazy(
    "autoencoder",
    "genzoo.diffusion.autoencoder_task:AutoencoderTask",
    help="reconstruct pixels through noisy latents",
)
TASKS.lazy(
    "text_to_image",
    "genzoo.diffusion.text_to_image_task:TextToImageTask",
    help="predict the noise of captioned pictures; trains text encoder and UNet",
)

LOSSES.lazy(
    "noise_mse", "genzoo.diffusion.losses:noise_mse", help="squared error of the noise; fixed variance"
)
LOSSES.lazy(
    "hybrid", "genzoo.diffusion.losses:hybrid", help="squared error plus the bound for a learned variance"
)
LOSSES.lazy("kl", "genzoo.diffusion.losses:kl", help="the variational bound alone")

_SAMPLERS = {
    "ddpm": "ancestral sampling, the learned variance included",
    "ddim": "deterministic at eta 0, constant stride",
    "dpm_solver_pp": "DPM-Solver++ multistep, 15 to 30 steps",
    "unipc": "predictor-corrector, 10 to 20 steps",
    "euler": "Euler steps along the ODE",
    "euler_ancestral": "Euler steps with fresh noise",
    "heun": "second order along the ODE, two model calls a step",
}
for _name, _help in _SAMPLERS.items():
    SAMPLERS.lazy(_name, f"genzoo.diffusion.samplers:{_name}", help=_help)
