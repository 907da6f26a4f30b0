"""Clips cut from videos: which frames an item shows, and their pixels."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genzoo.core.errors import DataError
from genzoo.core.seeds import generator_for
from genzoo.core.sizes import Size, sides
from genzoo.data.clip_windows import ClipWindow
from genzoo.data.frame_transforms import frame_transform
from genzoo.data.indexed import Indexed
from genzoo.data.label_check import suspicious_classes
from genzoo.data.transforms import draw_flip, flip, size_name
from genzoo.data.video_reader import VideoReader

logger = logging.getLogger(__name__)

TRIES = 4  # frames drawn for each still: the first readable one is shown


class View(NamedTuple):
    """Frames of one video, mirrored or not."""

    video: int
    frames: list[int]
    mirrored: bool


class Draw(NamedTuple):
    """What one item shows. stills: for each still its candidates, in order."""

    clip: View
    stills: list[list[View]]


class VideoClips(Indexed):
    """fetch gives {"pixels": (f, c, h, w) float32 in [-1, 1]} and, with classes, {"class_labels": int64 ()}.

    One item is one video; where in it the clip lies, and whether it is mirrored, comes from the generator,
    and without one it is the middle, as it is. With use_image_num there are also "image_pixels" (s, c, h, w)
    and, with classes, "image_labels" (s,): stills, each of a video and a place drawn for it, mirrored on its
    own. Videos that the window does not fit are left out; unreadable ones stay, and fetching them is an
    error.
    """

    def __init__(
        self,
        reader: VideoReader,
        window: ClipWindow,
        *,
        image_size: Size = 256,
        channels: int = 3,
        transform: str = "short_side_crop",
        horizontal_flip: bool = True,
        use_image_num: int = 0,
    ) -> None:
        if channels not in (1, 3) or use_image_num < 0:
            raise DataError(
                f"clips have channels 1 or 3, use_image_num not negative; got {channels} and {use_image_num}"
            )
        size = sides(image_size)
        self.reader, self.window = reader, window
        self.image_size, self.channels, self.horizontal_flip = size, channels, horizontal_flip
        self.augments = True
        self.frame_transform, self._transform = transform, frame_transform(transform)
        self.use_image_num = use_image_num
        self.sample_shape: tuple[int, ...] = (window.num_frames, channels, *size)
        listing = reader.listing
        self.class_names: list[str] | None = listing.class_names
        self.num_classes: int | None = None if self.class_names is None else len(self.class_names)
        self.lengths = np.array([self._length(index) for index in range(len(reader))], np.int64)
        self.left_out = list(listing.ignored)
        self.videos = self._usable()
        for warning in suspicious_classes(self.class_names):
            logger.warning("%s: %s", listing.root, warning)
        self.labels = None if listing.labels is None else torch.from_numpy(listing.labels[self.videos]).long()
        self._readable = np.flatnonzero(self.lengths[self.videos] > 0)

    def _length(self, index: int) -> int:
        """Frames of a video as the window counts them; 0 when it cannot be read."""
        total = self.reader.num_frames(index)
        if self.window.fps is None or not total:
            return total
        if not self.reader.is_file(index):
            raise DataError(
                "a folder of pictures has no times, so it cannot be read at a frame rate",
                where=self.reader.where(index),
                fix="leave data.fps null",
            )
        return len(self.window.timeline(self.reader.seconds(index)))

    def _usable(self) -> np.ndarray:
        short = [
            index for index, length in enumerate(self.lengths) if length and not self.window.fits(int(length))
        ]
        if short:
            names = ", ".join(f"{self.reader.where(index)} ({self.lengths[index]})" for index in short[:3])
            wanted = self.window.num_frames
            said = f"{len(short)} of {len(self.lengths)} videos are too short for {wanted} frames"
            if self.window.short == "error" or len(short) == len(self.lengths):
                raise DataError(
                    said,
                    where=str(self.reader.listing.root),
                    why=f"the window spans {self.window.span} frames; {names}",
                    fix="lower data.frame_interval or data.num_frames; data.short=drop leaves them out",
                )
            logger.warning("%s and are left out: %s", said, names)
            self.left_out += [f"{self.reader.where(index)} ({self.lengths[index]} frames)" for index in short]
        return np.setdiff1d(np.arange(len(self.lengths)), short)

    @property
    def transform(self) -> str:
        """What happens to a frame on the way to pixels, flipping aside; part of a cache's keys."""
        return f"{self.frame_transform}|{size_name(self.image_size)}|channels {self.channels}"

    @cached_property
    def fingerprint(self) -> str:
        """Changes with names, sizes, labels and settings; not with the place of the folder."""
        return self._fingerprint(
            f"{self.transform}|{self.horizontal_flip}|{self.window}|{self.use_image_num}|{self.class_names}"
        )

    @cached_property
    def pictures_fingerprint(self) -> str:
        """The same for folders that differ in flips and stills alone."""
        return self._fingerprint(f"{self.transform}|{self.window}|{self.class_names}")

    def _fingerprint(self, facts: str) -> str:
        digest = hashlib.sha256(facts.encode())
        for video in self.videos:
            for stamp in self.reader.stamp(int(video)).split("\n"):
                digest.update(os.fsencode(stamp.rpartition("|")[0]) + b"\0")
        return digest.hexdigest()[:32]

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """What a cache holds for itself: one frame, so that clips of all lengths share it."""
        return self.sample_shape[1:]

    def num_stored(self, index: int) -> int:
        """The frames that a cache holds of an item: all of its file's."""
        return self.reader.num_frames(int(self.videos[index]))

    def stamp(self, index: int) -> str:
        """Differs after an edit of the video, without reading it."""
        return self.reader.stamp(int(self.videos[index]))

    def content(self, index: int) -> bytes:
        """A hash of the video's bytes."""
        return self.reader.content(int(self.videos[index]))

    def __len__(self) -> int:
        return len(self.videos)

    def path(self, index: int) -> str:
        """The file or folder of an item."""
        return self.reader.where(int(self.videos[index]))

    def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        """One clip with its stills. Raises DataError with the file's name when it cannot be read."""
        draw = self.draw(index, generator)
        item = {"pixels": self.read(draw.clip)} | self.annotations(index)
        if self.use_image_num:
            stills = [self._still(views) for views in draw.stills]
            item["image_pixels"] = torch.stack([pixels for pixels, _ in stills])
            item |= self.still_labels([item for _, item in stills])
        return item

    def annotations(self, index: int) -> dict[str, Any]:
        """{"class_labels": int64 ()}, or nothing without classes."""
        return {} if self.labels is None else {"class_labels": self.labels[index].clone()}

    def still_labels(self, items: list[int]) -> dict[str, Tensor]:
        """{"image_labels": (s,) int64} of stills from these items, or nothing without classes."""
        return {} if self.labels is None else {"image_labels": self.labels[items]}

    def draw(self, index: int, generator: torch.Generator | None) -> Draw:
        """Decide what an item shows. All draws happen, whatever can be read, so they never shift."""
        mirrored = generator is not None and self.horizontal_flip and draw_flip(generator)
        length = int(self.lengths[self.videos[index]])
        frames = self.window.frames(length, generator) if length else []
        if generator is None:  # the same stills each time, but others for each item
            generator = generator_for("video stills", index)
        wanted = self.use_image_num if len(self._readable) else 0
        stills = [[self._draw_still(generator) for _ in range(TRIES)] for _ in range(wanted)]
        return Draw(View(index, frames, mirrored), stills)

    def _draw_still(self, generator: torch.Generator) -> View:
        item = int(self._readable[int(torch.randint(len(self._readable), (), generator=generator))])
        frame = int(torch.randint(int(self.lengths[self.videos[item]]), (), generator=generator))
        return View(item, [frame], self.horizontal_flip and draw_flip(generator))

    def read(self, view: View) -> Tensor:
        """The pixels of a view: (f, c, h, w)."""
        pixels = dict(self.read_frames(view.video, sorted(set(self.places(view)))))
        clip = torch.stack([pixels[frame] for frame in self.places(view)])
        return flip(clip) if view.mirrored else clip

    def places(self, view: View) -> list[int]:
        """The numbers, in their file, of a view's frames."""
        if self.window.fps is None:
            return view.frames
        line = self.window.timeline(self.reader.seconds(int(self.videos[view.video])))
        return [int(line[frame]) for frame in view.frames]

    def read_frames(self, index: int, wanted: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """Frames of an item by their numbers in its file, rising: pairs of number and (c, h, w) pixels."""
        video = int(self.videos[index])
        for number, picture in self.reader.read(video, wanted, channels=self.channels):
            try:
                yield number, self._transform(picture, self.image_size)
            except DataError as error:
                raise DataError(error.what, where=self.reader.where(video), fix=error.fix) from error

    def _still(self, views: list[View]) -> tuple[Tensor, int]:
        """The first candidate that can be read, and its item; of the last, its error."""
        for view in views[:-1]:
            try:
                return self.read(view)[0], view.video
            except DataError:
                continue
        return self.read(views[-1])[0], views[-1].video
