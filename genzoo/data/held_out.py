"""Items kept out of training: chosen by what they are, not by where they stand, and checked for overlap."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from torch import Tensor

from genzoo.core.contracts import able
from genzoo.core.contracts.datasets import KnowsPath, pictures_of
from genzoo.core.errors import DataError
from genzoo.core.seeds import mix_seed
from genzoo.core.types import Dataset


def identities(dataset: Dataset) -> list[str]:
    """What tells each item from others: its file, or a hash of its pixels where there is none.

    Clips of one video share its file; twins share their pixels. So neither is divided by a split.
    """
    pictures = pictures_of(dataset)
    files = able(pictures, KnowsPath)
    if files is not None:
        return [os.path.realpath(files.path(index)) for index in range(len(pictures))]
    return [_pixel_hash(pictures.fetch(index)["pixels"]) for index in range(len(pictures))]


def split_by_share(names: Sequence[str], share: float) -> tuple[list[int], list[int]]:
    """Indices to train on, and those held out, about `share` of all; a name's fate depends on itself alone.

    names: of `identities`. Files are named within their common folder, so that a copy of the data elsewhere
    is divided alike. Raises DataError when one of the two is empty.
    """
    common = os.path.commonpath(names) if all(map(os.path.isabs, names)) and len(set(names)) > 1 else ""
    held = [mix_seed("held-out", name.removeprefix(common)) < share * 2**63 for name in names]
    training = [index for index, kept in enumerate(held) if not kept]
    held_out = [index for index, kept in enumerate(held) if kept]
    if not training or not held_out:
        empty = "training" if not training else "the held-out part"
        raise DataError(
            f"nothing is left for {empty}",
            where="held_out.share",
            why=f"{share:g} of {len(names)} items ({len(set(names))} different ones) gave {len(held_out)}",
            fix="choose another share, or name data of its own in held_out.data",
        )
    return training, held_out


def require_disjoint(training: Sequence[str], held_out: Sequence[str]) -> None:
    """Raise DataError, naming three, when items are in both."""
    known = set(training)
    both = list(dict.fromkeys(name for name in held_out if name in known))
    if both:
        shown = ", ".join(both[:3]) + (" ..." if len(both) > 3 else "")
        raise DataError(
            f"{len(both)} held-out item(s) are trained on, too",
            where="held_out.data",
            why=shown,
            fix="name a split or folder that shares nothing with data, or use held_out.share",
        )


def _pixel_hash(pixels: Tensor) -> str:
    return hashlib.blake2b(pixels.contiguous().numpy().tobytes(), digest_size=16).hexdigest()
