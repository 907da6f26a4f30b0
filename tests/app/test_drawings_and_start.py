"""A drawing becomes a control, an empty one is refused; the page's own process stays light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

pytest.importorskip("gradio")

from genzoo.app.worker.sampling import control
from genzoo.core.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
BUILT = """
import sys
from pathlib import Path
from genzoo.app.server import build
from genzoo.app.worker.client import Worker
place = Path(sys.argv[1])
build(place, place / "own", Worker(place / "log"), names=("localhost",), token="t" * 20, port=1, max_upload=1)
print(sorted(name for name in ("torch", "diffusers", "transformers", "accelerate") if name in sys.modules))
"""


def a_canvas(folder: Path, *, stroke: bool) -> str:
    picture = Image.new("RGB", (48, 32), "white")
    if stroke:
        ImageDraw.Draw(picture).line((12, 4, 30, 26), fill="black", width=3)
    picture.save(folder / "drawing.png")
    return str(folder / "drawing.png")


def test_a_black_stroke_on_white_is_a_white_one_on_black(tmp_path: Path) -> None:
    made = control("none", a_canvas(tmp_path, stroke=True), str(tmp_path / "control.png"), drawn=True)
    pixels = np.asarray(Image.open(made).convert("L"))
    assert pixels.shape == (32, 32)
    assert {int(pixels.min()), int(pixels.max())} == {0, 255}
    assert 0.02 < (pixels > 127).mean() < 0.3


def test_an_empty_canvas_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing is drawn yet"):
        control("none", a_canvas(tmp_path, stroke=False), str(tmp_path / "control.png"), drawn=True)
    assert not (tmp_path / "control.png").exists()


def test_the_page_is_built_without_torch(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILT, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
