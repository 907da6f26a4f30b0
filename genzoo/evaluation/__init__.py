"""Metrics and reports, and the card that names them; importing it imports no torch."""

from __future__ import annotations

from genzoo.core.registry import FEATURES, METRICS

METRICS.lazy(
    "nearest_neighbour",
    "genzoo.evaluation.nearest_neighbour:nearest_neighbour",
    help="class accuracy by nearest real images, and spread within a class",
)
METRICS.lazy(
    "sample_grid", "genzoo.evaluation.sample_grid:sample_grid", help="a class-conditional picture grid"
)
METRICS.lazy(
    "moving_object",
    "genzoo.evaluation.moving_object:moving_object",
    help="clips of one object: is it the class asked for, does it move, does it stay itself",
    takes={"task": "generates", "data": "clips"},
)
METRICS.lazy(
    "moving_direction",
    "genzoo.evaluation.moving_direction:moving_direction",
    help="clips whose class says where something goes: do they go there",
    takes={"task": "generates", "data": "clips"},
)
METRICS.lazy(
    "memorisation",
    "genzoo.evaluation.memorisation:report_memorisation",
    help="how near samples come to the training images",
    takes={"task": "generates", "data": "pictures"},
)
METRICS.lazy(
    "reconstruction",
    "genzoo.evaluation.reconstruction:reconstruction",
    help="an autoencoder's PSNR and CIEDE2000, also on held-out pictures",
    takes={"model": ("autoencoder", "token_autoencoder")},
)
METRICS.lazy(
    "control_consistency",
    "genzoo.evaluation.control_consistency:control_consistency",
    help="the control made of samples again, by the measure of its kind: edges, HED, depth, normals, sketch",
    takes={"model": "controlled", "data": "pictures"},
)
METRICS.lazy(
    "control_edges",
    "genzoo.evaluation.control_edges:control_edges",
    help="how well samples follow edges of unseen classes, beside the model without control",
    takes={"model": "controlled", "data": "pictures"},
)
METRICS.lazy(
    "hed_embedding",
    "genzoo.evaluation.hed_embedding:hed_embedding",
    help="HED features of originals and of samples with control and without, in a plane by t-SNE",
    takes={"model": "controlled", "data": "pictures"},
)

_HERE = "genzoo.evaluation.networks"
FEATURES.lazy(
    "inception-2015", f"{_HERE}.inception:build", "Inception v3 of 2015, torch-fidelity's port: FID, sFID"
)
FEATURES.lazy(
    "lite0", f"{_HERE}.lite0:build", "EfficientNet-Lite0 on ImageNet, from a pip package: never FID"
)
FEATURES.lazy(
    "pixels", f"{_HERE}.pixels:build", "the image itself at 16 x 16: no weights, no meaning beyond pixels"
)
FEATURES.lazy("i3d-kinetics400", f"{_HERE}.i3d:build", "I3D TorchScript of StyleGAN-V: FVD")
FEATURES.lazy("video-pixels", f"{_HERE}.pixels:build_video", "16 frames at 8 x 8: no weights")
FEATURES.lazy("clip-vit-b32", f"{_HERE}.clip:build", "OpenAI CLIP ViT-B/32: text and image alignment")
FEATURES.lazy("clip-vit-l14-336", f"{_HERE}.clip:build_large", "OpenAI CLIP ViT-L/14 at 336 pixels: CMMD")
FEATURES.lazy("dinov2-vitl14", f"{_HERE}.dinov2:build", "DINOv2 ViT-L/14, class token: FDD")
FEATURES.lazy("vjepa-vith16-ssv2", f"{_HERE}.vjepa:build", "V-JEPA ViT-H/16 and its probe's pooler: JEDi")
FEATURES.lazy("dino-vits16", f"{_HERE}.timm_models:build_dino", "DINO ViT-S/16: subject similarity")
FEATURES.lazy("timm:", f"{_HERE}.timm_models:build", "timm:NAME with a local weights file")
FEATURES.lazy(
    "torchvision:", f"{_HERE}.torchvision_models:build", "torchvision:NAME with a local weights file"
)
FEATURES.lazy("open_clip:", f"{_HERE}.clip:build_open_clip", "open_clip:NAME with a local weights file")
