"""One clip as a file or a folder: frames, GIF and MP4."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageSequence

from genzoo.core.errors import DataError
from genzoo.core.files import write_folder
from genzoo.core.reading import read_bytes, reason, shown
from genzoo.pictures.animation import FPS, Animation, own_size, require_pyav
from genzoo.pictures.pixels import png, to_pil

MAX_BYTES = 4 * 1024**3  # of a film
# playlists and scripts, which FFmpeg also takes for films, would have it read other files and addresses
_FILM = {"format_whitelist": "mov,mp4", "protocol_whitelist": "none"}

if TYPE_CHECKING:
    from torch import Tensor


def write_clip(path: Path, clip: Tensor, *, fps: float = FPS) -> Path:
    """One clip as a .gif or .mp4, pixel for pixel as large, or without a suffix as a folder of frames.

    clip: (f, c, h, w) uint8.
    """
    if not path.suffix:
        return write_frames(path, clip)
    return Animation([to_pil(frame) for frame in clip], fps).save(path)


def read_clip(path: Path) -> Tensor:
    """What `write_clip` wrote: (f, c, h, w) uint8, of films with three channels."""
    if path.is_dir():
        return read_frames(path)
    if path.suffix == ".gif":
        with _decoding(path), Image.open(_content(path), formats=["GIF"]) as picture:
            frames = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)]
    else:
        with _decoding(path), require_pyav().open(_content(path), options=_FILM) as film:
            width, height = own_size(film.metadata, _stored_size(film))
            frames = [frame.to_ndarray(format="rgb24")[:height, :width] for frame in film.decode(video=0)]
    return torch.stack([torch.from_numpy(frame).permute(2, 0, 1) for frame in frames])


def _stored_size(film: Any) -> tuple[int, int]:
    coded = film.streams.video[0].codec_context
    return coded.width, coded.height


def write_frames(folder: Path, clip: Tensor) -> Path:
    """A folder of 000.png, 001.png, ..., complete or absent; one that is there stays.

    clip: (f, c, h, w) uint8.
    """
    frames = {f"{index:03d}.png": png(to_pil(frame)) for index, frame in enumerate(clip)}
    return write_folder(folder, frames, existing="keep")


def read_frames(folder: Path) -> Tensor:
    """What `write_frames` wrote: (f, c, h, w) uint8."""
    return torch.stack(
        [read_picture(path) for path in sorted(folder.glob("*.png"), key=lambda path: int(path.stem))]
    )


def read_picture(path: Path) -> Tensor:
    """A PNG that genzoo wrote: (c, h, w) uint8."""
    with _decoding(path), Image.open(_content(path), formats=["PNG"]) as picture:
        array = np.array(picture)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1)


@contextlib.contextmanager
def _decoding(path: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError("this picture cannot be decoded", where=shown(path), why=reason(error)) from error


def _content(path: Path) -> io.BytesIO:
    # somebody may have put a pipe in the place of what was written
    return io.BytesIO(read_bytes(path, max_bytes=MAX_BYTES))
