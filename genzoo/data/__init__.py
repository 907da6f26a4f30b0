"""Data sets and the card that names them; importing it imports no torch."""

from __future__ import annotations

from genzoo.core.registry import COMMANDS, CONTROLS, DATASETS

DATASETS.lazy("digits", "genzoo.data.digits:Digits", help="1,797 embedded digits, 8x8, 10 classes")
DATASETS.lazy(
    "image_folder", "genzoo.data.image_folder:image_folder", help="root/class/*.jpg|png|webp, or flat"
)
DATASETS.lazy("emoji", "genzoo.data.emoji:Emoji", help="4,017 captioned emoji, 64x64, 7 categories, 3 styles")
DATASETS.lazy(
    "video_folder",
    "genzoo.data.video_folder:video_folder",
    help="clips of root/class/*.mp4|avi|webm|..., root/class/clip/001.jpg, or without classes",
)
DATASETS.lazy(
    "placed_digits",
    "genzoo.data.placed_digits:PlacedDigits",
    help="7,188 stills of a digit on a canvas, 10 classes",
)
DATASETS.lazy(
    "moving_digits",
    "genzoo.data.moving_digits:MovingDigits",
    help="7,188 clips of a bouncing digit, 10 classes",
)
DATASETS.lazy(
    "moving_emoji",
    "genzoo.data.moving_emoji:MovingEmoji",
    help="20,085 captioned clips of an emoji that moves left, right, up, down or stays",
)
CONTROLS.lazy("canny", "genzoo.data.controls:Canny", help="edges of OpenCV's detector; no weights")
COMMANDS.lazy(
    "prepare controls",
    "genzoo.api.commands.controls:prepare_controls_command",
    help="Extract controls of a recipe's pictures, or of a folder, once; with a sheet to look at.",
)
