"""CAR, controllable autoregression on a frozen VAR; VAR itself and its VQVAE. This card imports no torch."""

from genzoo.core.registry import CODECS, CONVERTERS, MODELS, SAMPLERS, TASKS

_HERE = "genzoo.families.car"

MODELS.lazy("vqvae", f"{_HERE}.vqvae.model:VQVAE", help="multi-scale VQVAE: pixels as token maps")
MODELS.lazy("var", f"{_HERE}.var.model:VAR", help="next-scale prediction of token maps (Tian et al.)")
MODELS.lazy("car", f"{_HERE}.control.model:CAR", help="control transformer on a frozen VAR (Yao et al.)")
CODECS.lazy("vqvae", f"{_HERE}.vqvae.codec:VQVAECodec", help="a multi-scale VQVAE with frozen weights")
TASKS.lazy("vqvae", f"{_HERE}.vqvae.task:VQVAETask", help="reconstruct pixels through token maps")
TASKS.lazy("next_scale", f"{_HERE}.task:NextScaleTask", help="predict token maps, with a control or without")
SAMPLERS.lazy(
    "next_scale",
    "genzoo.autoregression.sampling:next_scale",
    help="token maps from coarse to fine, for VAR and CAR",
)
CONVERTERS.lazy(
    "vqvae", f"{_HERE}.weights.convert:VQVAEConverter", help="released VQVAE weights (vae_ch160v4096z32.pth)"
)
CONVERTERS.lazy(
    "var", f"{_HERE}.weights.convert:VARConverter", help="released VAR weights (var_d16.pth to var_d36.pth)"
)
CONVERTERS.lazy(
    "car", f"{_HERE}.weights.convert:CARConverter", help="released CAR weights (car_canny_d16.pth)"
)
