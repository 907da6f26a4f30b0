"""DiM, bidirectional Mamba diffusion of images, and its baseline DiT. This card imports no torch."""

from genzoo.core.registry import MODELS

MODELS.lazy(
    "dim", "genzoo.families.dim.model:DiM", help="diffusion with bidirectional Mamba blocks (Mo & Tian)"
)
MODELS.lazy("dit", "genzoo.families.dim.dit:DiT", help="diffusion transformer, the attention baseline")
