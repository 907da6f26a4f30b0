"""What shells complete: names and paths, by scripts for three shells, without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from genzoo.api.commands import completion


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for run in ("cats", "dogs"):
        (tmp_path / "runs" / run).mkdir(parents=True)
        (tmp_path / "runs" / run / "recipe.yaml").write_text("name: x\n")
    (tmp_path / "runs" / "empty").mkdir()
    (tmp_path / "mine.yaml").write_text("name: x\n")
    (tmp_path / "weights.safetensors").write_bytes(b"")
    (tmp_path / ".hidden").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_runs_are_those_with_a_recipe_then_folders_and_weights(place: Path) -> None:
    names = ("dim_emoji", "matten_emoji", "text_to_image_emoji", "var_emoji", "vqvae_emoji")
    ship = [f"assets:{name}" for name in names]
    assert completion.runs("") == ["runs/cats", "runs/dogs", *ship, "runs/", "weights.safetensors"]
    assert completion.runs("assets:va") == ["assets:var_emoji"]
    assert completion.runs("runs/c") == ["runs/cats"]
    assert completion.runs("runs/e") == ["runs/empty/"]
    assert completion.runs("nowhere/") == []


def test_recipes_are_names_and_files(place: Path) -> None:
    assert "quickstart/dim_digits" in completion.recipes("quickstart/")
    assert completion.recipes("mi") == ["mine.yaml"]
    assert completion.recipes(".h") == [".hidden/"]


@pytest.mark.parametrize(
    ("names", "one"), [("models", "dim_s4"), ("kinds", "samplers"), ("protocols", "adm-50k")]
)
def test_names_begin_as_typed(names: str, one: str) -> None:
    assert one in getattr(completion, names)(one[:3])
    assert getattr(completion, names)("zzz") == []


def completed(words: str) -> list[str]:
    """What bash is told after these words."""
    env = {
        **os.environ,
        "_GENZOO_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    code = (
        "import sys; from genzoo.cli import main\ntry: main([])\nfinally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert "AssertionError" not in done.stderr, done.stderr
    return done.stdout.split()


def test_bash_is_told_commands_recipes_and_options_of_lazy_commands() -> None:
    assert completed("genzoo tr") == ["train"]
    assert completed("genzoo train quickstart/dim_digits_") == ["quickstart/dim_digits_paper"]
    assert completed("genzoo evaluate X --guid") == ["--guidance-scale"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(shell: str) -> None:
    env = {**os.environ, "_GENZOO_COMPLETE": f"source_{shell}"}
    code = "from genzoo.cli import main; main([])"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert "_GENZOO_COMPLETE" in done.stdout
    assert "genzoo" in done.stdout
