"""CAR, controllable autoregression on a frozen VAR; VAR itself and its VQVAE. This card imports no torch."""

from genzoo.core.registry import CONVERTERS, MODELS

MODELS.lazy("vqvae", "genzoo.families.car.vqvae:VQVAE", help="multi-scale VQVAE: pixels as token maps")
MODELS.lazy("var", "genzoo.families.car.var:VAR", help="next-scale prediction of token maps (Tian et al.)")
MODELS.lazy("car", "genzoo.families.car.model:CAR", help="control transformer on a frozen VAR (Yao et al.)")
CONVERTERS.lazy(
    "vqvae",
    "genzoo.families.car.convert:VQVAEConverter",
    help="released VQVAE weights (vae_ch160v4096z32.pth)",
)
CONVERTERS.lazy(
    "var",
    "genzoo.families.car.convert:VARConverter",
    help="released VAR weights (var_d16.pth to var_d36.pth)",
)
CONVERTERS.lazy(
    "car", "genzoo.families.car.convert:CARConverter", help="released CAR weights (car_canny_d16.pth)"
)
