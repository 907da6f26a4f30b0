"""Nonsense for any parameter of any command, for recipes and for sampling is answered in a few lines.

Everything is read from the command line itself: a new command or option is tested by being there. The
ordinary tests take a few values of each kind; `make fuzz` takes all of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from command_cases import all_commands
from PIL import Image
from recipe_cases import TINY

from genzoo.api.run import train
from genzoo.cli import main
from genzoo.core.recipe import recipe_from
from genzoo.core.recipe_tree import flatten

WHOLE = bool(os.environ.get("GENZOO_FUZZ"))
NUMBERS = ["0", "-1", "abc", "nan"]
MORE_NUMBERS = ["", "1e99", "inf", "-inf", "99999999999999999999", "1.5", "[1]", "null", "٣"]
TEXTS = ["", "[", "=", "nosuch", "FOLDER", "FILE", "\udcff", "{a: 1}"]
MORE_TEXTS = [
    *("{", "~nobody/x", "a" * 300, "/" + "a" * 5000, "/dev/null", "/dev/full", "../..", "a\x00b", "\x1b[31m"),
    *(
        "-5",
        "NaN",
        "1e999",
        "[[1],",
        "???",
        "${HOME}",
        "*",
        "a\nb",
        "ünï/cödé",
        "/proc/self/mem",
        "LINK",
        "assets:x",
    ),
    *("nobody/nothing", "a/b/c", "x:y", "--", "-"),
]
SETTINGS = ["", "null", "-1", "1e999", ".nan", "true", "[]", "[[1]]", "{a: 1}", "nosuch", "\udcff", "9" * 400]

# what else a command needs to get as far as the value: nonsense comes last. Commands that are not here get
# "nosuch" for whatever they insist on, and so look at their options first.
WORDS: dict[str, list[str]] = {
    "show": ["TINY"],
    "validate": ["TINY"],
    "train": ["TINY", "--dry-run"],
    "count": ["dit_s8", "depth=1"],
    "convert": ["WEIGHTS", "OUT/converted"],
    "export": ["RUN", "OUT/m.safetensors"],
    "rerun": ["RUN", "--steps", "1", "--output", "OUT/again"],
    "sample": ["RUN", "--num", "1"],
    "evaluate": ["PHOTOS", "--reference", "PHOTOS", "--protocol", "quick-pixels", "--num", "4"],
    "prepare latents": ["TINY"],
    "prepare controls": ["PHOTOS", "--control", "canny", "--output", "OUT/edges"],
    "prepare regularization": ["cat", "--folder", "PHOTOS", "--output", "OUT/class", "--num", "2"],
}
SLOW = ("doctor",)  # no parameters


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("fuzz")
    recipe = {**TINY, "report": [], "preview": None, "train": {**TINY["train"], "steps": 2}}
    (folder / "tiny.yaml").write_text(recipe_from(recipe).to_yaml())
    train(recipe_from(recipe), output=folder / "run")
    (folder / "photos").mkdir()
    for index in range(6):
        Image.new("RGB", (9, 12), (40 * index, 3, 90)).save(folder / "photos" / f"{index}.png")
    torch.save({"a": torch.ones(2)}, folder / "weights.pt")
    (folder / "loop").symlink_to(folder / "loop")
    return {
        "RUN": str(folder / "run"),
        "TINY": str(folder / "tiny.yaml"),
        "PHOTOS": str(folder / "photos"),
        "FOLDER": str(folder / "photos"),
        "WEIGHTS": str(folder / "weights.pt"),
        "FILE": str(folder / "photos" / "0.png"),
        "LINK": str(folder / "loop"),
        "OUT": str(folder / "out"),
    }


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own, and a page that would be served until somebody stops it is not."""
    monkeypatch.chdir(tmp_path)
    if find_spec("gradio"):
        monkeypatch.setattr("genzoo.app.server.serve", lambda *_args, **_options: None)


def options() -> Iterator[tuple[str, str, bool]]:
    """(command, option, whether it wants a number) of everything that takes a value."""
    for name, command in all_commands():
        for one in command.params:
            if one.param_type_name == "option" and not one.is_flag and one.name != "help":
                yield name, max(one.opts, key=len), one.type_descriptor.annotation in (int, float)


def arguments() -> Iterator[tuple[str, int]]:
    """(command, position) of every argument."""
    for name, command in all_commands():
        named = [one for one in command.params if one.param_type_name == "argument"]
        yield from ((name, position) for position in range(len(named)))


def words_of(command: str) -> list[str]:
    """The command with what it insists on."""
    if command in WORDS:
        return [*command.split(), *WORDS[command]]
    params = dict(all_commands())[command].params
    needed = [one for one in params if one.required]
    named = [
        ["nosuch"] if one.param_type_name == "argument" else [max(one.opts, key=len), "nosuch"]
        for one in needed
    ]
    return [*command.split(), *(word for words in named for word in words)]


def answer(words: list[str], places: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        places[word.split("/")[0]] + word[len(word.split("/")[0]) :] if word.split("/")[0] in places else word
        for word in words
    ]
    try:
        main(words)
        code: Any = 0
    except SystemExit as end:
        code = end.code or 0
    said = capsys.readouterr()
    assert code in (0, 2, 3, 4, 5, 6), (words, code, said.err[-500:])
    assert "this is a bug" not in said.err, (words, said.err[-500:])
    assert "Traceback" not in said.err, words
    assert code == 0 or said.err.strip(), words


@pytest.mark.parametrize(("command", "option", "is_number"), list(options()), ids=str)
def test_nonsense_for_an_option_is_answered(
    places: dict[str, str], capsys: pytest.CaptureFixture[str], command: str, option: str, is_number: bool
) -> None:
    few, more = (NUMBERS, MORE_NUMBERS) if is_number else (TEXTS, MORE_TEXTS)
    for value in [*few, *(more if WHOLE else ())]:
        answer([*words_of(command), option, value], places, capsys)
        if WHOLE:
            answer([*words_of(command), f"{option}={value}"], places, capsys)


@pytest.mark.parametrize(("command", "position"), list(arguments()), ids=str)
def test_nonsense_for_an_argument_is_answered(
    places: dict[str, str], capsys: pytest.CaptureFixture[str], command: str, position: int
) -> None:
    start = len(command.split())
    words = words_of(command)
    for value in [*TEXTS, *(MORE_TEXTS if WHOLE else ())]:
        if value.startswith("-") or "\x00" in value:
            value = f"x{value}"
        tried = [*words[: start + position], value, *words[start + position + 1 :]]
        answer(tried, places, capsys)
        if WHOLE:
            answer([*words, value], places, capsys)


@pytest.mark.parametrize("key", [key for key, _ in flatten(TINY) if not key.startswith("report")])
def test_nonsense_in_a_recipe_is_answered(
    places: dict[str, str], capsys: pytest.CaptureFixture[str], key: str
) -> None:
    for value in SETTINGS:
        answer(["validate", "TINY", f"{key}={value}"], places, capsys)
        if WHOLE:
            answer(["train", "TINY", "--dry-run", f"{key}={value}"], places, capsys)


SAMPLING = [
    *(
        "class_labels",
        "steps",
        "sampler",
        "guidance_scale",
        "eta",
        "cfg_channels",
        "block_size",
        "num",
        "seed",
    ),
    *("batch_size", "weights", "checkpoint", "device", "fps", "clip_format", "prompt", "control", "out"),
]


@pytest.mark.parametrize("key", SAMPLING)
def test_nonsense_for_sampling_is_answered(
    places: dict[str, str], capsys: pytest.CaptureFixture[str], key: str
) -> None:
    num = [] if key == "num" else ["num=1"]
    for value in SETTINGS:
        answer(["sample", "RUN", *num, f"{key}={value}"], places, capsys)


def test_the_grid_holds_every_command_and_option() -> None:
    commands = {name for name, _ in all_commands()}
    assert commands >= set(WORDS)
    assert {name for name, _ in arguments()} | set(SLOW) == commands
    assert len(list(options())) > 60
