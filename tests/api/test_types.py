"""What a type checker sees of the top-level names: planted mistakes are found, right code is not blamed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """import genzoo

recipe = genzoo.load_recipe("recipes/quickstart/dim_digits.yaml", ["train.steps=5"])
run = genzoo.train(recipe, output="x")
run.sample(num=2, seed=1).grid()
names: list[str] = genzoo.list_models("dim*")
model = genzoo.create_model("dim_b4", num_classes=10)

genzoo.train(recipe, outptu="x")  # wrong
run.smaple()  # wrong
genzoo.load_recipe(3)  # wrong
genzoo.create_model(1)  # wrong
genzoo.merge_concepts(["a.safetensors"], bas="b")  # wrong
genzoo.count()  # wrong
genzoo.load_run("x").evaluate(3)  # wrong
genzoo.trian(recipe)  # wrong
genzoo.kernels.selective_scan(1)  # wrong
"""
# torch and the others count as Any: what is looked at are genzoo's own signatures, in seconds and not minutes
CONFIG = """[mypy]
ignore_missing_imports = True
follow_imports = silent
[mypy-torch.*,torchvision.*,diffusers.*,transformers.*,accelerate.*,numpy.*,PIL.*,triton.*,rich.*,einops.*]
follow_imports = skip
"""


@pytest.mark.slow
def test_a_users_mistakes_are_found_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="the extra `dev` brings mypy")
    (tmp_path / "user.py").write_text(SCRIPT)
    (tmp_path / "mypy.ini").write_text(CONFIG)
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", "cache", "user.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "MYPYPATH": str(Path(__file__).parents[2])},
    )
    blamed = {int(line) for line in re.findall(r"user\.py:(\d+): error", found.stdout)}
    planted = {number for number, line in enumerate(SCRIPT.splitlines(), 1) if "# wrong" in line}
    assert blamed == planted, found.stdout
