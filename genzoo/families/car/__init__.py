"""CAR, controllable autoregression on a frozen VAR; VAR itself and its VQVAE. This card imports no torch."""

from genzoo.core.registry import CODECS, CONVERTERS, MODELS, SAMPLERS, TASKS

_HERE = "genzoo.families.car"

# Ports: "next_scale": of models that read and write token maps of all scales, and of what draws from them;
# "controlled": of models that take a control picture; "token_maps": a codec that has such
# tokens beside its latents.
MODELS.lazy(
    "vqvae",
    f"{_HERE}.vqvae.model:VQVAE",
    help="multi-scale VQVAE: pixels as token maps",
    port="token_autoencoder",
)
MODELS.lazy(
    "var",
    f"{_HERE}.var.model:VAR",
    help="next-scale prediction of token maps (Tian et al.)",
    port="next_scale",
    pipeline="VARPipeline",
)
MODELS.lazy(
    "car",
    f"{_HERE}.control.model:CAR",
    help="control transformer on a frozen VAR (Yao et al.)",
    port=("next_scale", "controlled"),
    pipeline="CARPipeline",
)
CODECS.lazy(
    "vqvae",
    f"{_HERE}.vqvae.codec:VQVAECodec",
    help="a multi-scale VQVAE with frozen weights",
    port=("latents", "token_maps"),
    takes={"data": "pictures"},
)
TASKS.lazy(
    "vqvae",
    f"{_HERE}.vqvae.task:VQVAETask",
    help="reconstruct pixels through token maps",
    port="reconstructs",
    takes={"model": "token_autoencoder", "data": "pictures", "codec": None, "sampler": None},
)
TASKS.lazy(
    "next_scale",
    f"{_HERE}.task:NextScaleTask",
    help="predict token maps, with a control or without",
    port="generates",
    takes={"model": "next_scale", "data": "pictures", "codec": "token_maps", "sampler": "next_scale"},
    needs="codec",
)
SAMPLERS.lazy(
    "next_scale",
    "genzoo.autoregression.sampling:next_scale",
    help="token maps from coarse to fine, for VAR and CAR",
    port="next_scale",
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
