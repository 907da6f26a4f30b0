"""Runs on small folders, made once; commands are called as a user types them."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from users_cases import TINY, Answer, Gz, fill, fill_classes

from genzoo.cli import main


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
