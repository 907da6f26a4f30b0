"""Tiny videos whose frames tell their number, made in a few milliseconds each."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

WIDTH, HEIGHT, STEP = 32, 24, 15


def level(number: int) -> int:
    """The grey that frame `number` is filled with; frames 0 to 15 differ."""
    return 10 + STEP * (number % 16)


def number_of(pixels: Any) -> int:
    """The frame that a filled picture, 0 to 255, shows."""
    return round((float(np.asarray(pixels, dtype=np.float64).mean()) - 10) / STEP)


def video(
    path: Path,
    frames: int = 12,
    *,
    codec: str = "mpeg4",
    size: tuple[int, int] = (WIDTH, HEIGHT),
    times: Sequence[int] | None = None,
    rotation: int = 0,
    pix_fmt: str = "yuv420p",
    pictures: Sequence[np.ndarray] | None = None,
) -> Path:
    """A video of grey frames, 10 a second with a keyframe at least every 5.

    times: of the frames in milliseconds.   pictures: (h, w, 3) uint8 to show in place of greys.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    base = Fraction(1, 1000) if times else Fraction(1, 10)
    options = {} if codec in ("gif", "mjpeg", "ffv1") else {"g": "5", "bf": "2"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.time_base = stream.codec_context.time_base = base
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(frames):
            grey = np.full((size[1], size[0], 3), level(number), np.uint8)
            frame = av.VideoFrame.from_ndarray(grey if pictures is None else pictures[number], format="rgb24")
            frame.pts, frame.time_base = times[number] if times else number, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def frame_folder(path: Path, frames: int = 12, *, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """A folder of grey pictures 0.png, 1.png, ..., 10.png."""
    path.mkdir(parents=True, exist_ok=True)
    for number in range(frames):
        Image.new("RGB", size, (level(number),) * 3).save(path / f"{number}.png")
    return path
