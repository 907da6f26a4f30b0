"""A cache of reference statistics that cannot be written is a warning, and the numbers are the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipe_cases import TINY

from genzoo.api.run import Run, train
from genzoo.core.recipe import recipe_from


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return train(recipe_from({**TINY, "report": [], "preview": None}), output=tmp_path / "run")


def test_evaluation_goes_on_without_a_cache(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    expected = run.evaluate("quick-pixels", num=12).metrics
    assert list((tmp_path / "cache/reference").glob("*.safetensors"))
    (tmp_path / "file").touch()
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "file/below"))
    assert run.evaluate("quick-pixels", num=12).metrics == expected
    assert "not kept" in caplog.text
