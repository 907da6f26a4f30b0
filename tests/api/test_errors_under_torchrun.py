"""What a process notes where torchrun looks for the first error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from genzoo.cli import main


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
