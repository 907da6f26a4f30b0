"""Pictures as feature networks see them, against what published code makes of the same pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden.manifest import golden_cases, golden_root, golden_tensors
from PIL import Image
from torch import Tensor

from genzoo.evaluation.networks.preprocess import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    resize_crop_normalise,
    square_normalise,
    stretch_normalise,
)

SET = "evaluation"
if not (golden_root() / SET / "manifest.json").is_file():
    pytest.skip("this folder of golden sets has no preprocessing", allow_module_level=True)
CASES = golden_cases(SET, "preprocessing")


def picture(height: int, width: int) -> Image.Image:
    """By the manifest's formula."""
    y, x = np.mgrid[:height, :width]
    checks = ((x // 9 + y // 11) % 2) * 60
    channels = [(x * (3 + c) + 2 * y + x * y // (7 + c) + checks) % 256 for c in range(3)]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


def every(pixels: Tensor, step: int) -> Tensor:
    return pixels.movedim(0, -1)[::step, ::step]


def of_fdd(image: Image.Image) -> Tensor:
    return every(stretch_normalise(224, mean=IMAGENET_MEAN, std=IMAGENET_STD)(image), 13)


def of_cmmd(image: Image.Image) -> Tensor:
    return every(square_normalise(336, mean=CLIP_MEAN, std=CLIP_STD)(image), 19)


def of_clip(image: Image.Image) -> Tensor:
    levels = resize_crop_normalise(resize=224, crop=224, mean=(0, 0, 0), std=(1, 1, 1))(image)
    return every((levels * 255).round().to(torch.uint8), 13)


def of_inception(image: Image.Image) -> Tensor:
    theirs = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow")
    pixels = torch.from_numpy(np.array(image)).movedim(-1, 0)[None].float()
    resized = theirs.interpolate_bilinear_2d_like_tensorflow1x(pixels, size=(299, 299), align_corners=False)
    return every(((resized - 128) / 128)[0], 13)


OURS = {
    "dinov2_dgm_eval_224": (of_fdd, 1e-5),
    "cmmd_clip_336": (of_cmmd, 1e-5),
    "clean_fid_clip_224": (of_clip, 0),
    "inception_tf1_299": (of_inception, 1e-4),
}
# other numbers under the same names, which are not offered
NOT_OFFERED = {
    "dinov2_torch_fidelity_224",
    "clean_fid_299",
    "dinov2_edm2_torch_224",
    "dinov2_dgm_eval_clean_224",
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_pictures_as_networks_see_them(case) -> None:
    stored = golden_tensors(SET, "preprocessing", case["name"])
    assert set(case["keys"]) == {*OURS, *NOT_OFFERED}
    image = picture(case["config"]["height"], case["config"]["width"])
    for name, (ours, tolerance) in OURS.items():
        torch.testing.assert_close(ours(image), stored[name], rtol=0, atol=tolerance, msg=name)
    for other in NOT_OFFERED - {"clean_fid_299"}:
        assert (of_fdd(image) - stored[other]).abs().mean() > 1e-4, other
