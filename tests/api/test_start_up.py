"""What a training loads: torch and its own modules, and no library that only sampling or measuring needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = "diffusers", "transformers", "peft", "scipy"
# torch loads its compiler, and with it sympy, when an optimizer makes its first step: not before
AND_LATER = "sympy", "torch._dynamo", "torchvision", "open_clip", "timm"

SCRIPT = """
import sys
from genzoo.api.training.train import build_trainer
print("import", *(name for name in {names} if name in sys.modules))
from genzoo.core.recipe import load_recipe
recipe = load_recipe("quickstart/dim_digits", ["train.steps=2", "train.batch_size=4", "preview.every=0"])
trainer, _ = build_trainer(recipe, output={output!r})
trainer.fit()
print("training", *(name for name in {names} if name in sys.modules))
"""


def test_training_loads_neither_diffusers_nor_what_it_brings(tmp_path: Path) -> None:
    code = SCRIPT.format(names=(*HEAVY, *AND_LATER), output=str(tmp_path / "run"))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    imported, trained = (line.split()[1:] for line in done.stdout.splitlines()[-2:])
    assert imported == []
    assert not set(trained) & set(HEAVY)


@pytest.mark.parametrize("words", [["validate", "nosuch"], ["train", "nosuch"], ["sample", "nosuch"]])
def test_a_misspelt_name_is_answered_before_torch_is_imported(words: list[str]) -> None:
    code = (
        "import sys; from genzoo.cli import main\n"
        f"try: main({words!r})\n"
        "except SystemExit as error: print(error.code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.split() == ["2", "False"], done.stderr
