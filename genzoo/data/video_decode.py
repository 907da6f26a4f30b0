"""Video files to frames, exactly the ones asked for, whatever the file: trouble is a DataError with its name.

A frame is named by its place in the order of presentation. In containers that record the time of every
frame (MP4, MOV, Matroska, WebM) `probe` reads those times without decoding, and a frame is reached from the
keyframe before it and recognised by its time. In all others (AVI, MPEG, GIF, ...) times are guesses: frames
are counted, always from the first. Frames come out as a player shows them: turned as the file says,
transparency on white. Pixels that are not square are left as they are stored. A file that was cut off has the
frames that are left. Only one thread decodes, and nothing is kept open, so loader workers do not disturb each
other.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from genzoo.core.errors import DataError
from genzoo.core.optional import require
from genzoo.core.reading import reason, shown
from genzoo.data.image_decode import MAX_PIXELS
from genzoo.pictures.animation import own_size

VIDEO_EXTENSIONS = (
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".mpg",
    ".mpeg",
    ".ts",
    ".wmv",
    ".flv",
    ".gif",
)
# playlists and scripts, which FFmpeg also takes for videos, could name other files: only these may be opened
_CONTAINERS = "mov,mp4,matroska,webm,avi,mpeg,mpegts,asf,flv,gif,ogg"
_TIMED = {"mov", "matroska"}
_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
# what hostile bytes make demuxers and decoders raise beside FFmpeg's own errors; other kinds are our faults
_BY_THE_FILE = (ArithmeticError, LookupError, MemoryError, OSError, RuntimeError, ValueError)
_WORTH_SEEKING = 8  # frames; fewer are decoded and dropped sooner than the reader has jumped


class VideoFacts(NamedTuple):
    """What it takes to reach a frame.

    times: (n,) int64, when each frame appears, in units of time_base seconds, rising.
    entries: (k,) int64, the frames where decoding can start.   targets: (k,) int64, the time to jump to for
    each; where frames are counted, both are empty.
    """

    times: np.ndarray[Any, Any]
    entries: np.ndarray[Any, Any]
    targets: np.ndarray[Any, Any]
    time_base: Fraction

    @property
    def seconds(self) -> np.ndarray[Any, Any]:
        """When each frame appears, from 0: (n,) float64."""
        return (self.times - self.times[0]) * float(self.time_base)


def probe(path: Path) -> VideoFacts:
    """The frames of a video file. Raises DataError when it has none, or cannot be read to its end."""
    with _opened(path) as (container, stream):
        if _TIMED & set(container.format.name.split(",")):
            facts = _timed(container, stream)
            if facts is not None:
                return facts
    nowhere = np.zeros(0, np.int64)
    with _opened(path) as (container, stream):
        times = [frame.pts for frame in container.decode(stream)]
        if not times:
            raise DataError("this video has no frames", where=shown(path))
        if None in times or stream.time_base is None or (np.diff(times) <= 0).any():
            return VideoFacts(
                np.arange(len(times)), nowhere, nowhere, 1 / Fraction(stream.average_rate or 25)
            )
        return VideoFacts(np.array(times, np.int64), nowhere, nowhere, Fraction(stream.time_base))


def _timed(container: Any, stream: Any) -> VideoFacts | None:
    """The times that the packets state; None when they do not state one for each frame."""
    packets = [p for p in container.demux(stream) if p.size and not p.is_discard]
    if not packets or stream.time_base is None or any(packet.pts is None for packet in packets):
        return None
    packets.sort(key=lambda packet: packet.pts)
    times = np.array([packet.pts for packet in packets], np.int64)
    entries = np.array([number for number, packet in enumerate(packets) if packet.is_keyframe], np.int64)
    if not len(entries) or entries[0] or (np.diff(times) <= 0).any():
        return None
    # MP4 looks for the time of decoding, Matroska for that of presentation: the smaller one suits both
    keys = [packets[number] for number in entries]
    targets = np.array([key.pts if key.dts is None else min(key.pts, key.dts) for key in keys], np.int64)
    return VideoFacts(times, entries, targets, Fraction(stream.time_base))


def read_video(
    path: Path, facts: VideoFacts, wanted: Sequence[int], *, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[int, Image.Image]]:
    """The wanted frames, rising and without doubles, each with its number, as RGB pictures.

    Raises DataError when the file differs from its facts, or a wanted frame cannot be decoded.
    """
    for run in _runs(facts.entries, wanted):
        entry = int(np.searchsorted(facts.entries, run[0], side="right")) - 1
        missing = run
        # a demuxer may jump too far where it must estimate; then once more, from the first frame
        for target in [None] if entry < 1 else [int(facts.targets[entry]), None]:
            for number, picture in _read_from(path, facts, missing, target, max_pixels):
                yield number, picture
                missing = missing[1:]
            if not missing:
                break
        if missing:
            raise DataError(
                f"frame {missing[0]} of this video cannot be decoded",
                where=shown(path),
                why="the file is damaged, or was changed since it was indexed",
            )


def _runs(entries: np.ndarray[Any, Any], wanted: Sequence[int]) -> Iterator[list[int]]:
    """Cut the wanted frames where jumping to the next entry saves decoding."""
    run: list[int] = []
    for frame in wanted:
        place = int(np.searchsorted(entries, frame, side="right")) - 1
        if run and place > 0 and entries[place] - run[-1] > _WORTH_SEEKING:
            yield run
            run = []
        run.append(frame)
    if run:
        yield run


def _read_from(
    path: Path, facts: VideoFacts, wanted: list[int], target: int | None, max_pixels: int
) -> Iterator[tuple[int, Image.Image]]:
    """The wanted frames from a jump on, as far as they come in order."""
    waiting = iter(wanted)
    sought = next(waiting, None)
    with _opened(path) as (container, stream):
        if target is not None:
            container.seek(target, stream=stream)
        for count, frame in enumerate(container.decode(stream)):
            number = _number(facts, frame.pts) if len(facts.entries) else count
            if sought is None or number > sought:
                return
            if number == sought:
                picture = _picture(frame, path, max_pixels)
                size = own_size(container.metadata, picture.size)
                yield number, picture if size == picture.size else picture.crop((0, 0, *size))
                sought = next(waiting, None)


def _number(facts: VideoFacts, time: int | None) -> int:
    """The number of the frame shown at a time; -1 for a time that no frame has."""
    place = -1 if time is None else int(np.searchsorted(facts.times, time))
    known = 0 <= place < len(facts.times) and facts.times[place] == time
    return place if known else -1


def _picture(frame: Any, path: Path, max_pixels: int) -> Image.Image:
    if frame.width * frame.height > max_pixels:
        raise DataError(
            f"a frame has {frame.width} x {frame.height} pixels; at most {max_pixels} are allowed",
            where=shown(path),
        )
    if frame.is_corrupt:
        raise DataError("a frame of this video is damaged", where=shown(path))
    if any(component.is_alpha for component in frame.format.components) or frame.format.name == "pal8":
        rgba = Image.fromarray(frame.to_ndarray(format="rgba"), "RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    else:
        picture = Image.fromarray(frame.to_ndarray(format="rgb24"))
    turn = _TURNS.get(round(frame.rotation / 90) * 90 % 360)
    return picture if turn is None else picture.transpose(turn)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The file's container and its main video stream; whatever goes wrong in between is a DataError."""
    av = require("av", extra="video")
    where = shown(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise DataError("this is not a regular file", where=where)
        allowed = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
        with av.open(str(path), options=allowed, metadata_errors="replace") as container:
            streams = [s for s in container.streams.video if not _is_cover(s)]
            if not streams:
                raise DataError("this file holds no video", where=where)
            if streams[0].codec_context is None:
                raise DataError("this video cannot be read", where=where, why="its codec is unknown")
            streams[0].codec_context.thread_count = 1
            yield container, streams[0]
    except (DataError, GeneratorExit):
        raise
    except (av.FFmpegError, *_BY_THE_FILE) as error:
        raise DataError("this video cannot be read", where=where, why=reason(error)) from error


def _is_cover(stream: Any) -> bool:
    """Whether a stream is only the picture that players show for a piece of music."""
    return "attached_pic" in str(stream.disposition)
