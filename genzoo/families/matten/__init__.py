"""Matten, Mamba and attention for clips, and its baseline Latte. This card imports no torch."""

from genzoo.core.registry import CONVERTERS, MODELS

MODELS.lazy(
    "matten",
    "genzoo.families.matten.model:Matten",
    help="video diffusion with Mamba and attention",
    port="clip_denoiser",
    takes={"data": "clips"},
    pipeline="MattenPipeline",
)
MODELS.lazy(
    "latte",
    "genzoo.families.matten.latte:Latte",
    help="video diffusion transformer, the baseline",
    port="clip_denoiser",
    takes={"data": "clips"},
    pipeline="LattePipeline",
)
CONVERTERS.lazy(
    "latte",
    "genzoo.families.matten.convert:latte_converter",
    help="released Latte weights (ucf101.pt, ffs.pt)",
)
