"""The form of Sample becomes options that sampling takes, or is refused in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("gradio")

from genzoo.app.tabs.sample_form import Wish, command_of, options_of
from genzoo.app.tabs.start import settings_of
from genzoo.core.errors import UsageError

CLASSES: dict[str, Any] = {
    "prompt": False, "negative": False, "control": True, "classes": ["cat", "my dog", "3"], "steps": None,
    "guidance_scale": 4.0, "sampler": "next_scale", "samplers": ["next_scale"],
}  # fmt: skip
PROMPTED = CLASSES | {
    "prompt": True, "negative": True, "control": False, "classes": None, "steps": 50, "sampler": "ddim",
    "samplers": ["ddim", "heun"],
}  # fmt: skip
WISH = Wish(prompt="a cat", num=5, seed=3, steps=20, guidance=4.0, sampler="ddim")


def test_a_prompt_with_its_settings() -> None:
    wanted = {"num": 5, "seed": 3, "prompt": "a cat", "steps": 20, "guidance_scale": 4.0}
    assert options_of(PROMPTED, WISH) == wanted
    assert options_of(PROMPTED, replace(WISH, negative=" dog ", sampler="heun")) == wanted | {
        "negative_prompt": "dog",
        "sampler": "heun",
    }


def test_classes_are_taken_in_turn() -> None:
    wish = replace(WISH, sampler=None)
    assert "class_labels" not in options_of(CLASSES, wish)
    assert options_of(CLASSES, replace(wish, classes=["my dog"]))["class_labels"] == 1
    assert options_of(CLASSES, replace(wish, classes=["3", "cat"]))["class_labels"] == [2, 0, 2, 0, 2]


def test_a_control_comes_with_its_strength() -> None:
    wish = replace(WISH, sampler=None, control="/x/control.png", strength=0.5)
    assert {"control": "/x/control.png", "control_scale": 0.5}.items() <= options_of(CLASSES, wish).items()
    assert "control" not in options_of(CLASSES, replace(wish, control=None))


@pytest.mark.parametrize(
    "changes",
    [
        {"num": 0}, {"num": 65}, {"num": 2.5}, {"num": "4"}, {"num": None}, {"num": True},
        {"num": float("nan")}, {"seed": -1}, {"seed": 2**40}, {"seed": "x"}, {"steps": 0}, {"steps": 10**9},
        {"guidance": -1},
        {"guidance": float("inf")}, {"prompt": ""}, {"prompt": "  "}, {"prompt": 3}, {"prompt": "a" * 2001},
        {"prompt": "a\0b"}, {"negative": ["x"]}, {"sampler": "no_such"}, {"sampler": "../x"},
    ],
    ids=str,
)  # fmt: skip
def test_values_that_cannot_be_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        options_of(PROMPTED, replace(WISH, **changes))


@pytest.mark.parametrize("changes", [{"classes": ["lion"]}, {"classes": "cat"}, {"classes": [0]}], ids=str)
def test_classes_that_are_none_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="class"):
        options_of(CLASSES, replace(WISH, sampler=None, **changes))


def test_the_command_says_the_same() -> None:
    options = {"num": 2, "seed": 3, "prompt": "it's", "negative_prompt": "a: b", "class_labels": [1, 0]}
    assert command_of("assets:x", options) == (
        "genzoo sample assets:x --num 2 --seed 3 --prompt 'it'\"'\"'s' 'negative_prompt='\"'\"'a: b'\"'\"'' "
        "'class_labels=[1,0]'"
    )


def test_settings_are_words_with_values_and_no_options() -> None:
    assert settings_of("train.steps=20 data.root='my photos'") == ["train.steps=20", "data.root=my photos"]
    assert settings_of("") == []
    for text in ("--output=/x", "steps", "-x=1", "a='b", None, 3, "x" * 5000):
        with pytest.raises(UsageError):
            settings_of(text)
