"""CPU time of listing 200,000 files, and of an item from files, tar shards and latents."""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder as TorchvisionFolder

from benchmarks.registry import Options, case
from genzoo.api.preparation.shards import prepare_shards
from genzoo.data.cached_latents import CachedLatents
from genzoo.data.image_folder import ImageFolder
from genzoo.data.image_listing import list_images
from genzoo.data.image_shards import image_shards
from genzoo.data.latent_cache import build_latent_cache
from genzoo.pretrained.codecs import IdentityCodec

EACH = 200  # files of a class


@case("scale_input")
def scale_input(options: Options) -> list[dict[str, Any]]:
    """Listing beside torchvision's ImageFolder; an item of files, tar shards and latents beside webdataset's.

    CPU time of this process, the least of the repeats. Settings: folders (of 200 empty files each), pictures.
    """
    folders, pictures = (int(options.settings.get(k, v)) for k, v in (("folders", 1000), ("pictures", 200)))
    rows = []
    for names, make in (("numbered", numbered), ("hexadecimal", hexadecimal)):
        with tempfile.TemporaryDirectory() as root:
            fill(Path(root), folders, make)
            rows.append(listing(names, Path(root), folders * EACH, options.repeats))
    with tempfile.TemporaryDirectory() as root:
        rows += items(Path(root), pictures, options.repeats)
    return rows


def numbered(number: int) -> str:
    """As ImageNet names its validation files."""
    return f"{number:08d}.JPEG"


def hexadecimal(number: int) -> str:
    """Random digits and letters."""
    return hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest() + ".JPEG"


def fill(root: Path, folders: int, name: Callable[[int], str]) -> None:
    """Empty files in class folders."""
    for folder in range(folders):
        place = root / f"n{folder:08d}"
        place.mkdir()
        for number in range(folder * EACH, (folder + 1) * EACH):
            os.close(os.open(place / name(number), os.O_CREAT | os.O_WRONLY))


def listing(names: str, root: Path, files: int, repeats: int) -> dict[str, Any]:
    """Microseconds a file, in turn."""
    ours, theirs = least([lambda: list_images(root), lambda: TorchvisionFolder(str(root))], repeats)
    assert len(list_images(root).files) == files
    scale = 1e6 / files
    return {
        "name": f"listing {names}",
        "files": files,
        "genzoo_us": ours * scale,
        "torchvision_us": theirs * scale,
        "ratio": ours / theirs,
        "target": 1.5 if names == "numbered" else 3.5,
    }


def items(root: Path, count: int, repeats: int) -> Iterator[dict[str, Any]]:
    """Milliseconds of CPU an item, decoded, cut to 256 x 256 and normalised."""
    write(root, count)
    loose, packed = ImageFolder(root / "loose", image_size=256), image_shards(root / "shards", image_size=256)
    cut = [transforms.Resize(256), transforms.CenterCrop(256)]
    cut += [transforms.ToTensor(), transforms.Normalize(0.5, 0.5)]
    theirs = TorchvisionFolder(str(root / "loose"), transforms.Compose(cut))
    small = ImageFolder(root / "loose", image_size=32, horizontal_flip=False)
    build_latent_cache(small, IdentityCodec(), root / "latents", dtype="float16")
    latents = CachedLatents(small, root / "latents", dtype="float16")
    latents.bind_codec(IdentityCodec())
    order = np.random.default_rng(0).permutation(count).tolist()
    works: dict[str, Callable[[], object]] = {
        "image_folder": lambda: [loose.fetch(i) for i in order],
        "torchvision ImageFolder": lambda: [theirs[i] for i in order],
        "image_shards, random order": lambda: [packed.fetch(i) for i in order],
        "webdataset, in order": lambda: sum(1 for _ in streamed(root, theirs.transform)),
        "latents 32 x 32, float16": lambda: [latents.fetch(i) for i in order],
    }
    for name, seconds in zip(works, least(list(works.values()), repeats), strict=True):
        yield {"name": f"item of {name}", "items": count, "milliseconds": seconds * 1e3 / count}


def write(root: Path, count: int) -> None:
    """Smooth JPEGs of 500 x 375 in two classes, loose and in two shards."""
    random = np.random.default_rng(0)
    (root / "shards").mkdir()
    for number in range(count):
        place = root / "loose" / str(number % 2)
        place.mkdir(parents=True, exist_ok=True)
        small = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        image = Image.fromarray(small).resize((500, 375), Image.Resampling.BICUBIC)
        image.save(place / f"{number:05d}.jpg", quality=92)
        with tarfile.open(root / "shards" / f"{number * 2 // count}.tar", "a") as archive:
            archive.add(place / f"{number:05d}.jpg", f"{number:05d}.jpg")
    prepare_shards(root / "shards")


def streamed(root: Path, transform: Any) -> Iterator[Any]:
    """The shards as webdataset reads them, one after another."""
    import webdataset

    urls = [str(path) for path in sorted((root / "shards").glob("*.tar"))]
    data = webdataset.WebDataset(urls, shardshuffle=False).decode("pil")
    return (transform(sample["jpg"]) for sample in data)


def least(works: list[Callable[[], object]], repeats: int) -> list[float]:
    """CPU seconds of each, in turn; the least of all rounds."""
    best = [float("inf")] * len(works)
    for _ in range(repeats):
        for place, work in enumerate(works):
            started = time.process_time()
            work()
            best[place] = min(best[place], time.process_time() - started)
    return best
