"""The rule of all that write: nothing of others is replaced, mixed with, or written through."""

from __future__ import annotations

from pathlib import Path

import pytest

from genzoo.core.claims import claim_file, claim_folder, is_name, refuse_links, require_apart
from genzoo.core.errors import UsageError
from genzoo.core.files import write_folder
from genzoo.core.run_folder import WRITTEN, RunFolder


def test_a_file_of_others_is_replaced_on_purpose_only(tmp_path: Path) -> None:
    path = tmp_path / "paper.tex"
    assert claim_file(path) == path
    path.write_text("mine")
    with pytest.raises(UsageError, match=r"(?s)exists already.*--overwrite"):
        claim_file(path, is_ours=lambda found: found.read_text() == "ours")
    assert claim_file(path, overwrite=True) == path
    assert claim_file(path, is_ours=lambda found: found.read_text() == "mine") == path
    with pytest.raises(UsageError, match="is a folder"):
        claim_file(tmp_path, overwrite=True)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="exists already"):
        claim_file(tmp_path / "link")


def test_a_folder_is_free_when_it_is_empty_or_ours(tmp_path: Path) -> None:
    assert claim_folder(tmp_path / "new", what="a run") == tmp_path / "new"
    (tmp_path / ".tmp-1-ab-x").touch()  # of a killed process
    claim_folder(tmp_path, what="a run")
    (tmp_path / "cat.png").touch()
    with pytest.raises(UsageError, match=r"(?s)no place for a run.*cat\.png"):
        claim_folder(tmp_path, what="a run")
    claim_folder(tmp_path, what="a run", is_ours=lambda path: True)
    with pytest.raises(UsageError, match="is a file"):
        claim_folder(tmp_path / "cat.png", what="a run")


@pytest.mark.parametrize("name", WRITTEN)
def test_nothing_is_written_through_a_link_in_a_run(tmp_path: Path, name: str) -> None:
    outside, run = tmp_path / "outside", tmp_path / "run"
    outside.mkdir()
    run.mkdir()
    (run / name).symlink_to(outside)
    with pytest.raises(UsageError, match="is a link, and nothing is written through it"):
        refuse_links(run, WRITTEN)
    with pytest.raises(UsageError, match="is a link"), RunFolder(run).lock():
        pass
    assert not list(outside.iterdir())


def test_a_run_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    with RunFolder(tmp_path / "run").lock():
        assert (tmp_path / "disk/.lock").exists()
    RunFolder(tmp_path / "run").require_own()


def test_logs_may_lie_in_a_new_run_and_a_project_may_not(tmp_path: Path) -> None:
    for name in ("slurm-3.out", "train.log", "errors.err", "notes.txt"):
        (tmp_path / name).touch()
    RunFolder(tmp_path).require_own()
    (tmp_path / "recipe.yaml").write_text("mine")
    with pytest.raises(UsageError, match=r"recipe\.yaml"):
        RunFolder(tmp_path).require_own()
    (tmp_path / "checkpoints").mkdir()
    RunFolder(tmp_path).require_own()


def test_what_is_read_is_not_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "again").symlink_to(tmp_path / "photos")
    for output in ("photos", "photos/edges", "again", "photos/../photos"):
        with pytest.raises(UsageError, match="where the pictures are read from"):
            require_apart(tmp_path / "photos", tmp_path / output)
    require_apart(tmp_path / "photos", tmp_path / "edges")
    require_apart(tmp_path / "photos", tmp_path)


def test_names_are_one_part_of_a_path() -> None:
    for name in ("dim_b4_imagenet", "my run-3", "v1.5", "Räume"):
        assert is_name(name)
    for name in (
        "",
        ".",
        "..",
        "../x",
        "/abs",
        "a/b",
        "a\\b",
        ".hidden",
        "c:",
        "-o",
        "a\0",
        "a\n",
        " a",
        "x" * 300,
    ):
        assert not is_name(name), name
    assert not is_name("x" * 300)


def test_a_folder_is_not_named_like_a_file_of_weights(tmp_path: Path) -> None:
    for suffix in (".safetensors", ".pt", ".CKPT"):
        with pytest.raises(UsageError, match="named like a file"):
            write_folder(tmp_path / f"cat{suffix}", {"a": b"1"})
    assert write_folder(tmp_path / "cat.v2", {"a": b"1"}).is_dir()
