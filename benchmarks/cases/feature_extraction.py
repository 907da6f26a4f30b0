"""What share of feature extraction is not the network: decoding, loading, statistics."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.registry import Options, case
from genzoo.data.picture_sets import open_pictures
from genzoo.evaluation.batches import batches
from genzoo.evaluation.extraction import extract
from genzoo.evaluation.features import FeatureNetwork
from genzoo.evaluation.networks.inception import SpatialTap

BATCH = 32


def random_inception() -> FeatureNetwork:
    """torch-fidelity's Inception with random weights: the time is that of the real one."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Random(FeatureExtractorInceptionV3):  # type: ignore[misc]
        def load_state_dict(self, state: Any) -> None:  # type: ignore[override]
            """Keep the random weights."""

    with tempfile.NamedTemporaryFile(suffix=".pth") as empty:
        torch.save({}, empty.name)
        module = Random("random", ["2048", "logits_unbiased"], feature_extractor_weights_path=empty.name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tap = SpatialTap(module.to(device), device)
    return FeatureNetwork("inception-2015, random", tap, ("pool", "spatial", "logits"), "-", "random")


def write_pictures(folder: Path, count: int, side: int) -> None:
    """Smooth pictures with a little noise: PNG files of about the size that photographs have."""
    random = np.random.default_rng(0)
    for index in range(count):
        small = random.integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8)
        image = np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC), np.int16)
        noisy = np.clip(image + random.integers(-6, 7, image.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{index:06d}.png")


@case("feature_extraction")
def shares(options: Options) -> list[dict[str, Any]]:
    """Inception features of `images` (96) PNG files of `side` (256): time outside the network."""
    count, side = (
        int(options.settings.get(key, default)) for key, default in (("images", 96), ("side", 256))
    )
    network = random_inception()
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder), count, side)
        source = open_pictures(folder)
        extract(batches(source, batch_size=BATCH, indices=range(BATCH)), network, statistics=("pool",))
        data = batches(source, batch_size=BATCH)
        found = extract(data, network, statistics=("pool", "spatial"), rows=("pool", "logits"))
    total = sum(found.seconds.values())
    outside = 1 - found.seconds["network"] / total
    shares = {f"{stage}_seconds": seconds for stage, seconds in found.seconds.items()}
    return [
        {
            "name": f"{count} x {side} px",
            **shares,
            "images_per_second": count / total,
            "outside": outside,
            "target": 0.05,
        }
    ]
