"""What the page asks its worker about concepts: photographs, a merge, files for other programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genzoo.app.worker.teaching import export, merge, photographs
from genzoo.core.errors import UsageError


def test_photographs_are_described_and_shown(sd: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 256, (24, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{seed}.png")
    given = (str(tmp_path / "photos"), str(sd), "my cat", str(tmp_path / "sheet.png"))
    found = photographs(*given, word="<mycat>")
    assert (found["count"], found["size"], found["prompt"]) == (3, 16, "photo of a <mycat> cat")
    assert Path(found["sheet"]).stat().st_size > 100


def test_a_merge_is_told_and_written_for_another_program(
    sd: Path, concepts: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "both.safetensors"
    found = merge([str(path) for path in concepts[:2]], [1.0, 0.5], str(sd), str(output))
    assert output.is_file()
    assert len(found["labels"]) == len(found["verdicts"]) == 2
    assert [len(row) for row in found["interference"]] == [2, 2]
    assert found["interference"][0][0] == pytest.approx(1)
    written = export(str(output), "a1111", str(tmp_path / "both"))
    assert any(path.endswith(".safetensors") for path in written["files"])
    assert written["lines"]
    with pytest.raises(UsageError):
        export(str(output), "no_such_program", str(tmp_path / "other"))
