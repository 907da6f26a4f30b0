"""Clips that move: animations and films of many side by side, and contact sheets of their frames."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genzoo.core.errors import MissingDependencyError, ShapeError, UsageError
from genzoo.core.files import write_file
from genzoo.pictures.gif import encode_gif
from genzoo.pictures.grid import OVERVIEW, Grid, make_grid

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

FPS = 8.0
SIZE_KEY, SIZE = "description", "genzoo:size"
FPS_MAX = 1000.0


@dataclass(frozen=True)
class Animation:
    """Frames of equal size, shown `fps` a second; a notebook plays them, `save` writes them.

    comment: what the file says of itself.
    """

    frames: list[Image]
    fps: float = FPS
    comment: str = ""

    def __post_init__(self) -> None:
        check_fps(self.fps)

    def gif(self) -> bytes:
        """An endless GIF; grey frames are exact, of coloured ones it keeps 256 colours each."""
        # GIF counts in hundredths of a second, and players slow down what is shorter than two
        return encode_gif(self.frames, hundredths=int(100 // min(self.fps, 50.0)), comment=self.comment)

    def mp4(self) -> bytes:
        """H.264 in an MP4. Raises MissingDependencyError without PyAV (extra `video`).

        Its colour needs even sizes: odd ones have their last column or row twice, and the file says how large
        the frames are (`own_size`), so that genzoo reads them back without.
        """
        av = require_pyav()
        size = self.frames[0].size
        width, height = (side + side % 2 for side in size)
        buffer = io.BytesIO()
        with av.open(buffer, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=Fraction(self.fps).limit_denominator(1000))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.options = {"crf": "16"}
            container.metadata["comment"] = self.comment
            if (width, height) != size:
                container.metadata[SIZE_KEY] = f"{SIZE} {size[0]}x{size[1]}"
            for frame in self.frames:
                array = np.asarray(frame.convert("RGB"))
                edge = ((0, height - frame.height), (0, width - frame.width), (0, 0))
                picture = av.VideoFrame.from_ndarray(np.pad(array, edge, mode="edge"), format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
        return buffer.getvalue()

    def save(self, path: str | Path) -> Path:
        """Write .gif or .mp4, in one step; the suffix decides."""
        writers = {".gif": self.gif, ".mp4": self.mp4}
        target = Path(path)
        if target.suffix.lower() not in writers:
            raise UsageError(f"{target.name} is no kind of animation", fix="name it .gif or .mp4")
        return write_file(target, writers[target.suffix.lower()]())

    def _repr_html_(self) -> str:
        return f'<img src="data:image/gif;base64,{base64.b64encode(self.gif()).decode()}">'


def own_size(metadata: Mapping[str, str], stored: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the frames in a film: as stored, but for what was added to make them even."""
    found = re.fullmatch(rf"{SIZE} (\d+)x(\d+)", metadata.get(SIZE_KEY, ""))
    if found is None:
        return stored
    own = int(found[1]), int(found[2])
    added = [there - here for there, here in zip(stored, own, strict=True)]
    return own if all(one in (0, 1) for one in added) else stored


def check_fps(fps: float) -> None:
    """Raise UsageError unless so many frames a second can be shown."""
    if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0 < fps <= FPS_MAX:
        raise UsageError(
            f"fps is {fps!r}", fix=f"it is a number above 0, up to {FPS_MAX:g}; {FPS:g} is usual"
        )


def make_animation(clips: Tensor, *, columns: int | None = None, fps: float = FPS) -> Animation:
    """All clips at once, side by side.   clips: (n, f, c, h, w) uint8, c = 1 or 3."""
    _check(clips)
    sheets = [make_grid(frames, columns=columns).image for frames in clips.unbind(1)]
    return Animation(sheets, fps, OVERVIEW)


def contact_sheet(clips: Tensor, *, columns: int | None = None) -> Grid:
    """Each clip as a strip of its frames, `columns` strips in a row, one by default.

    clips: (n, f, c, h, w) uint8, c = 1 or 3.
    """
    _check(clips)
    return make_grid(clips.flatten(0, 1), columns=clips.shape[1] * (1 if columns is None else columns))


def _check(clips: Tensor) -> None:
    if clips.ndim != 5 or not len(clips) or clips.shape[2] not in (1, 3):
        raise ShapeError(f"clips are (n, f, 1 or 3, h, w), got {tuple(clips.shape)}")


def require_pyav() -> Any:
    """The package av. Raises MissingDependencyError without it."""
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(
            "MP4 needs the package av", why=str(error), fix="pip install 'genzoo[video]', or save a .gif"
        ) from error
    return av
