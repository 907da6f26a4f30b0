"""Families of other packages: found by entry point or by name, with their recipes, commands and errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

CARD = """
from genzoo.core.registry import COMMANDS, MODELS

MODELS.lazy("own_dit", "own_family.model:OwnDiT", help="a transformer from outside", port="denoiser")
COMMANDS.lazy("own-greeting", "own_family.model:greet", help="Greet.")
"""
MODEL = """
from genzoo.families.dim.dit import DiT as OwnDiT


def greet() -> None:
    print("greetings from outside")
"""
RECIPE = """# a recipe from outside
name: own_digits
task: {name: latent_diffusion, loss: {name: noise_mse}}
model: {base: models/own_small}
data: {base: data/digits}
sampler: {name: ddim, steps: 2}
train: {base: train/cpu, steps: 1, batch_size: 4}
"""
NOUN = """# small
name: own_dit
depth: 1
hidden_size: 24
num_heads: 2
patch_size: 4
learn_sigma: false
num_classes: auto
input_size: auto
in_channels: auto
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder that holds the package own_family, which is not installed."""
    files = {
        "own_family/__init__.py": CARD,
        "own_family/model.py": MODEL,
        "own_family/recipes/own_digits.yaml": RECIPE,
        "own_family/configs/models/own_small.yaml": NOUN,
    }
    for name, text in files.items():
        path = tmp_path / "outside" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "outside"


def install(folder: Path, module: str) -> None:
    """What an installer writes beside the package."""
    info = folder / "own_family-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-family\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[genzoo.families]\nown = {module}\n")


def genzoo(*arguments: str, path: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(path)])}
    command = [sys.executable, "-m", "genzoo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, timeout=120, check=False)


def test_an_installed_package_is_found_with_all_that_it_declares(package: Path, tmp_path: Path) -> None:
    install(package, "own_family")
    where = {"path": package, "cwd": tmp_path}
    assert "own_dit" in genzoo("list", "architectures", **where).stdout
    assert "a recipe from outside" in genzoo("list", "recipes", "own*", **where).stdout
    assert "name: own_dit" in genzoo("show", "own_digits", **where).stdout
    assert "greetings from outside" in genzoo("own-greeting", **where).stdout


def test_a_module_is_imported_by_name_from_beside_the_current_folder(package: Path, tmp_path: Path) -> None:
    where = {"path": tmp_path, "cwd": package}
    assert "own_dit" not in genzoo("list", "architectures", **where).stdout
    assert "own_dit" in genzoo("--import", "own_family", "list", "architectures", **where).stdout
    assert "name: own_dit" in genzoo("show", "own_digits", "--import=own_family", **where).stdout
    assert "greetings from outside" in genzoo("--import", "own_family", "own-greeting", **where).stdout


def test_a_run_of_an_outside_model_trains_and_samples(package: Path, tmp_path: Path) -> None:
    where = {"path": tmp_path, "cwd": package}
    trained = genzoo("--import", "own_family", "train", "own_digits", "--output", "run", **where)
    assert trained.returncode == 0, trained.stderr
    sampled = genzoo("sample", "run", "--num", "2", "--import", "own_family", **where)
    assert sampled.returncode == 0, sampled.stderr
    assert "run/samples" in sampled.stdout


def test_a_broken_package_is_named_and_stops_no_command_that_does_not_need_it(
    package: Path, tmp_path: Path
) -> None:
    (package / "own_family/__init__.py").write_text("import no_such_thing\n")
    install(package, "own_family")
    where = {"path": package, "cwd": tmp_path}
    listed = genzoo("list", "tasks", **where)
    assert listed.returncode == 0
    assert "latent_diffusion" in listed.stdout
    assert "the family 'own' (own_family) cannot be read: ModuleNotFoundError" in listed.stderr
    needed = genzoo("validate", "quickstart/dim_digits", "model.name=own_dit", **where)
    assert needed.returncode == 2
    assert "there is no model 'own_dit'" in needed.stderr
    assert (
        "the family 'own' cannot be read: ModuleNotFoundError: No module named 'no_such_thing'"
        in needed.stderr
    )


def test_a_module_that_cannot_be_imported_is_named(package: Path, tmp_path: Path) -> None:
    failed = genzoo("--import", "own_famly", "list", path=package, cwd=tmp_path)
    assert failed.returncode == 2
    assert "--import own_famly: this module cannot be imported" in failed.stderr
    assert (
        "--import needs the name of a module" in genzoo("list", "--import", path=package, cwd=tmp_path).stderr
    )
