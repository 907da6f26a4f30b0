"""Clips by number: how long each is, and frames of it, from video files and folders of pictures alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from genzoo.core.errors import DataError
from genzoo.core.reading import reason, shown
from genzoo.data.image_decode import MAX_PIXELS, load_image
from genzoo.data.video_decode import read_video
from genzoo.data.video_index import VideoIndex, stamp_of
from genzoo.data.video_listing import VideoListing

_BLOCK = 1 << 20


class VideoReader:
    """Reads the clips of a listing; holds no open files, so that loader workers can share it."""

    def __init__(
        self,
        listing: VideoListing,
        *,
        index_folder: str | Path | None = None,
        follow_links: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.listing, self.max_pixels = listing, max_pixels
        self.counts = np.diff(listing.ends)
        self._files = np.flatnonzero(self.counts == 0)
        names = [listing.clips[index] for index in self._files]
        self.index = VideoIndex(listing.root, names, folder=index_folder)
        self._inside = None if follow_links else listing.root

    def __len__(self) -> int:
        return len(self.listing.clips)

    def where(self, index: int) -> str:
        """The file or folder of a clip, safe to print."""
        return shown(self.listing.root / self.listing.clips[index])

    def is_file(self, index: int) -> bool:
        """Whether a clip is a video file, and not a folder of pictures."""
        return not self.counts[index]

    def num_frames(self, index: int) -> int:
        """How many frames a clip has; 0 for a file that cannot be read."""
        return self.index.num_frames(self._number(index)) if self.is_file(index) else int(self.counts[index])

    def seconds(self, index: int) -> np.ndarray:
        """When each frame of a video file appears, from 0."""
        return self.index[self._number(index)].seconds

    def read(
        self, index: int, wanted: Sequence[int], *, channels: int = 3
    ) -> Iterator[tuple[int, Image.Image]]:
        """The wanted frames, each with its number; rising and without doubles.

        Mode "RGB" (channels 3) or "L" (channels 1). Raises DataError with the file's name.
        """
        mode = "RGB" if channels == 3 else "L"
        if self.is_file(index):
            facts = self.index[self._number(index)]
            path = self._checked(self.listing.root / self.listing.clips[index])
            for number, picture in read_video(path, facts, wanted, max_pixels=self.max_pixels):
                yield number, picture.convert(mode)
        else:
            pictures = self.listing.pictures(index)
            for number in wanted:
                path = self.listing.root / pictures[number]
                yield (
                    number,
                    load_image(path, root=self._inside, channels=channels, max_pixels=self.max_pixels),
                )

    def files(self, index: int) -> list[str]:
        """The files of a clip, relative to root."""
        return [self.listing.clips[index]] if self.is_file(index) else self.listing.pictures(index)

    def stamp(self, index: int) -> str:
        """Differs after an edit of the clip, without reading it."""
        return "\n".join(stamp_of(self.listing.root, name) for name in self.files(index))

    def content(self, index: int) -> bytes:
        """A hash of the clip's bytes: a file's, or those of all its pictures in order."""
        digest = hashlib.sha256()
        try:
            for name in self.files(index):
                path = self._checked(self.listing.root / name)
                digest.update(path.stat().st_size.to_bytes(8, "big"))
                with path.open("rb") as file:
                    while block := file.read(_BLOCK):
                        digest.update(block)
        except OSError as error:
            raise DataError("this clip cannot be read", where=self.where(index), why=reason(error)) from error
        return digest.digest()

    def _number(self, index: int) -> int:
        return int(np.searchsorted(self._files, index))

    def _checked(self, path: Path) -> Path:
        """The path, if it leads nowhere outside the data folder and to a regular file."""
        try:
            outside = self._inside is not None and not path.resolve(strict=True).is_relative_to(self._inside)
            regular = path.is_file()
        except (OSError, RuntimeError) as error:
            raise DataError("this file cannot be read", where=shown(path), why=reason(error)) from error
        if outside:
            raise DataError(
                "this file is a link that leads out of the data folder",
                where=shown(path),
                fix="copy the file in, or allow links with data.follow_links=true",
            )
        if not regular:
            raise DataError("this is not a regular file", where=shown(path))
        return path
