"""`auto`: a fact is looked for when a model asks for it, and not otherwise."""

from typing import Any

import pytest

from genzoo.api.recipes.facts import facts_for
from genzoo.core.errors import ShapeError
from genzoo.core.node import Node

EVERY = ("num_classes", "in_channels", "input_size", "num_frames")


class Data:
    """A data set of which only the shape is known; it tells how tall its people are."""

    num_classes = None
    tells = ("height",)
    height = 178

    def __init__(self, *shape: int) -> None:
        self.sample_shape = shape


class Halved:
    """A codec of five channels."""

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-3], 5, shape[-2] // 2, shape[-1] // 2)


def found(model: str, *names: str, shape: tuple[int, ...], codec: Any = None, **given: Any) -> dict[str, Any]:
    data: Any = Data(*shape)
    return facts_for(Node(model, {**dict.fromkeys(names, "auto"), **given}), data, codec)


def test_clips_tell_everything() -> None:
    expected = {"num_classes": 0, "in_channels": 3, "input_size": 16, "num_frames": 7}
    assert found("matten", *EVERY, shape=(7, 3, 16, 16)) == expected
    assert found("matten", *EVERY, shape=(7, 3, 16, 16), codec=Halved()) == expected | {
        "in_channels": 5,
        "input_size": 8,
    }


@pytest.mark.parametrize("model", ["dit", "dim", "matten", "latte", "dim_video"])
def test_models_of_patches_take_height_and_width(model: str) -> None:
    assert found(model, "input_size", shape=(3, 16, 24)) == {"input_size": [16, 24]}
    assert found(model, "input_size", shape=(3, 16, 24), codec=Halved()) == {"input_size": [8, 12]}


def test_a_model_of_squares_says_so_and_only_when_asked() -> None:
    with pytest.raises(ShapeError, match=r"text_to_image takes square samples, and these are \(3, 16, 24\)"):
        found("text_to_image", "input_size", shape=(3, 16, 24))
    assert found("text_to_image", "in_channels", shape=(3, 16, 24), input_size=8) == {"in_channels": 3}


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("num_frames", (3, 16, 16), "clips"),
        ("in_channels", (16,), "pictures"),
        ("input_size", (16, 16), "pictures"),
        ("input_size", (2, 7, 3, 16, 16), "pictures"),
    ],
)
def test_what_the_samples_do_not_tell_is_refused_by_name(
    name: str, shape: tuple[int, ...], words: str
) -> None:
    with pytest.raises(ShapeError, match=words) as caught:
        found("matten", name, shape=shape)
    assert f"set model.{name}" in str(caught.value)
    assert found("matten", "num_classes", shape=shape, **{name: 4}) == {"num_classes": 0}


def test_a_data_set_may_tell_more() -> None:
    assert found("dit", "height", "weight", shape=(3, 16, 16)) == {"height": 178}
