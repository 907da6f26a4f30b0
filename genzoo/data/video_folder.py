"""Folders of videos: files or folders of pictures, with classes or without; a clip of each is one item."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from genzoo.core.reading import shown
from genzoo.core.sizes import Size
from genzoo.core.types import Dataset
from genzoo.data.cached_clips import CachedClips
from genzoo.data.class_lists import ClassList
from genzoo.data.clip_windows import ClipWindow, Short, Spacing
from genzoo.data.image_decode import MAX_PIXELS
from genzoo.data.video_clips import VideoClips
from genzoo.data.video_listing import list_videos
from genzoo.data.video_reader import VideoReader

logger = logging.getLogger(__name__)


def video_folder(
    root: str | Path,
    *,
    image_size: Size = 256,
    num_frames: int = 16,
    frame_interval: int = 1,
    spacing: Spacing = "stride",
    short: Short = "drop",
    min_frames: int | None = None,
    fps: float | None = None,
    transform: str = "short_side_crop",
    channels: int = 3,
    horizontal_flip: bool = True,
    class_folders: bool | None = None,
    class_names: Sequence[str] | None = None,
    include_classes: ClassList | None = None,
    exclude_classes: ClassList | None = None,
    split_file: str | Path | None = None,
    use_image_num: int = 0,
    follow_links: bool = False,
    max_pixels: int = MAX_PIXELS,
    index_folder: str | Path | None = None,
    latent_cache: str | Path | None = None,
    latent_dtype: str = "float16",
) -> Dataset:
    """Clips of the videos in a folder; or their latents, when `prepare latents` has filled `latent_cache`.

    image_size: the side of squares, or [h, w].   num_frames, frame_interval, spacing, short, min_frames,
    fps: see genzoo.data.clip_windows.ClipWindow.   transform: of each frame, see
    genzoo.data.frame_transforms.   class_folders, class_names, include_classes, exclude_classes, split_file:
    see genzoo.data.video_listing.list_videos.
    use_image_num: stills beside each clip, single frames of other videos.   index_folder: where the facts
    about video files are kept; the user's cache when left out.
    """
    window = ClipWindow(num_frames, frame_interval, spacing, short, min_frames, fps)
    listing = list_videos(
        root,
        class_folders=class_folders,
        class_names=class_names,
        include_classes=include_classes,
        exclude_classes=exclude_classes,
        split_file=split_file,
        follow_links=follow_links,
    )
    if listing.ignored:
        names = ", ".join(shown(name) for name in listing.ignored[:5])
        logger.warning("%d other file(s) in the data folder are left out: %s", len(listing.ignored), names)
    reader = VideoReader(listing, index_folder=index_folder, follow_links=follow_links, max_pixels=max_pixels)
    clips = VideoClips(
        reader,
        window,
        image_size=image_size,
        channels=channels,
        transform=transform,
        horizontal_flip=horizontal_flip,
        use_image_num=use_image_num,
    )
    return clips if latent_cache is None else CachedClips(clips, latent_cache, dtype=latent_dtype)
