"""Small folders of pictures and runs on them, made once; commands are called as a user types them."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from genzoo.cli import main

TINY = """
base: quickstart/dim_digits
name: tiny
model: {depth: 1, hidden_size: 24, patch_size: 4, d_state: 3}
data: {base: data/image_folder, root: "???", image_size: 12, horizontal_flip: false}
sampler: {steps: 3, block_size: 8}
optim: {base: optim/adamw, lr: 1e-3}
train: {steps: 4, batch_size: 6, checkpoint_every: 2, log_every: 1, tensorboard: false}
preview: null
report: []
held_out: null
"""


class Answer(NamedTuple):
    """code: the exit status.   text: all that was printed."""

    code: int
    text: str


Gz = Callable[..., Answer]


def fill(folder: Path, num: int = 5, *, seed: int = 0, size: tuple[int, int] = (14, 13)) -> Path:
    """Pictures 0.png, 1.png, ... of noise around a colour."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for index in range(num):
        levels = generator.integers(0, 60, (size[1], size[0], 3), dtype=np.uint8)
        levels[..., seed % 3] += 150
        Image.fromarray(levels).save(folder / f"{index}.png")
    return folder


def fill_classes(folder: Path, names: str = "abc", num: int = 4) -> Path:
    """A folder for each letter, with pictures."""
    for seed, name in enumerate(names):
        fill(folder / name, num, seed=seed)
    return folder


def spoil(picture: Path) -> None:
    """Cut a picture off, as a broken download does."""
    picture.write_bytes(picture.read_bytes()[:200])


@pytest.fixture
def gz(tmp_path: Path) -> Iterator[Gz]:
    """`gz("sample", "run", "--num", "1")`: a command in an empty folder, and what it answers.

    No answer of any of them may be a traceback or blame genzoo for what a user did.
    """
    before = Path.cwd()
    os.chdir(tmp_path)

    def call(*arguments: object) -> Answer:
        said = io.StringIO()
        code: object = 0
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                main([str(argument) for argument in arguments])
            except SystemExit as end:
                code = end.code
        text = said.getvalue()
        assert "Traceback" not in text
        assert "this is a bug" not in text
        return Answer(code if isinstance(code, int) else 0, text)

    yield call
    os.chdir(before)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny.yaml, the classes `abc`, `flat` without classes, and `run`, trained on `abc`."""
    folder = tmp_path_factory.mktemp("cases")
    (folder / "tiny.yaml").write_text(TINY)
    fill_classes(folder / "abc")
    fill(folder / "flat")
    with pytest.raises(SystemExit) as end:
        main(
            [
                "train",
                str(folder / "tiny.yaml"),
                f"data.root={folder / 'abc'}",
                "--output",
                str(folder / "run"),
            ]
        )
    assert end.value.code == 0
    return folder
