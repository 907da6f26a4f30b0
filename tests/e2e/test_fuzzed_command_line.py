"""Nonsense for options, settings of recipes and of sampling is answered, never by a traceback or a bug."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from recipe_cases import TINY

from genzoo.api.run import train
from genzoo.cli import _add_registered_commands, app, main
from genzoo.core.recipe import recipe_from
from genzoo.core.recipe_tree import flatten

NUMBERS = ["0", "-1", "abc", "1e99", "99999999999999999999", "nan"]
TEXTS = ["", "[", "{", "=", "~nobody/x", "a" * 300, "/dev/null", "\udcff", "../..", "nosuch"]
VALUES = ["", "null", "-1", "1e999", ".nan", "true", "[]", "[[1]]", "{a: 1}", "nosuch", "\udcff", "9" * 400]

BASES: dict[str, list[str]] = {
    "sample": ["RUN", "--num", "1"],
    "export": ["RUN", "OUT/m.safetensors"],
    "count": ["dit_s8", "depth=1"],
    "convert": ["nosuch.pt", "OUT/converted"],
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("fuzz")
    recipe = {**TINY, "report": [], "preview": None, "train": {**TINY["train"], "steps": 2}}
    (folder / "tiny.yaml").write_text(recipe_from(recipe).to_yaml())
    train(recipe_from(recipe), output=folder / "run")
    (folder / "photos").mkdir()
    return {
        "RUN": str(folder / "run"),
        "TINY": str(folder / "tiny.yaml"),
        "PHOTOS": str(folder / "photos"),
        "OUT": str(folder / "out"),
    }


def options() -> list[tuple[str, str, bool]]:
    """(command, option, whether it wants a number) of everything that takes a value."""
    _add_registered_commands()
    found = []
    for name, command in _leaves(typer.main.get_command(app), []):
        context = command.make_context(name, [], resilient_parsing=True)
        for one in context.command.params:
            if one.param_type_name == "option" and not one.is_flag and one.name != "help":
                wants_number = one.type_descriptor.annotation in (int, float)
                found.append((name, max(one.opts, key=len), wants_number))
    return found


def _leaves(command: Any, names: list[str]) -> list[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        return [(" ".join(names), command)]
    return [leaf for name, below in command.commands.items() for leaf in _leaves(below, [*names, name])]


def answer(
    words: list[str], places: dict[str, str], capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    for short, place in places.items():
        words = [place + word[len(short) :] if word.split("/")[0] == short else word for word in words]
    try:
        main(words)
        code: Any = 0
    except SystemExit as end:
        code = end.code or 0
    said = capsys.readouterr()
    assert code in (0, 2, 3, 4, 5, 6), (words, code, said.err[-500:])
    assert "this is a bug" not in said.err, (words, said.err[-500:])
    assert "Traceback" not in said.err, words


OPTIONS = [one for one in options() if one[0] in BASES]


@pytest.mark.parametrize(("command", "option", "is_number"), OPTIONS, ids=str)
def test_nonsense_for_an_option_is_answered(
    places: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    option: str,
    is_number: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    for value in NUMBERS if is_number else TEXTS:
        answer([*command.split(), *BASES[command], option, value], places, capsys, tmp_path)


@pytest.mark.parametrize("key", [key for key, _ in flatten(TINY) if not key.startswith("report")])
def test_nonsense_in_a_recipe_is_answered(
    places: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path, key: str
) -> None:
    for value in VALUES:
        answer(["validate", places["TINY"], f"{key}={value}"], places, capsys, tmp_path)


@pytest.mark.parametrize(
    "key",
    ["class_labels", "steps", "sampler", "guidance_scale", "eta", "cfg_channels", "block_size", "num", "seed",
     "batch_size", "weights", "checkpoint", "device", "fps", "clip_format", "prompt", "control", "out"],
)  # fmt: skip
def test_nonsense_for_sampling_is_answered(
    places: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    num = [] if key == "num" else ["num=1"]
    for value in VALUES:
        answer(["sample", places["RUN"], *num, f"{key}={value}"], places, capsys, tmp_path)
