"""DiM, bidirectional Mamba diffusion of images, and its baseline DiT. This card imports no torch."""

from genzoo.core.registry import CONVERTERS, MODELS

MODELS.lazy(
    "dim",
    "genzoo.families.dim.model:DiM",
    help="diffusion with bidirectional Mamba blocks (Mo & Tian)",
    port="denoiser",
    takes={"data": "pictures"},
    pipeline="DiMPipeline",
)
MODELS.lazy(
    "dit",
    "genzoo.families.dim.dit:DiT",
    help="diffusion transformer, the attention baseline",
    port="denoiser",
    takes={"data": "pictures"},
    pipeline="DiTPipeline",
)
MODELS.lazy(
    "dim_video",
    "genzoo.families.dim.video:DiMVideo",
    help="DiM for clips, along space and time in turn",
    port="clip_denoiser",
    takes={"data": "clips"},
    pipeline="DiMVideoPipeline",
)
CONVERTERS.lazy(
    "dit", "genzoo.families.dim.convert:dit_converter", help="released DiT weights (DiT-XL-2-256x256.pt)"
)
CONVERTERS.lazy(
    "sit", "genzoo.families.dim.convert:sit_converter", help="released SiT weights, which look like DiT's"
)
