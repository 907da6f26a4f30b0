"""What a process notes where torchrun looks for the first error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from genzoo.api.commands.terminal import report_error
from genzoo.cli import main
from genzoo.core.errors import DataError, exit_code_of


def test_an_error_is_noted_with_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises(SystemExit) as ended:
        main(["train", "no_such_recipe"])
    noted = json.loads((tmp_path / "error.json").read_text())["message"]
    assert noted["extraInfo"]["exit_code"] == ended.value.code != 0
    assert "no_such_recipe" in noted["message"]
    assert noted["extraInfo"]["timestamp"].isdigit()
    assert "no_such_recipe" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "file" / "error.json"))
    with pytest.raises(SystemExit):
        main(["train", "no_such_recipe"])
    assert "no_such_recipe" in capsys.readouterr().err


ERRORS = [
    DataError("a picture is gone"),
    FileNotFoundError(2, "No such file or directory"),
    ImportError("No module named 'av'"),
    RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("mat1 and mat2 do not fit"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"{type(error).__name__}: {error}"[:40])
def test_other_processes_and_status_json_hear_the_code_of_the_command(error: Exception) -> None:
    assert exit_code_of(error) == report_error(error)
