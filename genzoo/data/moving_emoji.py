"""Moving emoji: captioned clips of one emoji that goes one way over a white canvas, or stays where it is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from genzoo.core.errors import DataError
from genzoo.core.seeds import generator_for
from genzoo.data.emoji import STYLES, Emoji, load_concepts
from genzoo.data.indexed import Indexed
from genzoo.data.motion import check_grid, draw_stills, paste, straight_paths
from genzoo.data.toys import block_means, check_at_least, check_choices, first_of
from genzoo.pictures.pixels import from_uint8

MOTIONS = {
    "left": ("moves left", (0, -1)),
    "right": ("moves right", (0, 1)),
    "up": ("moves up", (-1, 0)),
    "down": ("moves down", (1, 0)),
    "still": ("stays still", (0, 0)),
}
"""Motion -> its words in captions, and its direction: down, to the right."""
CLASSES = ("motion_category", "motion_name", "motion", "category", "name", "none")
SPRITES = (8, 16, 32)


class MovingEmoji(Indexed):
    """fetch gives {"pixels": (f, 3, s, s) float32 in [-1, 1], "captions": str} and, with classes,
    {"class_labels"}.

    Made from the embedded emoji, the same everywhere: a clip depends on its emoji, its motion and its number
    alone.   image_size: of the canvas.   sprite_size: of the emoji, 8, 16 or 32.   max_speed: pixels a frame;
    a clip draws 1 to max_speed.   grid: places and speeds are multiples of it, in pixels, so that a model's
    patches cut emoji in few ways.   clips_per_emoji: clips of each emoji in each motion.   motions: which of
    left, right, up, down, still.   classes: what a label means: "motion" (the motions in the order given),
    "category" (7), "name" (1,339), "motion_category" or "motion_name" (motion first), or "none".
    caption: words in which {name}, {style}, {category} and {motion} stand for the clip's.
    styles, categories, names, hold_out, hold_out_fraction, split: see genzoo.data.emoji.Emoji.
    use_image_num: stills s beside each clip, single frames of other clips: "image_pixels" (s, 3, s, s) and,
    with classes, "image_labels" (s,), drawn anew each time.
    """

    def __init__(
        self,
        *,
        image_size: int = 32,
        sprite_size: int = 16,
        num_frames: int = 8,
        max_speed: int = 2,
        grid: int = 1,
        clips_per_emoji: int = 1,
        motions: Sequence[str] = tuple(MOTIONS),
        classes: str = "motion_category",
        caption: str = "a {name} {motion}",
        styles: Sequence[str] = tuple(STYLES),
        categories: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        hold_out: Sequence[str] = (),
        hold_out_fraction: float = 0.0,
        split: str = "all",
        use_image_num: int = 0,
    ) -> None:
        _check(image_size, sprite_size, num_frames, max_speed, clips_per_emoji, use_image_num)
        check_grid("moving_emoji", grid, way=image_size - sprite_size, max_speed=max_speed)
        check_at_least("moving_emoji", 1, motions=len(motions))
        check_choices("moving_emoji", "motion", motions, list(MOTIONS))
        check_choices("moving_emoji", "classes", [classes], CLASSES)
        what = "name" if classes.endswith("name") else "category"
        emoji = Emoji(
            image_size=32, styles=styles, classes=what, categories=categories, names=names,
            hold_out=hold_out, hold_out_fraction=hold_out_fraction, split=split,
        )  # fmt: skip
        self.motions, self.use_image_num, self.augments = list(motions), use_image_num, use_image_num > 0
        self.sample_shape: tuple[int, ...] = (num_frames, 3, image_size, image_size)
        self.sprites = block_means(emoji.images, sprite_size)
        self.items, self._caption = emoji.items, caption
        way = {"span": (image_size - sprite_size) // grid, "max_speed": max_speed // grid}
        self.corners = grid * self._paths(clips_per_emoji, num_frames=num_frames, **way)
        self.class_names, self.labels = self._classes(classes, emoji)
        self.num_classes: int | None = None if self.class_names is None else len(self.class_names)
        facts = f"moving_emoji|{self.sample_shape}|{classes}|{use_image_num}|{caption}|{motions}|{self.items}"
        content = self.sprites.numpy().tobytes() + self.corners.numpy().tobytes()
        self.fingerprint = hashlib.sha256(facts.encode() + content).hexdigest()[:32]

    def _paths(self, clips_per_emoji: int, *, max_speed: int, **way: int) -> Tensor:
        """(n, f, 2), clip by clip: its path depends on the emoji, the motion and the number."""
        concepts = load_concepts()
        place = {concept["code"]: row for row, concept in enumerate(concepts)}
        styles = list(STYLES)
        shown = [styles.index(item["style"]) * len(concepts) + place[item["code"]] for item in self.items]
        paths = []
        for motion in self.motions:
            directions = torch.tensor(MOTIONS[motion][1]).expand(len(styles) * len(concepts), 2)
            for number in range(clips_per_emoji):
                seed = ("moving_emoji", motion, number, max_speed)
                generator = generator_for(*seed)
                every = straight_paths(directions, max_speed=max_speed, **way, generator=generator)
                paths.append(every[shown])
        return torch.stack(paths, dim=1).flatten(0, 1)

    def _classes(self, classes: str, emoji: Emoji) -> tuple[list[str] | None, Tensor | None]:
        rows = torch.arange(len(self))
        shown, motion = self._parts(rows)
        assert emoji.labels is not None  # it was asked for categories or names
        assert emoji.class_names is not None
        if classes == "none":
            return None, None
        if classes == "motion":
            return self.motions, motion
        if classes in ("category", "name"):
            return emoji.class_names, emoji.labels[shown]
        names = [f"{motion} {name}" for motion in self.motions for name in emoji.class_names]
        return names, motion * len(emoji.class_names) + emoji.labels[shown]

    def __len__(self) -> int:
        return len(self.corners)

    def caption(self, index: int) -> str:
        """What a clip shows, in words."""
        shown, motion = self._parts(index)
        item, words = self.items[shown], MOTIONS[self.motions[motion]][0]
        return self._caption.format(**item | {"style": STYLES[item["style"]], "motion": words})

    def fetch(self, index: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        """One clip; its stills come from the generator, or without one from the index."""
        return first_of(self.fetch_many([index], [generator]))

    def fetch_many(self, indices: Sequence[int], generators: Sequence[Any]) -> dict[str, Any]:
        """Several clips at once, already stacked: (b, f, 3, s, s), (b,), and a list of captions."""
        rows = torch.as_tensor(indices)
        batch: dict[str, Any] = {
            "pixels": self._draw(rows),
            "captions": [self.caption(index) for index in indices],
        }
        if self.labels is not None:
            batch["class_labels"] = self.labels[rows]
        if self.use_image_num:
            seeds = [("moving_emoji stills", index) for index in indices]
            batch |= draw_stills(self, self._draw, seeds, generators)
        return batch

    def _draw(self, rows: Tensor) -> Tensor:
        sprites = from_uint8(self.sprites[self._parts(rows)[0]])
        return paste(sprites, self.corners[rows], self.sample_shape[-1], background=1.0)

    def _parts(self, index: Any) -> tuple[Any, Any]:
        """The numbers of emoji and motion of a clip, or of many as a tensor."""
        clips_per_emoji = len(self) // (len(self.items) * len(self.motions))
        shown, rest = index // (clips_per_emoji * len(self.motions)), index // clips_per_emoji
        return shown, rest % len(self.motions)


def _check(
    image_size: int, sprite_size: int, num_frames: int, max_speed: int, clips_per_emoji: int, stills: int
) -> None:
    if sprite_size not in SPRITES or image_size < sprite_size:
        raise DataError(
            f"moving_emoji: sprite_size {sprite_size} on an image_size of {image_size}",
            fix=f"sprite_size is one of {', '.join(map(str, SPRITES))}, and image_size not smaller",
        )
    least = {"num_frames": num_frames, "clips_per_emoji": clips_per_emoji, "max_speed": max_speed}
    check_at_least("moving_emoji", 1, **least)
    check_at_least("moving_emoji", 0, use_image_num=stills)
    if max_speed * (num_frames - 1) > image_size - sprite_size:
        raise DataError(
            f"moving_emoji: in {num_frames} frames at {max_speed} pixels an emoji would leave the canvas",
            why=f"there are {image_size - sprite_size} pixels to cross",
            fix="lower max_speed or num_frames, or enlarge image_size",
        )
