"""`genzoo sample RUN --prompts FILE`: a folder for each prompt, and a table that evaluation reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from genzoo.api.sampling.prompt_list import folder_name, read_prompt_list, sample_list_to
from genzoo.cli import main
from genzoo.core.errors import DataError, UsageError
from genzoo.evaluation.evaluate_concepts import read_prompts


class Drawing:
    """A run whose samples are empty files."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def sample_to(self, folder: Path, **options: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(options["num"]):
            (folder / f"{index:06d}.png").touch()
        self.calls.append(options)


def test_each_prompt_has_a_folder_and_every_picture_its_prompt(tmp_path: Path) -> None:
    run, prompts = Drawing(), ["a <new1> cat", "a pot, blue"]
    root = sample_list_to(run.sample_to, tmp_path / "out", prompts, num=2, steps=3)
    assert [call["prompt"] for call in run.calls] == prompts
    assert all(call["steps"] == 3 for call in run.calls)
    table = json.loads((root / "prompts.json").read_text())
    pictures = {path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.png")}
    assert table.keys() == pictures
    assert table["001-a-pot-blue/000001"] == "a pot, blue"
    # the whole, and one prompt's folder alone
    assert read_prompts(root)["000-a-new1-cat/000000"] == "a <new1> cat"
    assert read_prompts(root / "001-a-pot-blue")["000000"] == "a pot, blue"


def test_a_folder_of_others_is_not_written_and_ones_own_grows(tmp_path: Path) -> None:
    run, prompts = Drawing(), ["a cat"]
    for mine, text in (("photo.png", ""), ("prompts.json", '["a cat"]'), ("prompts.json", '{"a": "a cat"}')):
        (tmp_path / mine).write_text(text)  # such as the list itself
        with pytest.raises(UsageError, match="no place for samples of prompts"):
            sample_list_to(run.sample_to, tmp_path, prompts, num=1)
        assert [path.name for path in tmp_path.iterdir()] == [mine]
        assert (tmp_path / mine).read_text() == text
        (tmp_path / mine).unlink()
    root = sample_list_to(run.sample_to, tmp_path / "out", prompts, num=1)
    (root / "000-a-cat/samples.json").write_text("{}")
    sample_list_to(run.sample_to, root, [*prompts, "a dog"], num=2)
    assert len(json.loads((root / "prompts.json").read_text())) == 4


def test_tables_of_bare_stems_and_of_other_folders_are_read_as_before(tmp_path: Path) -> None:
    (tmp_path / "prompts.json").write_text(json.dumps({"a.png": "a cat", "elsewhere/b.png": "a dog"}))
    assert read_prompts(tmp_path) == {"a": "a cat", "b": "a dog", "elsewhere/b": "a dog"}


def test_lists_are_lines_or_json(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a cat\n\n a dog \n")
    (tmp_path / "b.json").write_text('["a cat", "a dog"]')
    assert read_prompt_list(tmp_path / "a.txt") == read_prompt_list(tmp_path / "b.json") == ["a cat", "a dog"]
    assert folder_name(3, "...") == "003"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}', "no list of prompts"),
        ('["a", "a"]', "in the list twice"),
        ('["a", ""]', "no list of prompts"),
    ],
)
def test_other_lists_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_prompt_list(tmp_path / "a.json")


def test_command_takes_one_of_prompt_and_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("a cat\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("")
    for other, said in ((["--prompt", "a"], "both say what to show"), (["--npz"], "--npz is of one folder")):
        with pytest.raises(SystemExit) as ended:
            main(["sample", str(tmp_path / "run"), *other, "--prompts", str(tmp_path / "a.txt")])
        assert ended.value.code == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "run" / "samples").exists()
