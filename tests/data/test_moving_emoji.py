"""Moving emoji: what captions and labels say is what the clips show, everywhere the same."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from genzoo.core.errors import DataError
from genzoo.core.registry import DATASETS
from genzoo.data.emoji import Emoji
from genzoo.data.moving_emoji import MOTIONS, MovingEmoji

FEW: dict[str, Any] = {"names": ["red apple", "grapes", "black cat"], "styles": ["noto", "fluent_3d"]}


@pytest.fixture(scope="module")
def clips() -> MovingEmoji:
    return MovingEmoji(**FEW, num_frames=5, clips_per_emoji=2)


def box(frame: Tensor) -> tuple[int, int]:
    """Upper and left edge of what is not white."""
    drawn = (frame < 1).any(0)
    return int(drawn.any(1).nonzero()[0]), int(drawn.any(0).nonzero()[0])


def test_captions_say_what_is_seen(clips: MovingEmoji) -> None:
    assert len(clips) == 3 * 2 * 5 * 2
    assert clips.caption(0) == f"a {clips.items[0]['name']} moves left"
    seen = set()
    for index in range(len(clips)):
        item = clips.fetch(index)
        words = item["captions"]
        (motion,) = (name for name, (text, _) in MOTIONS.items() if words.endswith(text))
        corners = [box(frame) for frame in item["pixels"]]
        steps = {(y - top, x - left) for (top, left), (y, x) in pairwise(corners)}
        (step,) = steps  # one speed and one direction throughout
        assert tuple(int(torch.tensor(value).sign()) for value in step) == MOTIONS[motion][1]
        assert max(map(abs, step)) <= 2
        seen.add((motion, max(map(abs, step))))
    assert len(seen) == 4 * 2 + 1


def test_every_frame_holds_the_whole_emoji_on_white(clips: MovingEmoji) -> None:
    emoji = Emoji(**FEW, image_size=32)
    for index in (0, 13, len(clips) - 1):
        item = clips.fetch(index)
        assert item["pixels"].shape == clips.sample_shape == (5, 3, 32, 32)
        sprite = torch.nn.functional.avg_pool2d(emoji.images[index // 10].float(), 2).round() / 127.5 - 1
        for frame in item["pixels"]:
            assert torch.equal(
                frame.sum(0).flatten().sort().values[:256], sprite.sum(0).flatten().sort().values
            )
            assert (frame == 1).all(0).sum() >= 32 * 32 - 256


@pytest.mark.parametrize("classes", ["motion_category", "motion_name", "motion", "category", "name"])
def test_labels_are_motion_and_content(classes: str) -> None:
    clips = MovingEmoji(**FEW, classes=classes)
    for index in range(len(clips)):
        item = clips.fetch(index)
        source = clips.items[index // 5] | {"motion": list(MOTIONS)[index % 5]}
        name = " ".join(source[part] for part in classes.split("_"))
        assert clips.class_names[int(item["class_labels"])] == name
    assert clips.num_classes == {"motion_category": 35, "motion_name": 15, "motion": 5, "category": 7}.get(
        classes, 3
    )


def test_without_classes_there_are_captions_alone() -> None:
    clips = MovingEmoji(**FEW, classes="none", caption="{style}: {name}, {motion}", use_image_num=2)
    assert (clips.num_classes, clips.class_names) == (None, None)
    item = clips.fetch(3)
    assert set(item) == {"pixels", "captions", "image_pixels"}
    assert item["captions"].startswith("noto: ")


def test_clips_are_the_same_in_every_selection_and_batch(clips: MovingEmoji) -> None:
    alone = MovingEmoji(names=["black cat"], styles=["fluent_3d"], num_frames=5, clips_per_emoji=2)
    captions = [clips.caption(index) for index in range(len(clips))]
    place = len(captions) - 1 - captions[::-1].index(alone.caption(9))
    assert torch.equal(alone.fetch(9)["pixels"], clips.fetch(place)["pixels"])
    batch = clips.fetch_many([4, 31], [None, None])
    for row, index in enumerate((4, 31)):
        item = clips.fetch(index)
        assert all(torch.equal(batch[key][row], item[key]) for key in ("pixels", "class_labels"))
        assert batch["captions"][row] == item["captions"]
    same = MovingEmoji(**FEW, num_frames=5, clips_per_emoji=2)
    assert same.fingerprint == clips.fingerprint
    assert MovingEmoji(**FEW, num_frames=5, clips_per_emoji=2, max_speed=1).fingerprint != clips.fingerprint


def test_a_grid_holds_every_place_and_speed() -> None:
    clips = MovingEmoji(**FEW, image_size=28, num_frames=4, max_speed=4, grid=2, clips_per_emoji=3)
    assert not (clips.corners % 2).any()
    steps = clips.corners.diff(dim=1).abs().amax((1, 2))
    assert set(steps.tolist()) == {0, 2, 4}
    assert set(clips.corners.unique().tolist()) == {0, 2, 4, 6, 8, 10, 12}


def test_stills_are_frames_with_their_labels() -> None:
    clips = MovingEmoji(**FEW, use_image_num=3, classes="name")
    item = clips.fetch(0, torch.Generator().manual_seed(0))
    assert item["image_pixels"].shape == (3, 3, 32, 32)
    for still, label in zip(item["image_pixels"], item["image_labels"], strict=True):
        values = still.sum(0).flatten().sort().values[:256]
        matches = [
            clips.class_names.index(source["name"])
            for source, sprite in zip(clips.items, clips.sprites, strict=True)
            if torch.allclose((sprite.float() / 127.5 - 1).sum(0).flatten().sort().values, values)
        ]
        assert matches == [int(label)]
    again = clips.fetch(0, torch.Generator().manual_seed(1))
    assert not torch.equal(again["image_pixels"], item["image_pixels"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sprite_size": 12}, "sprite_size 12"),
        ({"image_size": 8}, "image_size of 8"),
        ({"max_speed": 9}, "would leave the canvas"),
        ({"grid": 3}, "grid 3 does not divide the way of 16 pixels and max_speed 2"),
        ({"grid": 0}, "grid 0"),
        ({"motions": ["lfet"]}, "did you mean 'left'"),
        ({"motions": []}, "motions 0, but it is at least 1"),
        ({"classes": "motions"}, "did you mean 'motion"),
        ({"use_image_num": -1}, "use_image_num -1"),
    ],
)
def test_wrong_moving_emoji_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        DATASETS.get("moving_emoji")(**FEW, **options)
