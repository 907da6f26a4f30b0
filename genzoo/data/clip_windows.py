"""Which frames of a video make a clip: where the window lies, how it is spaced, what short videos mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from genzoo.core.errors import DataError

Spacing = Literal["stride", "linspace"]
Short = Literal["drop", "error", "squeeze"]


@dataclass(frozen=True)
class ClipWindow:
    """Cuts f = num_frames of a video's frames.

    spacing: "stride" takes every frame_interval-th frame; "linspace" spreads f frames evenly from the first
    to the last of f * frame_interval frames and rounds down: 0, 3, ..., 21, 25, ..., 47.
    short: what becomes of videos with fewer frames than the window spans: "drop" leaves them out, "error"
    refuses them, "squeeze" spreads the f frames over those there are, as long as there are f.
    min_frames: shorter videos are left out, whatever the window.
    fps: count not frames but time: frame k of the video is then the one on screen k / fps seconds after the
    first, so a variable frame rate does no harm. None takes frames as they come, as the protocols do.
    """

    num_frames: int = 16
    frame_interval: int = 1
    spacing: Spacing = "stride"
    short: Short = "drop"
    min_frames: int | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.frame_interval < 1 or (self.min_frames or 1) < 1:
            raise DataError(
                f"num_frames is {self.num_frames}, frame_interval {self.frame_interval}, min_frames"
                f" {self.min_frames}; each is at least 1"
            )
        if self.spacing not in ("stride", "linspace"):
            raise DataError(f"spacing is {self.spacing!r}", fix='use "stride" or "linspace"')
        if self.short not in ("drop", "error", "squeeze"):
            raise DataError(f"short is {self.short!r}", fix='use "drop", "error" or "squeeze"')
        if self.fps is not None and not 0 < self.fps < 1000:
            raise DataError(f"fps is {self.fps}; it lies between 0 and 1000, or is null")

    @property
    def span(self) -> int:
        """The consecutive frames that a window covers."""
        if self.spacing == "linspace":
            return self.num_frames * self.frame_interval
        return (self.num_frames - 1) * self.frame_interval + 1

    def fits(self, total: int) -> bool:
        """Whether clips can be cut from a video of `total` frames."""
        needed = self.num_frames if self.short == "squeeze" else self.span
        return total >= max(needed, self.min_frames or 1)

    def frames(self, total: int, generator: torch.Generator | None) -> list[int]:
        """The frames of one clip, rising; from the middle without a generator.

        Every place is equally likely. Latte draws from all places but the last.
        """
        span = min(self.span, total)
        room = total - span
        drawn = room // 2 if generator is None else int(torch.randint(room + 1, (), generator=generator))
        if self.spacing == "stride" and span == self.span:
            steps = np.arange(self.num_frames) * self.frame_interval
        else:
            steps = np.linspace(0, span - 1, self.num_frames).astype(int)
        return [drawn + int(step) for step in steps]

    def timeline(self, seconds: np.ndarray) -> np.ndarray:
        """The frames on screen at 0, 1/fps, 2/fps, ... until the last one begins.

        seconds: (n,) when each frame appears, from 0.   Returns (m,) int64.
        """
        if self.fps is None:
            return np.arange(len(seconds))
        count = int(np.floor(seconds[-1] * self.fps + 1e-6)) + 1
        moments = np.arange(count) / self.fps
        return np.searchsorted(seconds, moments + 1e-6, side="right") - 1
