"""What a training loads: torch and its own modules, and no library that only sampling or measuring needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_cases import all_commands

from genzoo.api.commands.arguments import require_run
from genzoo.cli import main
from genzoo.core import progress
from genzoo.core.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]

HEAVY = "diffusers", "transformers", "peft", "scipy", "sklearn", "torchvision", "open_clip", "timm", "pandas"
# torch's compiler, which its optimizers and its switch for deterministic kernels load, costs a second or two
COMPILER = "sympy", "torch._dynamo", "torch._inductor", "torch.distributed.tensor", "triton.language"
NEEDLESS = (*HEAVY, *COMPILER, "genzoo.evaluation.evaluate_images")

SCRIPT = """
import sys
from genzoo.cli import main
try: main({arguments!r})
finally: print("loaded", *(name for name in {names} if name in sys.modules))
"""
STEP = ["quickstart/dim_digits", "train.steps=2", "train.batch_size=4", "preview=null", "report=[]"]


@pytest.mark.parametrize("more", [[], ["train.precision=bf16", "optim.name=muon"], ["optim.name=sgd"]])
def test_a_training_loads_nothing_that_it_does_not_need(more: list[str], tmp_path: Path) -> None:
    arguments = ["train", *STEP, *more, "-o", str(tmp_path / "run")]
    code = SCRIPT.format(names=NEEDLESS, arguments=arguments)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded"
    assert list((tmp_path / "run" / "tensorboard").iterdir())


COMMANDS = {
    "list": ["nosuch"],
    "show": ["nosuch"],
    "validate": ["nosuch"],
    "train": ["nosuch"],
    "count": ["dit_x9"],
    "convert": ["nosuch.pt", "OUT"],
    "export": ["nosuch", "OUT"],
    "rerun": ["nosuch"],
    "sample": ["nosuch"],
    "evaluate": ["nosuch"],
    "plot": ["nosuch"],
    "push": ["nosuch", "me/tiny"],
    "merge-concepts": ["nosuch", "--base", "nosuch", "--output", "OUT"],
    "convert-concept": ["nosuch", "--output", "OUT"],
    "edit-concepts": ["nosuch.json", "--base", "nosuch", "--output", "OUT"],
    "compare": ["nosuch", "nosuch2"],
    "sweep": ["nosuch", "optim.lr=1,2"],
    "teach": ["my cat", "nosuch", "--base", "nosuch"],
    "prepare shards": ["nosuch"],
    "prepare latents": ["nosuch"],
    "prepare latent-statistics": ["nosuch"],
    "prepare check": ["nosuch"],
    "prepare controls": ["nosuch"],
    "launch": ["slurm", "nosuch"],
    "app": ["nosuch"],
    "prepare regularization": ["cat", "--folder", "nosuch", "--output", "OUT"],
}
WITHOUT_A_NAME = {"doctor"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_misspelt_name_is_answered_before_torch_is_imported(command: str, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"  # importing it fails
        "from genzoo.cli import main\n"
        f"main({[*command.split(), *COMMANDS[command]]!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode in (2, 4), done.stderr
    assert "nosuch" in done.stderr or "dit_x9" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_every_command_is_among_them() -> None:
    assert {name for name, _ in all_commands()} == {*COMMANDS, *WITHOUT_A_NAME}


def test_of_all_commands_only_the_one_that_is_typed_is_imported() -> None:
    code = (
        "import sys; from genzoo.cli import main\n"
        "try: main(['show', 'quickstart/dim_digits'])\n"
        "finally: print(*sorted(name for name in sys.modules if name.startswith('genzoo.api.commands.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    loaded = {name.rpartition(".")[2] for name in done.stdout.splitlines()[-1].split()}
    assert loaded == {"arguments", "completion", "show", "spelling", "terminal"}


def test_help_shows_first_what_a_first_visit_needs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    shown = [
        line.split()[0] for line in capsys.readouterr().out.partition("Commands:\n")[2].split("\n") if line
    ]
    assert shown[:4] == ["list", "show", "validate", "train"]
    assert shown[9:-1] == sorted(shown[9:-1])  # and then the others by name, groups last
    assert shown[-1] == "prepare"


def test_a_name_nearly_right_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "dim_digits").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"did you mean runs/dim_digits\?"):
        require_run("dim_digit")
    with pytest.raises(UsageError, match=r"did you mean runs/dim_digits\?"):
        require_run("runs/dim_digist")
    require_run("runs/dim_digits")


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "~nobody_here/x", ""])
def test_names_that_no_file_system_holds_are_absent(name: str) -> None:
    with pytest.raises(UsageError, match="nothing is there"):
        require_run(name + "/x")


def test_what_takes_long_is_told_off_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    with pytest.raises(SystemExit, match="0"):
        main(["count", "dit_s8"])
    said = capsys.readouterr()
    assert "counting dit_s8 ..." in said.err
    assert "..." not in said.out


def test_what_is_quick_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"), progress.doing("nothing"):
        pass
    assert caplog.records == []
