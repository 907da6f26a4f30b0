"""Data sets and the card that names them; importing it imports no torch."""

from __future__ import annotations

from genzoo.core.registry import CONTROLS, DATASETS

# Ports: what an item is. "pictures": pixels (c, h, w), "clips": pixels (f, c, h, w), or moments of either;
# "captioned_...": and a caption.
DATASETS.lazy(
    "digits",
    "genzoo.data.digits:Digits",
    help="1,797 embedded digits, 8x8, 10 classes",
    port="pictures",
)
DATASETS.lazy(
    "image_folder",
    "genzoo.data.image_folder:image_folder",
    help="root/class/*.jpg|png|webp, or flat",
    port="pictures",
)
DATASETS.lazy(
    "emoji",
    "genzoo.data.emoji:Emoji",
    help="4,017 captioned emoji, 64x64, 7 categories, 3 styles",
    port=("pictures", "captioned_pictures"),
)
DATASETS.lazy(
    "image_shards",
    "genzoo.data.image_shards:image_shards",
    help="root/*.tar in webdataset's layout, read in any order; see `genzoo prepare shards`",
    port=("pictures", "captioned_pictures"),
)
DATASETS.lazy(
    "hf_folder",
    "genzoo.data.arrow_folder:hf_folder",
    help="a folder that Hugging Face's `datasets` saved (Arrow, extra `datasets`), read offline",
    port=("pictures", "captioned_pictures"),
)
DATASETS.lazy(
    "video_folder",
    "genzoo.data.video_folder:video_folder",
    help="clips of root/class/*.mp4|avi|webm|..., root/class/clip/001.jpg, or without classes",
    port="clips",
)
DATASETS.lazy(
    "placed_digits",
    "genzoo.data.placed_digits:PlacedDigits",
    help="7,188 stills of a digit on a canvas, 10 classes",
    port="pictures",
)
DATASETS.lazy(
    "moving_digits",
    "genzoo.data.moving_digits:MovingDigits",
    help="7,188 clips of a bouncing digit, 10 classes",
    port="clips",
)
DATASETS.lazy(
    "moving_emoji",
    "genzoo.data.moving_emoji:MovingEmoji",
    help="20,085 captioned clips of an emoji that moves left, right, up, down or stays",
    port=("clips", "captioned_clips"),
)
CONTROLS.lazy("canny", "genzoo.data.controls:Canny", help="edges of OpenCV's detector; no weights")
