"""Adapters to published models: the card that names the codecs; importing it imports no torch."""

from __future__ import annotations

from genzoo.core.registry import CODECS

CODECS.lazy("identity", "genzoo.pretrained.codecs:IdentityCodec", help="pixels are the latents")
CODECS.lazy(
    "autoencoder_kl",
    "genzoo.pretrained.codecs:AutoencoderKLCodec",
    help="a Stable Diffusion autoencoder, from a hub id or a local folder",
)
