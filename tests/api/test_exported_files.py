"""What `export` writes is a run again: sampled, judged, built, and nobody else's kind of file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import genzoo
from genzoo.api.run import Run, load_run
from genzoo.api.runs.conversion import convert, export
from genzoo.api.runs.open_file import open_file
from genzoo.cli import main
from genzoo.core.errors import CheckpointError, UsageError, WeightsError
from genzoo.core.exported import read_exported


def test_an_exported_file_samples_as_its_run_does(trained: Run, tmp_path: Path) -> None:
    for weights in ("ema", "raw"):
        path = export(trained, tmp_path / f"{weights}.safetensors", weights=weights)
        run = load_run(path)
        assert torch.equal(run.sample(num=3).pixels, trained.sample(num=3, weights=weights).pixels)
        assert (run.step, run.recipe.name) == (6, "tiny")
    with pytest.raises(SystemExit) as stop:
        main(["sample", str(path), "--num", "2", "--steps", "2"])
    assert not stop.value.code
    (made,) = (tmp_path / "raw/samples").iterdir()
    assert (made / "000001.png").is_file()
    with pytest.raises(UsageError, match="no data"):
        run.dataset()


def test_create_model_takes_an_exported_file(trained: Run, tmp_path: Path) -> None:
    path = export(trained, tmp_path / "half.safetensors", half=True)
    model = genzoo.create_model(str(path))
    expected = trained.task(weights="ema").model.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name].half().float()), name
    assert torch.isfinite(load_run(path).sample(num=1).pixels).all()
    with pytest.raises(CheckpointError):
        genzoo.create_model(str(path), hidden_size=32)


def test_an_exported_file_is_neither_a_concept_nor_anothers(trained: Run, tmp_path: Path) -> None:
    own, theirs = tmp_path / "own.safetensors", tmp_path / "dit.safetensors"
    export(trained, own)
    export(trained, theirs, layout="dit")
    assert read_exported(theirs) is None
    assert type(open_file(own)).__name__ == "ExportedFile"
    with pytest.raises(UsageError, match="genzoo's own"):
        convert(own, tmp_path / "run")


def test_a_file_without_a_recipe_says_what_it_is_good_for(trained: Run, tmp_path: Path) -> None:
    path = export(trained, tmp_path / "new.safetensors")
    metadata = {"format": "pt", "genzoo_model": '{"name": "dit"}'}
    save_file(load_file(path), tmp_path / "old.safetensors", metadata=metadata)
    with pytest.raises(UsageError, match=r"create_model\(FILE\)"):
        load_run(tmp_path / "old.safetensors")


def test_a_file_in_another_layout_says_what_it_is(trained: Run, tmp_path: Path) -> None:
    path = export(trained, tmp_path / "m.safetensors", layout="dit")
    with pytest.raises(
        UsageError, match=r"(?s)layout 'dit', for other programs.*convert m.safetensors RUN --from dit"
    ):
        load_run(path)


def test_a_damaged_file_is_taken_for_nothing_else(trained: Run, tmp_path: Path) -> None:
    whole = export(trained, tmp_path / "m.safetensors").read_bytes()
    for name, content in (("cut", whole[: len(whole) // 2]), ("junk", b"junk"), ("empty", b"")):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=name):
            load_run(path)


def test_the_users_umask_decides_who_reads_it(trained: Run, tmp_path: Path) -> None:
    example = tmp_path / "example"
    example.touch()
    path = export(trained, tmp_path / "m.safetensors")
    assert path.stat().st_mode == example.stat().st_mode


def test_the_metadata_name_no_place_of_this_machine(trained: Run, tmp_path: Path) -> None:
    found = read_exported(export(trained, tmp_path / "m.safetensors"))
    assert found is not None
    assert found.recipe is not None
    assert found.recipe["data"] == {"name": "digits"}


@pytest.mark.parametrize("layout", [None, "dit"])
def test_an_export_of_the_same_run_has_the_same_bytes(
    trained: Run, tmp_path: Path, layout: str | None
) -> None:
    paths = [export(trained, tmp_path / f"{name}.safetensors", layout=layout) for name in "ab"]
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    with safe_open(paths[0], "pt") as file:
        names = list(file.metadata())
    assert len(names) > 3  # the format's own library writes them in any order
    text = first[8 : 8 + int.from_bytes(first[:8], "little")].decode()
    assert list(json.loads(text)["__metadata__"]) == sorted(names)
