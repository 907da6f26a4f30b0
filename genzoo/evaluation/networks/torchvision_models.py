"""Any torchvision classifier as a feature network: what enters its last linear layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from genzoo.core.errors import UsageError
from genzoo.core.optional import require
from genzoo.evaluation.features import FeatureNetwork
from genzoo.evaluation.networks.preprocess import IMAGENET_MEAN, IMAGENET_STD, picture_network
from genzoo.pretrained.loading import load_module

if TYPE_CHECKING:
    from torch import Tensor

RESIZE, CROP = 256, 224


def build(weights: str | Path, device: str = "cpu", *, model: str) -> FeatureNetwork:
    """Outputs: pool (input of the last linear layer) and logits."""
    models, path = require("torchvision.models"), Path(weights)
    if model not in models.list_models():
        raise UsageError(f"torchvision has no model {model!r}; see torchvision.models.list_models()")
    options = {"init_weights": False} if model in ("inception_v3", "googlenet") else {}
    module = models.get_model(model, weights=None, **options)
    module = load_module(module, path).to(device)
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise UsageError(f"torchvision's {model} has no linear layer to read features before")
    seen: dict[str, Tensor] = {}
    linear[-1].register_forward_pre_hook(lambda layer, inputs: seen.update(pool=inputs[0]))

    def extract(images: Tensor) -> dict[str, Tensor]:
        logits = module(images.to(device))
        return {"pool": seen["pool"].flatten(1), "logits": logits}

    return picture_network(
        f"torchvision:{model}",
        model,
        extract,
        path,
        outputs=("pool", "logits"),
        resize=RESIZE,
        crop=CROP,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        filter="bilinear",
        preprocessing=f"Pillow bilinear to {RESIZE} (short side), centre crop {CROP}, ImageNet mean and std",
    )
