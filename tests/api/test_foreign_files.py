"""Commands that write, over what is somebody else's: refused, named, and every byte as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from recipe_cases import TINY

from genzoo.api.run import Run, train
from genzoo.cli import main
from genzoo.core.errors import RecipeError
from genzoo.core.recipe import recipe_from

Snapshot = dict[str, bytes]


def content(folder: Path) -> Snapshot:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of somebody's: a recipe with comments, a paper, pictures under the names that genzoo uses."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "recipe.yaml").write_text("# mine\n" + recipe_from({**TINY, "report": []}).to_yaml())
    for name in ("README.md", "env.json", "paper.tex", "weights.safetensors"):
        (folder / name).write_text("mine")
    (folder / "photos").mkdir()
    for index in range(3):
        levels = np.random.default_rng(index).integers(0, 255, (9, 8, 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"photos/{index}.png")
    Image.fromarray(levels).save(folder / "preview.png")
    Image.fromarray(levels).save(folder / "photo.jpg")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "train recipe.yaml --output .",
        "train recipe.yaml --output . --dry-run",
        "train recipe.yaml --output photos",
        "train recipe.yaml name=../../x",
        "train recipe.yaml name=/tmp/x",
        "train recipe.yaml name=.",
        "train recipe.yaml name=..",
        "sample RUN --num 1 --out .",
        "sample RUN --num 1 --out photos",
        "sample RUN --num 1 --out paper.tex",
        "export RUN paper.tex",
        "export RUN weights.safetensors",
        "export RUN photos",
        "evaluate RUN --protocol quick-pixels --num 12 --output paper.tex",
        "convert weights.safetensors .",
        "convert weights.safetensors photos",
        "prepare controls photos --control canny -o photos",
        "prepare controls photos --control canny -o photos/edges",
        "prepare controls photo.jpg --control canny -o .",
        "prepare controls photos --control canny -o ./photos/../photos",
    ],
)
def test_nothing_of_the_users_is_replaced(
    project: Path, trained: Run, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    before = content(project)
    with pytest.raises(SystemExit) as stop:
        main(command.replace("RUN", str(trained.folder)).split())
    said = capsys.readouterr().err
    assert stop.value.code == 2, said
    assert "fix:" in said or "name" in said
    assert content(project) == before
    assert sorted(path.name for path in project.parent.iterdir()) == ["project"]


def test_controls_of_other_pictures_are_not_replaced(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "other").mkdir()
    Image.new("L", (4, 4)).save(project / "other/1.png")
    before = content(project / "other")
    call = ["prepare", "controls", "photos", "--control", "canny", "-o"]
    with pytest.raises(SystemExit) as stop:
        main([*call, "other"])
    assert stop.value.code == 2
    assert "no place for controls" in capsys.readouterr().err
    assert content(project / "other") == before
    classes = project / "photos/../classes"
    (classes / "cat").mkdir(parents=True)
    Image.new("L", (4, 4)).save(classes / "cat/9.png")  # of another name than any control
    with pytest.raises(SystemExit) as stop:
        main([*call, "classes"])
    assert stop.value.code == 2
    assert sorted(path.name for path in classes.rglob("*")) == ["9.png", "cat"]
    for _ in range(2):  # its own are found again
        with pytest.raises(SystemExit) as stop:
            main([*call, "edges"])
        assert not stop.value.code


def succeed(*command: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(list(command))
    assert not stop.value.code


def test_overwrite_replaces_on_purpose_and_results_of_ones_own_are_written_again(
    project: Path, trained: Run
) -> None:
    run = str(trained.folder)
    succeed("export", run, "weights.safetensors", "--overwrite")
    judge = ["evaluate", run, "--protocol", "quick-pixels", "--num", "12", "--output", "paper.tex"]
    succeed(*judge, "--overwrite")
    succeed(*judge)
    assert "genzoo_evaluation" in (project / "paper.tex").read_text()


def test_names_of_recipes_stay_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("../x", "/x", ".", "..", "a/b", ""):
        with pytest.raises(RecipeError, match="no such name"):
            train(recipe_from({**TINY, "name": name}))
    assert not list(tmp_path.iterdir())
