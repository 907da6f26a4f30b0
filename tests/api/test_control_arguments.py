"""Controls on the command line: one picture, or several by the name of their extractor."""

from __future__ import annotations

from pathlib import Path

import pytest

from genzoo.api.commands.arguments import asks_for_rows, read_controls
from genzoo.core.errors import UsageError


def test_one_control_needs_no_name_and_several_do() -> None:
    assert read_controls(None) is None
    assert read_controls(["edges.png"]) == "edges.png"
    assert read_controls(["canny=edges.png"]) == {"canny": "edges.png"}
    assert read_controls(["canny=a.png", "hed=b=c.png"]) == {"canny": "a.png", "hed": "b=c.png"}
    for texts in (["a.png", "hed=b.png"], ["hed=a.png", "hed=b.png"]):
        with pytest.raises(UsageError, match="2 controls need a name each"):
            read_controls(texts)


def test_a_file_of_that_name_is_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("canny=edges.png").touch()
    assert read_controls(["canny=edges.png"]) == "canny=edges.png"
    assert read_controls(["other=edges.png"]) == "other=edges.png"


def test_lists_that_hold_for_all_samples_do_not_say_how_many_there_are() -> None:
    assert asks_for_rows({"class_labels": [1, 2]})
    assert not asks_for_rows({"control_scale": [1, 0.5], "control_runs": ["a", "b"], "steps": 3})
