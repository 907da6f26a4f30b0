"""One rule of all commands that write: what genzoo did not make is refused by name, and stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from recipe_cases import TINY

from genzoo.api.preparation.control_folder import extract_folder
from genzoo.api.run import Run, train
from genzoo.api.runs.conversion import convert, export
from genzoo.cli import main
from genzoo.core.errors import UsageError
from genzoo.core.recipe import recipe_from
from genzoo.data.latent_cache import build_latent_cache
from genzoo.pretrained.codecs import IdentityCodec


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of a user with pictures, notes and a file for every name that a command might take."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (9, 8), (number, 40, 90)).save(folder / f"{number}.png")
    for name in ("README.md", "recipe.yaml", "grid.png", "paper.tex", "weights.safetensors", "preview.png"):
        (folder / name).write_bytes(b"mine")
    return folder


COMMANDS = {
    "train": lambda run, mine: train(recipe_from(TINY), output=mine),
    "sample": lambda run, mine: run.sample_to(mine, num=2, steps=2),
    "export": lambda run, mine: export(run, mine / "weights.safetensors"),
    "convert": lambda run, mine: convert(export(run, mine.parent / "dit.pt.safetensors", layout="dit"), mine),
    "prepare controls into": lambda run, mine: extract_folder(mine / "0.png", mine, "canny"),
    "prepare controls over": lambda run, mine: extract_folder(mine, mine, "canny"),
    "prepare latents": lambda run, mine: build_latent_cache(run.dataset(), IdentityCodec(), mine),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_users_files_are_refused_and_stay(trained: Run, mine: Path, command: str) -> None:
    before = content(mine)
    with pytest.raises(UsageError) as caught:
        COMMANDS[command](trained, mine)
    assert str(mine) in str(caught.value) or "pictures" in str(caught.value)
    assert caught.value.fix
    assert content(mine) == before


def test_a_result_replaces_a_file_of_others_only_when_asked(
    trained: Run, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    paper = mine / "paper.tex"
    command = ["evaluate", str(trained.folder), "--protocol", "quick-pixels", "--num", "8", "steps=2"]
    with pytest.raises(SystemExit) as stop:
        main([*command, "--output", str(paper)])
    assert stop.value.code == 2
    assert paper.read_bytes() == b"mine"
    with pytest.raises(SystemExit) as stop:
        main([*command, "--output", str(paper), "--overwrite"])
    assert not stop.value.code
    assert b"genzoo_evaluation" in paper.read_bytes()


def test_a_cache_that_was_begun_is_gone_on_with(trained: Run, tmp_path: Path) -> None:
    first = build_latent_cache(trained.dataset(), IdentityCodec(), tmp_path / "cache")
    again = build_latent_cache(trained.dataset(), IdentityCodec(), tmp_path / "cache")
    assert first.built == again.reused > 0


def test_other_weights_in_the_folder_of_samples_are_refused(trained: Run, tmp_path: Path) -> None:
    out = tmp_path / "samples"
    trained.sample_to(out, num=2, steps=2, weights="ema")
    before = content(out)
    with pytest.raises(UsageError, match="other settings"):
        trained.sample_to(out, num=2, steps=2, weights="raw")
    assert content(out) == before


def test_the_weights_of_another_run_of_the_same_name_and_step_are_other_weights(
    trained: Run, tmp_path: Path
) -> None:
    other = train(
        recipe_from({**TINY, "train": {**TINY["train"], "seed": 8}}), output=tmp_path / trained.folder.name
    )
    out = tmp_path / "samples"
    trained.sample_to(out, num=2, steps=2)
    before = content(out)
    with pytest.raises(UsageError, match=r"weights_sha256: "):
        other.sample_to(out, num=2, steps=2)
    assert content(out) == before
