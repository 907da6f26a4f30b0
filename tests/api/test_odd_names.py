"""Names may hold bytes that are no UTF-8: they are written, read and logged, or refused at once."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from recipe_cases import TINY

from genzoo.api.run import Run, train
from genzoo.api.runs.conversion import export
from genzoo.cli import main
from genzoo.core.errors import UsageError
from genzoo.core.recipe import recipe_from
from genzoo.core.run_folder import RunFolder

BYTES = b"caf\xe9 \xff"


def odd(folder: Path) -> Path:
    return Path(os.fsdecode(os.fsencode(folder) + b"/" + BYTES))


def code(*arguments: str) -> object:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return stop.value.code or 0


def test_samples_and_results_take_names_that_are_no_utf8(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    samples, result = odd(tmp_path), tmp_path / os.fsdecode(BYTES + b".json")
    assert code("sample", str(trained.folder), "--num", "8", "--steps", "2", "--out", str(samples)) == 0
    options = ("--protocol", "quick-pixels", "--reference", str(samples), "--num", "8")
    assert code("evaluate", str(samples), *options, "--output", str(result)) == 0
    assert json.loads(result.read_text())["metrics"]["pixel_frechet"] == pytest.approx(0, abs=1e-6)


def test_a_command_with_such_a_name_is_recorded_byte_by_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["genzoo", "train", os.fsdecode(BYTES)])
    folder = RunFolder(tmp_path / "run")
    with folder.lock():
        folder.describe()
    assert BYTES in (tmp_path / "run" / "command.txt").read_bytes()


def test_weights_are_not_written_where_they_could_not_be_read(trained: Run, tmp_path: Path) -> None:
    place = odd(tmp_path)
    for refused in (
        lambda: train(recipe_from({**TINY, "report": []}), output=place),
        lambda: export(trained, place / "a.safetensors"),
    ):
        with pytest.raises(UsageError, match=r"caf\\xe9 .*could not be read again"):
            refused()
    assert code("train", "quickstart/dim_digits", "--output", str(place)) == 2
    assert not place.exists()
