"""Images to be judged: a folder, an npz or npy file, or arrays; decoded ahead in threads and hashed."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from genzoo.core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.core.types import Dataset

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
Prepare = Callable[[Image.Image], "Tensor"]


class ImageSet(Protocol):
    """Numbered images; `read` gives uint8 (h, w, 3), `name` is for messages."""

    def __len__(self) -> int: ...
    def read(self, index: int) -> np.ndarray[Any, Any]: ...
    def name(self, index: int) -> str: ...
    def content_hash(self) -> str:
        """The same for the same pixels or files in the same order, on any machine."""


class FolderImages:
    """Every image file below a folder, in the order of its relative path."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # a folder that `genzoo sample` wrote also holds an overview
        overview = root / "grid.png" if (root / "samples.json").exists() else None
        found = (path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
        self.files = sorted(path for path in found if path != overview)
        if not self.files:
            raise DataError(
                f"there is no image below {root}", fix=f"supported: {', '.join(sorted(SUFFIXES))}"
            )

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return self.files[index].relative_to(self.root).as_posix()

    def read(self, index: int) -> np.ndarray[Any, Any]:
        try:
            with Image.open(self.files[index]) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise DataError(f"{self.files[index]} is not a readable image", why=str(error)) from error

    def content_hash(self) -> str:
        digest = hashlib.sha256()
        for index, path in enumerate(self.files):
            digest.update(f"{self.name(index)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()


class ArrayImages:
    """uint8 images (n, h, w, c) in memory, c = 1 or 3."""

    def __init__(self, array: np.ndarray[Any, Any], source: str = "array") -> None:
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] not in (1, 3) or not len(array):
            raise DataError(f"{source} must hold uint8 images (n, h, w, 3), got {array.dtype} {array.shape}")
        self.array, self.source = array, source

    def __len__(self) -> int:
        return len(self.array)

    def name(self, index: int) -> str:
        return f"{self.source}[{index}]"

    def read(self, index: int) -> np.ndarray[Any, Any]:
        image = self.array[index]
        return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image

    def content_hash(self) -> str:
        digest = hashlib.sha256(str(self.array.shape).encode())
        digest.update(np.ascontiguousarray(self.array).data)
        return digest.hexdigest()


class FirstImages:
    """The first `num` images of another set."""

    def __init__(self, images: ImageSet, num: int) -> None:
        self.images, self.num = images, num

    def __len__(self) -> int:
        return self.num

    def name(self, index: int) -> str:
        return self.images.name(index)

    def read(self, index: int) -> np.ndarray[Any, Any]:
        return self.images.read(index)

    def content_hash(self) -> str:
        return hashlib.sha256(f"{self.num} of {self.images.content_hash()}".encode()).hexdigest()


class DatasetImages:
    """The images of a data set, without augmentation."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        return f"item {index}"

    def read(self, index: int) -> np.ndarray[Any, Any]:
        image = to_uint8(self.dataset.fetch(index)["pixels"][None])[0]
        return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image

    def content_hash(self) -> str:
        return hashlib.sha256(f"data set {self.dataset.fingerprint}".encode()).hexdigest()


def open_images(source: str | Path | np.ndarray[Any, Any] | Tensor | ImageSet) -> ImageSet:
    """A folder, .npz (arr_0), .npy, uint8 (n, h, w, c), tensor (n, c, h, w) in [-1, 1], or an ImageSet."""
    if isinstance(source, np.ndarray):
        return ArrayImages(source)
    if torch.is_tensor(source):
        return ArrayImages(to_uint8(source))
    if not isinstance(source, str | Path):
        return source
    path = Path(source)
    if path.is_dir():
        return FolderImages(path)
    if not path.exists():
        raise DataError(f"there is no file or folder {path}")
    return ArrayImages(read_array(path), path.name)


def read_array(path: Path) -> np.ndarray[Any, Any]:
    """The images of an .npz (its arr_0) or .npy file. Raises DataError when it holds none."""
    try:
        content = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path} is neither a folder of images nor an npz or npy file", why=str(error)
        ) from error
    if isinstance(content, np.ndarray):
        return content
    if "arr_0" not in content:
        raise DataError(
            f"{path} holds no images (arr_0)", why=f"it has {', '.join(content.files) or 'nothing'}"
        )
    images: np.ndarray[Any, Any] = content["arr_0"]
    return images


def to_uint8(pixels: Tensor) -> np.ndarray[Any, Any]:
    """Samples in [-1, 1] to 0..255, rounded as DiT does: (n, c, h, w) -> uint8 (n, h, w, c)."""
    scaled = (pixels.detach().cpu().float() * 127.5 + 128).clamp(0, 255)
    return scaled.to(torch.uint8).movedim(1, -1).numpy()


def batches(
    images: ImageSet,
    *,
    batch_size: int,
    indices: Sequence[int] | None = None,
    prepare: Prepare | None = None,
    workers: int = 4,
) -> Iterator[tuple[Tensor, list[int]]]:
    """Batches in order with the indices of their constant images; decoding runs ahead in threads.

    Without `prepare`: uint8 (b, 3, h, w), and mixed sizes raise DataError. With it: its outputs stacked.
    """
    order = range(len(images)) if indices is None else indices
    parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    expected: list[tuple[int, ...]] = []

    def load(part: Sequence[int]) -> tuple[Tensor, list[int]]:
        arrays = [images.read(index) for index in part]
        constant = [index for index, array in zip(part, arrays, strict=True) if array.min() == array.max()]
        if prepare is not None:
            return torch.stack([prepare(Image.fromarray(array)) for array in arrays]), constant
        for index, array in zip(part, arrays, strict=True):
            _same_size(expected, array.shape, images.name(index))
        return torch.from_numpy(np.stack(arrays)).movedim(-1, 1), constant

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        waiting: deque[Future[tuple[Tensor, list[int]]]] = deque()
        for part in parts:
            waiting.append(pool.submit(load, part))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _same_size(expected: list[tuple[int, ...]], shape: tuple[int, ...], name: str) -> None:
    if not expected:
        expected.append(shape)
    if shape != expected[0]:
        sizes = [f"{height} x {width}" for height, width, _ in (expected[0], shape)]
        raise DataError(
            f"images have mixed sizes: {name} is {sizes[1]}, others are {sizes[0]}",
            why="this feature network resizes whole batches, and resizing them first would change the number",
            fix="bring all images to one size, and state how",
        )
