"""What share of feature extraction is not the network: decoding, resizing, statistics, kept rows."""

from __future__ import annotations

import tempfile
import time
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
from genzoo.evaluation.networks.lite0 import build as build_lite0

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


def random_lite0() -> FeatureNetwork:
    """EfficientNet-Lite0 with random weights, for the same reason."""
    import timm

    with tempfile.TemporaryDirectory() as folder:
        torch.save(timm.create_model("tf_efficientnet_lite0").state_dict(), f"{folder}/random.pth")
        return build_lite0(f"{folder}/random.pth", "cuda" if torch.cuda.is_available() else "cpu")


NETWORKS = {"inception": (random_inception, 96), "lite0": (random_lite0, 2048)}


@case("feature_extraction")
def shares(options: Options) -> list[dict[str, Any]]:
    """Features of `images` PNG files of `side` (256) by `networks` (inception, lite0): time outside."""
    side, rows = int(options.settings.get("side", 256)), []
    for name in options.settings.get("networks", ",".join(NETWORKS)).split(","):
        build, usual = NETWORKS[name]
        count = int(options.settings.get("images", usual))
        with tempfile.TemporaryDirectory() as folder:
            write_pictures(Path(folder), count, side)
            rows.append({"name": f"{name}, {count} x {side} px"} | share(build(), folder))
    return rows


def share(network: FeatureNetwork, folder: str) -> dict[str, Any]:
    """Seconds waited for each stage, and CPU seconds: reading alone, and all of it."""
    source = open_pictures(folder)
    kept = {"statistics": {"pool", "spatial"}, "rows": {"pool", "logits"}}
    kept = {what: sorted(wanted & set(network.outputs)) for what, wanted in kept.items()}
    read = {"batch_size": BATCH, "prepare": network.prepare}
    extract(batches(source, indices=range(BATCH), **read), network, **kept)
    reading = time.process_time()
    for _ in batches(source, **read):
        pass
    reading, whole = time.process_time() - reading, time.process_time()
    found = extract(batches(source, **read), network, **kept)
    whole, total = time.process_time() - whole, sum(found.seconds.values())
    return {
        **{f"{stage}_seconds": seconds for stage, seconds in found.seconds.items()},
        "images_per_second": len(source) / total,
        "outside": 1 - found.seconds["network"] / total,
        "cpu_seconds": whole,
        "cpu_seconds_of_reading": reading,
        "target": 0.05,
    }
