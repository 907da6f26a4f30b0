"""Those pictures of a collection whose captions mean what is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genzoo.core.errors import DataError
from genzoo.core.files import write_file
from genzoo.core.reading import shown
from genzoo.data.array_files import read_array
from genzoo.data.captioned import Captioned
from genzoo.data.image_decode import decode_image, read_file
from genzoo.pretrained.clip import Clip

# bits of 256 in which two thumbnails of the same picture may differ
NEARLY_EQUAL = 8


@dataclass
class Selection:
    """chosen: (picture, similarity), best first.   Counts say why others were left out."""

    chosen: list[tuple[Captioned, float]] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    num_similar: int = 0
    num_unreadable: int = 0
    num_small: int = 0
    num_repeated: int = 0


def similarities(
    encoder: Clip, captions: Sequence[str], queries: Sequence[str], *, cache: Path | None = None
) -> Tensor:
    """(n,): the cosine of each caption with the nearest query.

    cache: a folder that keeps the captions' features (.npy, float16) for other queries.
    """
    rows = encoder.encode(captions) if cache is None else _remembered(encoder, captions, cache)
    return (rows @ encoder.encode(queries).T).amax(dim=1)


def _remembered(encoder: Clip, captions: Sequence[str], cache: Path) -> Tensor:
    """The captions' features from the cache, made and kept there first if need be."""
    digest = hashlib.sha256("\0".join(captions).encode()).hexdigest()[:16]
    file = cache / f"captions-{digest}-{encoder.tag}.npy"
    kept = _kept(file, len(captions))
    if kept is not None:
        return kept
    rows = encoder.encode(captions).half()
    write_file(file, lambda part: np.save(part, rows.numpy()))
    return rows.float()  # rounded: the same numbers as those that are kept


def select(
    pictures: Sequence[Captioned],
    scores: Tensor,
    *,
    num: int,
    threshold: float | None,
    min_size: int = 256,
) -> Selection:
    """The `num` best pictures above a similarity, readable, large enough, and each only once."""
    found = Selection()
    seen_bytes: set[str] = set()
    thumbnails: list[Tensor] = []
    if threshold is not None:
        found.num_similar = int((scores > threshold).sum())
    for index in scores.argsort(descending=True, stable=True).tolist():
        score = float(scores[index])
        if len(found.chosen) == num or (threshold is not None and score <= threshold):
            break
        try:
            content = read_file(pictures[index].path)
            image = decode_image(content, where=shown(pictures[index].path))
        except DataError:
            found.num_unreadable += 1
            continue
        if min(image.size) < min_size:
            found.num_small += 1
            continue
        digest, thumbnail = hashlib.sha256(content).hexdigest(), _thumbnail(image)
        if digest in seen_bytes or any(int((thumbnail != t).sum()) <= NEARLY_EQUAL for t in thumbnails):
            found.num_repeated += 1
            continue
        seen_bytes.add(digest)
        thumbnails.append(thumbnail)
        found.chosen.append((pictures[index], score))
        found.contents.append(content)
    return found


def _thumbnail(image: Image.Image) -> Tensor:
    """(256,) bool: where a 16 x 16 picture is brighter than its mean; survives resizing and compression."""
    small = np.asarray(image.convert("L").resize((16, 16), Image.Resampling.BILINEAR), dtype=np.float32)
    return torch.from_numpy(small > small.mean()).flatten()


def _kept(file: Path, num: int) -> Tensor | None:
    try:
        rows = read_array(file)
    except DataError:
        return None
    return torch.tensor(rows).float() if rows.ndim == 2 and len(rows) == num else None
