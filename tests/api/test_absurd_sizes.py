"""Numbers that would fill a machine end in a message that names the limit, or in exit code 6, at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from recipe_cases import TINY

import genzoo
from genzoo.api.recipes import build, memory
from genzoo.cli import main
from genzoo.core.errors import OutOfMemoryError
from genzoo.core.memory import machine_memory
from genzoo.core.recipe import recipe_from

LIMITED = {
    "model.hidden_size=100000000": "at most 1,048,576",
    "model.depth=1000000": "at most 1,024",
    "model.num_classes=1000000000000": "at most 100,000,000",
    "train.batch_size=1000000000": "at most 1,048,576",
    "train.micro_batch_size=1000000000": "at most 1,048,576",
    "train.num_workers=1000000": "at most 1024",
    "sampler.block_size=1000000000": "at most 1,048,576",
    "sampler.steps=1000000000000": "at most 1,000,000,000",
    "data={name: moving_digits, image_size: 1000000000}": "at most 65,536",
    f"model.depth={'[' * 10_000}{']' * 10_000}": "levels",
}


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(recipe_from(TINY).to_yaml())
    return str(path)


@pytest.mark.parametrize("change", LIMITED, ids=lambda change: change[:40])
@pytest.mark.parametrize("command", ["validate", "train"])
def test_a_recipe_of_absurd_numbers_is_refused_by_its_limit(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, change: str
) -> None:
    output = ["--output", str(tmp_path / "run")] if command == "train" else []
    with pytest.raises(SystemExit) as stop:
        main([command, recipe, change, *output])
    assert stop.value.code == 2
    assert LIMITED[change] in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["prepare", "regularization", "cat", "--base", "nosuch", "-o", "OUT", "--num", "1000000000000"],
        ["teach", "cat", "nosuch", "--base", "nosuch", "--num-class", "1000000000000"],
        ["edit-concepts", "nosuch", "--base", "nosuch", "-o", "OUT", "--pictures", "1000000000000"],
        ["count", "dit_s8", "depth=1000000"],
    ],
    ids=lambda words: words[0],
)
def test_an_option_of_an_absurd_number_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2


def forbidden(*args: object, **kwargs: object) -> None:
    raise AssertionError("weights were made")


LARGE = [{"hidden_size": 100_000, "depth": 1000}, {"hidden_size": 30_000, "depth": 60}]


@pytest.mark.parametrize("size", LARGE, ids=lambda size: "-".join(map(str, size.values())))
def test_weights_that_no_memory_holds_are_exit_code_6_before_any_is_made(
    recipe: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    size: dict[str, int],
) -> None:
    monkeypatch.setattr(memory, "machine_memory", lambda: 32 * 10**9)
    monkeypatch.setattr(build, "_build", only_data(build._build))
    changes = [f"model.{name}={value}" for name, value in size.items()]
    with pytest.raises(SystemExit) as stop:
        main(["train", recipe, *changes, "--output", str(tmp_path / "run")])
    assert stop.value.code == 6
    assert "dit has weights of" in capsys.readouterr().err


def only_data(made: Callable[..., object]) -> Callable[..., object]:
    return lambda plan, section, *rest: (forbidden if section == "model" else made)(plan, section, *rest)


def test_create_model_looks_first_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "machine_memory", lambda: 10**9)
    with pytest.raises(OutOfMemoryError, match=r"GB, and this machine has 1\.0 GB"):
        genzoo.create_model("dit_s8", hidden_size=3072, depth=28, num_heads=16)
    assert isinstance(genzoo.create_model("dit_s8", hidden_size=2064, depth=1, num_heads=16), torch.nn.Module)


def test_a_limit_of_the_process_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    whole = machine_memory()
    assert whole is not None
    assert whole > 10**8
    monkeypatch.setattr(resource, "getrlimit", lambda which: (10**8, 10**8))
    assert machine_memory() == 10**8
