"""What a user asks for, as tensors: labels, control pictures, and pictures to change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from genzoo.autoregression.sampling import GivenTokens, keep_masks
from genzoo.core.contracts import able
from genzoo.core.contracts.parts import HasFingerprint
from genzoo.core.errors import ShapeError, UsageError
from genzoo.data.control_files import require_extractor
from genzoo.data.image_decode import load_image
from genzoo.data.transforms import adm_centre_crop, to_tensor
from genzoo.families.car.vqvae.codec import VQVAECodec

Pictures: TypeAlias = str | Path | Tensor | Sequence[str | Path]
"""A path, several, or pixels (n, 3, h, w), uint8 or in [-1, 1]."""
REDRAWS = ("inside", "outside")


def read_pictures(given: Pictures, num: int, size: tuple[int, int], *, what: str) -> Tensor:
    """Pictures as (num, 3, h, w) in [-1, 1]; one serves for all. Files are cropped to the size.

    Raises DataError for a file that cannot be read, UsageError for another number, ShapeError for another
    size.
    """
    if isinstance(given, Tensor):
        pixels = given[None] if given.ndim == 3 else given
        pixels = pixels.float() / 127.5 - 1 if pixels.dtype == torch.uint8 else pixels.float()
    else:
        paths = [given] if isinstance(given, (str, Path)) else list(given)
        for folder in (Path(path) for path in paths if Path(path).is_dir()):
            raise UsageError(
                f"{folder} is a folder, and {what} is a picture, or one for each sample",
                fix=f"name pictures in it: {what}={folder / 'NAME.png'}, or {what}=[A.png,B.png]",
            )
        pictures = [adm_centre_crop(load_image(Path(path)), size) for path in paths]
        pixels = torch.stack([to_tensor(picture) for picture in pictures]) if pictures else torch.empty(0)
    if len(pixels) not in (1, num):
        raise UsageError(
            f"{len(pixels)} pictures as {what} for {num} samples", fix="pass one, or one for each"
        )
    if tuple(pixels.shape[1:]) != (3, *size):
        raise ShapeError(f"{what} is {tuple(pixels.shape[1:])}; {(3, *size)} is expected")
    return pixels.expand(num, -1, -1, -1)


def redraw_mask(region: str, redraw: str, num: int, size: tuple[int, int]) -> Tensor:
    """Which pixels to draw anew, (num, h, w) bool: in-painting "inside" the box, out-painting "outside".

    region: "left,top,right,bottom" as shares of the picture, such as "0,0,0.5,1" for its left half.
    """
    if redraw not in REDRAWS:
        raise UsageError(f"redraw is {redraw!r}", fix=f"use one of {', '.join(REDRAWS)}")
    try:
        left, top, right, bottom = (float(share) for share in region.split(","))
    except (ValueError, AttributeError):
        left = top = right = bottom = -1.0
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise UsageError(
            f"region is {region!r}", fix='write left,top,right,bottom as shares of the picture: "0,0,0.5,1"'
        )
    height, width = size
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = True
    return (inside if redraw == "inside" else ~inside).expand(num, -1, -1)


def given_tokens(codec: VQVAECodec, image: Tensor, redraw: Tensor) -> GivenTokens:
    """The tokens of a picture, to keep where it is not drawn anew.

    image: (b, 3, h, w) in [-1, 1].   redraw: (b, h, w) bool. A token covers the more of the picture the
    coarser its scale; it is kept if at least half of that is, so the coarsest follow whichever part is
    larger.
    """
    ids = codec.tokens(codec.moments(image))
    return GivenTokens(ids, keep_masks(~redraw, codec.patch_nums))


def chosen_control(
    num: int,
    control: Pictures | None,
    source: Pictures | None,
    extract: Callable[[Tensor], Tensor] | None,
    size: tuple[int, int],
) -> Tensor:
    """The control of every sample, (num, 3, h, w) in [-1, 1].

    control: extracted already; a file that says by whom must name `extract`.   source: pictures that
    `extract` extracts it from. One of both is given.
    """
    if control is not None and source is not None:
        raise UsageError("control and control_from were given", fix="give one of them")
    if control is not None:
        known = able(extract, HasFingerprint)
        if known is not None and not isinstance(control, Tensor):
            for path in [control] if isinstance(control, (str, Path)) else control:
                require_extractor(Path(path), known)
        return read_pictures(control, num, size, what="control")
    assert source is not None
    if extract is None:
        raise UsageError("this task has no extractor", fix="set task.control=canny, or give control=...")
    pictures = read_pictures(source, num, size, what="control_from")
    is_shared = pictures.stride(0) == 0
    return extract(pictures[:1]).expand(num, -1, -1, -1) if is_shared else extract(pictures)
