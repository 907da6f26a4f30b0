"""`--json` prints one object on stdout, and nothing else there; words go to stderr."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_cases import all_commands
from recipe_cases import TINY

from genzoo.cli import main
from genzoo.pictures.grid import make_grid

QUIET = {**TINY, "preview": None, "report": [], "train": {**TINY["train"], "steps": 2, "batch_size": 4}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("json")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(QUIET))
    main_exit("train", str(folder / "tiny.yaml"), "--output", str(folder / "run"))
    (folder / "photos").mkdir()
    picture = torch.arange(3 * 20 * 20, dtype=torch.uint8).reshape(1, 3, 20, 20)
    for name in ("a", "b"):
        make_grid(picture, gap=0).image.save(folder / "photos" / f"{name}.png")
    (folder / "packed").mkdir()
    with tarfile.open(folder / "packed" / "part-0.tar", "w") as archive:
        archive.add(folder / "photos" / "a.png", "a.png")
    return folder


def main_exit(*words: str) -> int:
    """Run the command line; its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    return int(caught.value.code or 0)


CASES = {
    "list": (["list", "codecs"], {"codecs"}),
    "show": (["show", "tiny.yaml", "optim.lr=0.5"], {"recipe", "origins"}),
    "show-plain": (["show", "tiny.yaml", "--plain"], {"recipe"}),
    "validate": (["validate", "tiny.yaml"], {"tiny.yaml"}),
    "count": (["count", "dim_s8"], {"params", "gflops"}),
    "dry-run": (["train", "tiny.yaml", "--dry-run", "--output", "other"], {"steps"}),
    "train": (["train", "tiny.yaml", "--output", "trained"], {"run", "step", "report"}),
    "launch": (["launch", "slurm", "tiny.yaml"], {"path", "start"}),
    "launch-print": (["launch", "torchrun", "tiny.yaml", "--print"], {"script"}),
    "shards": (["prepare", "shards", "packed"], {"shards", "samples", "made", "ignored"}),
    "sample": (["sample", "run", "num=2", "steps=2", "out=drawn"], {"path", "files"}),
    "export": (["export", "run", "model.safetensors"], {"path", "bytes"}),
    "rerun": (["rerun", "run", "--output", "again", "--compare"], {"run", "losses"}),
    "controls": (["prepare", "controls", "photos", "control=canny", "output=edges"], {"built", "sheet"}),
    "check": (["prepare", "check", "photos"], set()),
    "evaluate": (["evaluate", "run", "protocol=quick-pixels", "num=4", "steps=2"], {"metrics", "protocol"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_one_object_and_nothing_else(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    words, keys = CASES[name]
    code = main_exit(*words, "--json")
    printed = capfd.readouterr()
    assert code == 0, printed.err
    found: dict[str, Any] = json.loads(printed.out)
    assert keys <= set(found), sorted(found)


WITHOUT_JSON = {"app": "it serves a page until it is stopped, and prints the page's link alone"}


@pytest.mark.parametrize(("command", "parameters"), [(name, each.params) for name, each in all_commands()])
def test_every_command_that_prints_facts_prints_them_as_json(command: str, parameters: list[Any]) -> None:
    has = any("--json" in parameter.opts for parameter in parameters)
    assert has != (command in WITHOUT_JSON), WITHOUT_JSON.get(command, "a script cannot read what it prints")


def test_what_is_printed_is_true(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    main_exit("show", "tiny.yaml", "optim.lr=0.5", "--json")
    shown = json.loads(capfd.readouterr().out)
    assert shown["recipe"]["optim"]["lr"] == 0.5
    assert shown["origins"]["optim.lr"].startswith("override")
    main_exit("export", "run", "again.safetensors", "--json")
    written = json.loads(capfd.readouterr().out)
    assert written["bytes"] == Path(written["path"]).stat().st_size
    main_exit("launch", "skypilot", "tiny.yaml", "--json")
    launched = json.loads(capfd.readouterr().out)
    assert launched["path"] in launched["start"]
    assert "tiny.yaml" in Path(launched["path"]).read_text()
    main_exit("train", "tiny.yaml", "--output", "run", "--json")  # it is done: its numbers are told again
    trained = json.loads(capfd.readouterr().out)
    assert (trained["run"], trained["step"]) == ("run", 2)


def test_an_error_goes_to_stderr_alone(capfd: pytest.CaptureFixture[str]) -> None:
    assert main_exit("validate", "no_such_recipe", "--json") == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "no_such_recipe" in printed.err
