"""Feature extraction: what share of the time is not the network (loading, decoding, statistics).

PNG files are written, read and judged as `genzoo evaluate` does it. `--network inception-2015 --weights FILE`
times the network of FID; without weights the same architecture is timed with random ones.

    python benchmarks/cases/feature_extraction.py [--images 128] [--side 256] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from genzoo.evaluation.extraction import extract
from genzoo.evaluation.features import FeatureNetwork, build_network
from genzoo.evaluation.images import batches, open_images


def random_inception() -> FeatureNetwork:
    """torch-fidelity's Inception with random weights, tapped as the real one."""
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    from genzoo.evaluation.networks.inception import SpatialTap

    kind = theirs.FeatureExtractorInceptionV3
    with tempfile.TemporaryDirectory() as folder:
        torch.save({}, Path(folder) / "empty.pth")
        load = kind.load_state_dict
        kind.load_state_dict = lambda self, state: None
        try:
            module = kind(
                "random",
                ["2048", "logits_unbiased"],
                feature_extractor_weights_path=str(Path(folder) / "empty.pth"),
            )
        finally:
            kind.load_state_dict = load
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tap = SpatialTap(module.to(device), device)
    return FeatureNetwork("inception (random weights)", tap, ("pool", "spatial", "logits"), "-", "random")


def write_pictures(folder: Path, count: int, side: int) -> None:
    """Smooth pictures with noise: PNG files of about the size of photographs."""
    random = np.random.default_rng(0)
    for index in range(count):
        small = random.integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8)
        image = np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC), np.int16)
        noisy = np.clip(image + random.integers(-6, 7, image.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{index:06d}.png")


def run(
    images: int = 128,
    side: int = 256,
    network: FeatureNetwork | None = None,
    batch_size: int = 32,
    workers: int = 4,
) -> dict[str, Any]:
    """Shares of the time by stage; loading counts only where the network waited for it."""
    network = network or random_inception()
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder), images, side)
        source = open_images(folder)
        outputs = [name for name in ("pool", "spatial") if name in network.outputs]
        kept = [name for name in ("pool", "logits") if name in network.outputs]
        # once to warm up
        warm = batches(source, batch_size=batch_size, indices=range(batch_size), prepare=network.prepare)
        extract(warm, network, statistics=outputs)
        data = batches(source, batch_size=batch_size, prepare=network.prepare, workers=workers)
        found = extract(data, network, statistics=outputs, rows=kept)
        for name in outputs:
            found.statistics[name].gaussian()
    total = sum(found.seconds.values())
    return {
        "case": "feature_extraction",
        "network": network.name,
        "images": images,
        "side": side,
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "images per second": found.count / total,
        "seconds": found.seconds,
        "share outside the network": 1 - found.seconds["network"] / total,
    }


def main() -> None:
    """Print the result; with --json also write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--network")
    parser.add_argument("--weights")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = (
        build_network(arguments.network, weights=arguments.weights, device=device)
        if arguments.network
        else None
    )
    text = json.dumps(run(arguments.images, arguments.side, network), indent=2)
    print(text)
    if arguments.json:
        with open(arguments.json, "w") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
