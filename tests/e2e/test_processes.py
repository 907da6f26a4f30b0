"""What only real processes show: signals, several workers, and a wheel away from its checkout."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from recipe_cases import ROOT, TINY

from genzoo.api.run import Run, load_run, train
from genzoo.core.checkpoint import load_checkpoint
from genzoo.core.recipe import recipe_from
from genzoo.core.run_folder import read_metrics
from genzoo.evaluation.result import load_result

STEPS = 80
BOTH = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
DEADLINE = 400  # seconds to wait for a process to get somewhere; a test fails when it never does


def start(*arguments: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """`python -m genzoo` in a process of its own, one thread, seeing this checkout."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *launcher, "-m", "genzoo", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, env=environment, text=True, **pipes)  # type: ignore[call-overload, no-any-return]


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Return once the file is there; fail when the process ends, or nothing happens."""
    end = time.monotonic() + DEADLINE
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, f"{path} never appeared"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    changes = {"steps": STEPS, "checkpoint_every": 20}
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(
        recipe_from(TINY | {"train": TINY["train"] | changes, "preview": None, "report": None}).to_yaml()
    )
    return path


@pytest.fixture(scope="module")
def straight(recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same training without an interruption."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run = train(str(recipe_file), output=tmp_path_factory.mktemp("straight") / "run")
    torch.set_num_threads(threads)
    return run


def losses(folder: Path) -> dict[int, float]:
    """The logged loss of every step."""
    return {record["step"]: record["loss"] for record in read_metrics(folder / "metrics.jsonl")}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_stopped_training_goes_on_to_the_same_weights_and_samples(
    recipe_file: Path, straight: Run, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    folder = tmp_path / "run"
    first = start("train", str(recipe_file), "--output", str(folder))
    wait_for(folder / "checkpoints/step_00000020", first)
    first.send_signal(number)
    output = first.communicate(timeout=DEADLINE)[0]
    stopped = max(record["step"] for record in read_metrics(folder / "metrics.jsonl"))
    assert 20 <= stopped < STEPS
    assert first.returncode == code, output
    if number != signal.SIGKILL:
        assert "a checkpoint was saved" in output
        assert json.loads((folder / "status.json").read_text())["state"] == "interrupted"
        assert load_run(folder).step >= stopped

    second = start("train", str(recipe_file), "--output", str(folder))
    assert second.wait(timeout=DEADLINE) == 0, second.communicate()[0]
    ours, theirs = (load_checkpoint(run.checkpoint()) for run in (load_run(folder), straight))
    for part in ("weights", "ema", "optimizer"):
        mine, other = getattr(ours, part), getattr(theirs, part)
        assert mine.keys() == other.keys()
        assert all(torch.equal(mine[key], other[key]) for key in mine), part
    assert losses(folder) == losses(straight.folder)
    assert len((folder / "command.txt").read_text().splitlines()) == 2
    assert torch.equal(load_run(folder).sample(num=3).pixels, straight.sample(num=3).pixels)


@pytest.mark.distributed
def test_two_processes_write_the_files_of_one(straight: Run, tmp_path: Path) -> None:
    alone = straight.sample_to(tmp_path / "alone", num=18, seed=5)
    arguments = ("sample", str(straight.folder), "--num-samples", "18", "--seed", "5", "--batch-size", "3")
    both = start(*arguments, "--out", str(tmp_path / "both"), launcher=BOTH)
    output = both.communicate(timeout=DEADLINE)[0]
    assert both.returncode == 0, output
    assert output.count("samples.json, grid.png") == 1  # told by the first
    names = sorted(path.name for path in alone.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "both").iterdir())
    assert len(names) == 20
    assert all((alone / name).read_bytes() == (tmp_path / "both" / name).read_bytes() for name in names)


@pytest.mark.distributed
def test_two_processes_judge_a_run_as_one_does_and_one_finishes_what_two_began(
    straight: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    alone, both = (
        Path(shutil.copytree(straight.folder, tmp_path / name, ignore=shutil.ignore_patterns("evaluation")))
        for name in ("alone", "both")
    )
    words = ("evaluate", str(both), "--protocol", "quick-pixels", "--device", "cpu", "--batch-size", "4")
    words += ("--num-samples", "120")
    stopped = start(*words, launcher=BOTH)
    deadline = time.monotonic() + DEADLINE
    while not list((both / "evaluation").glob("*/000005.png")):
        assert stopped.poll() is None, stopped.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    stopped.terminate()
    assert stopped.communicate(timeout=DEADLINE)[0].count("Traceback") <= 1  # torchrun's own
    assert not list((both / "evaluation").glob("*.json"))
    judged = load_run(both).evaluate("quick-pixels", num=120)  # by one process
    expected = load_run(alone).evaluate("quick-pixels", num=120)
    assert judged.metrics == expected.metrics
    assert judged.generated["sha256"] == expected.generated["sha256"]

    shutil.rmtree(both / "evaluation")
    shutil.rmtree(tmp_path / "cache")
    again = start(*words, "--sweep", "guidance_scale=1.5,1", launcher=BOTH)
    output = again.communicate(timeout=DEADLINE)[0]
    assert again.returncode == 0, output
    assert output.count("pixel_frechet (down)") == 1  # one table, from the first
    results = [load_result(path) for path in (both / "evaluation").glob("*.json")]
    (found,) = [result for result in results if result.sampling["guidance_scale"] == 1.5]
    assert found.generated["sha256"] == expected.generated["sha256"]
    assert found.metrics == expected.metrics


def test_killed_sampling_is_completed_with_the_same_files(straight: Run, tmp_path: Path) -> None:
    whole = straight.sample_to(tmp_path / "whole", num=60)
    folder = tmp_path / "out"
    arguments = ("sample", str(straight.folder), "--num", "60", "--batch-size", "4", "--out", str(folder))
    first = start(*arguments)
    wait_for(folder / "000003.png", first)
    first.kill()
    first.wait()
    assert start(*arguments).wait(timeout=DEADLINE) == 0
    for path in whole.glob("*.png"):
        assert (folder / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(output), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return next(output.glob("genzoo-*.whl"))


def test_the_wheel_holds_configs_recipes_assets_types_and_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry = next(name for name in names if name.endswith("entry_points.txt"))
        assert "genzoo = genzoo.__main__:run" in archive.read(entry).decode()
    for folder in ("configs", "recipes"):
        shipped = {f"genzoo/_{path.relative_to(ROOT)}" for path in (ROOT / folder).rglob("*.yaml")}
        assert shipped <= names
    assets = {str(path.relative_to(ROOT)) for path in (ROOT / "genzoo/assets").rglob("*") if path.is_file()}
    assert {name for name in assets if "__pycache__" not in name} <= names
    sources = {
        str(path.relative_to(ROOT)) for path in (ROOT / "genzoo").rglob("*.[chp]*") if path.suffix != ".pyc"
    }
    assert sources <= names
    assert "genzoo/py.typed" in names
    assert not [name for name in names if name.startswith(("tests", "benchmarks")) or "__pycache__" in name]


def test_the_installed_wheel_finds_its_recipes_from_anywhere(wheel: Path, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
    ]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)

    def genzoo(*arguments: str) -> str:
        command = [sys.executable, "-m", "genzoo", *arguments]
        environment = os.environ | {"PYTHONPATH": str(target)}
        result = subprocess.run(command, capture_output=True, text=True, cwd=elsewhere, env=environment)
        assert result.returncode == 0, result.stderr
        return result.stdout

    shown = genzoo("show", "dim_b4_imagenet")
    assert "hidden_size: 768" in shown
    assert f"{target}/genzoo/_configs/models/dim_b4.yaml" in shown
    assert "quickstart/dim_digits" in genzoo("list", "recipes")
    assert "dim_xl2_imagenet512: ok" in genzoo("validate", "dim_xl2_imagenet512")
    run = genzoo("train", "quickstart/dim_digits", "train.steps=1", "train.batch_size=2", "--dry-run")
    assert "global batch 2" in run
