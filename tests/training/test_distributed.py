"""Two gloo processes: the same samples, the same update, the same resumed run; and no job that hangs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import MUON_RATE
from compare import final, fingerprint
from fork_server import ForkServer
from recipe_cases import TINY

from genzoo.api.run import load_run
from genzoo.api.training.evaluation_hook import result_file
from genzoo.core.checkpoint import Checkpoint, load_checkpoint, step_folder
from genzoo.core.run_folder import RunFolder, read_metrics
from genzoo.data.picture_sets import ArrayPictures, DatasetPictures
from genzoo.evaluation.evaluate_images import evaluate
from genzoo.evaluation.result import load_result

pytestmark = pytest.mark.distributed


def run(server: ForkServer, target: str, world: int, output: Path, **config: Any) -> None:
    children = server.start_ranks(f"cases:{target}", world=world, output=str(output), **config)
    for child in children:
        assert child.wait() == 0, child.output()


def seen(output: Path, world: int) -> list[list[int]]:
    """The sorted positions of each micro-step over all ranks."""
    ranks = [json.loads((output / f"seen_{rank}.json").read_text()) for rank in range(world)]
    return [sorted(chain(*micro)) for micro in zip(*ranks, strict=True)]


def largest_difference(one: Checkpoint, other: Checkpoint) -> float:
    pairs = [(one.weights, other.weights), (one.ema, other.ema), (one.optimizer, other.optimizer)]
    return max(float((a[name] - b[name]).abs().max()) for a, b in pairs for name in a)


def test_two_processes_resume_bit_for_bit(
    tmp_path: Path, fork_server: ForkServer, saving: dict[str, str]
) -> None:
    config = {"steps": 7, "checkpoint_every": 3, "micro_batch_size": 1, **saving}
    run(fork_server, "train", 2, tmp_path / "whole", **config)
    for at, signum in ((2, 15), (4, 15)):
        options = {"at": at, "signals": [signum], **config}
        ranks = fork_server.start_ranks(
            "cases:train_and_signal", world=2, output=str(tmp_path / "cut"), **options
        )
        assert [rank.wait() for rank in ranks] == [143, 143]
    run(fork_server, "train", 2, tmp_path / "cut", **config)
    assert fingerprint(tmp_path / "cut") == fingerprint(tmp_path / "whole")


def test_two_one_two_processes_keep_the_sample_ids(tmp_path: Path, fork_server: ForkServer) -> None:
    config = {"checkpoint_every": 2, "optim": {"name": "adamw", "lr": 1e-2}}
    run(fork_server, "train", 1, tmp_path / "one", steps=6, **config)
    ids = []
    for world, steps in ((2, 2), (1, 4), (2, 6)):
        run(fork_server, "train", world, tmp_path / "mixed", steps=steps, **config)
        ids += seen(tmp_path / "mixed", world)
    assert ids == seen(tmp_path / "one", 1)
    assert ids == [list(range(6 * step, 6 * step + 6)) for step in range(6)]


def test_processes_and_accumulation_give_the_update_of_one_big_batch(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    # float64, no dropout: only the order of summation differs
    config = {"steps": 5, "batch_size": 12}
    run(fork_server, "train_float64", 1, tmp_path / "one", **config)
    reference = final(tmp_path / "one")
    for world, micro in ((1, 4), (1, 1), (2, 6), (2, 2)):
        output = tmp_path / f"{world}x{micro}"
        run(fork_server, "train_float64", world, output, micro_batch_size=micro, **config)
        found = final(output)
        assert found.weights["first.weight"].dtype == torch.float64
        assert largest_difference(found, reference) < 1e-12
        losses = [line["loss"] for line in read_metrics(output / "metrics.jsonl")]
        expected = [line["loss"] for line in read_metrics(tmp_path / "one" / "metrics.jsonl")]
        assert losses == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("position", [12, 17])
def test_one_rank_with_a_bad_sample_stops_both(
    tmp_path: Path, fork_server: ForkServer, position: int
) -> None:
    # batches of 6 over 2 ranks: position 12 is rank 0's and 17 rank 1's, both in step 3
    options = {"output": str(tmp_path), "position": position, "steps": 5, "checkpoint_every": 1}
    ranks = fork_server.start_ranks("cases:train_poisoned", world=2, **options)
    assert [rank.wait() for rank in ranks] == [5, 5]
    assert all("'first' is not finite" in rank.output() for rank in ranks)
    assert final(tmp_path).step == 2


@pytest.mark.parametrize("item", [3, 11])
def test_an_item_that_one_process_cannot_read_is_told_by_both(
    tmp_path: Path, fork_server: ForkServer, item: int
) -> None:
    options = {"output": str(tmp_path), "item": item, "steps": 8, "checkpoint_every": 100}
    ranks = fork_server.start_ranks("cases:train_on_unreadable", world=2, **options)
    assert [rank.wait(60) for rank in ranks] == [4, 4]
    assert all(f"item{item}.png" in rank.output() for rank in ranks)
    status = RunFolder(tmp_path).status()
    assert status["state"] == "failed"
    assert "1 unreadable item(s)" in status["reason"]
    assert status["exit_code"] == 4


def test_a_killed_rank_ends_the_other_with_an_error(
    tmp_path: Path, fork_server: ForkServer, saving: dict[str, str]
) -> None:
    options = {
        "output": str(tmp_path),
        "steps": 50,
        "checkpoint_every": 2,
        "collective_timeout": 60,
        **saving,
    }
    first, second = fork_server.start_ranks("cases:train_and_lose_rank", world=2, **options)
    assert second.wait() == -9
    assert first.wait() == 1
    assert final(tmp_path).step == 2
    status = RunFolder(tmp_path).status()
    assert status["state"] == "failed"
    assert status["reason"] == "process 1 of 2 ended without a word"


def test_a_batch_that_processes_cannot_share_names_valid_ones(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    ranks = fork_server.start_ranks("cases:train", world=2, output=str(tmp_path), batch_size=7)
    assert [rank.wait() for rank in ranks] == [2, 2]
    assert "use 6 or 8" in ranks[0].output()


def test_a_locked_folder_refuses_every_rank(tmp_path: Path, fork_server: ForkServer) -> None:
    with RunFolder(tmp_path).lock():
        ranks = fork_server.start_ranks("cases:train", world=2, output=str(tmp_path))
        assert [rank.wait() for rank in ranks] == [2, 2]
    assert all("another process is writing" in rank.output() for rank in ranks)


def test_a_sharded_run_is_saved_whole_and_restored_to_its_shards(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    for world in (1, 2):
        for child in fork_server.start_ranks(
            "cases:shard_and_save", world=world, output=str(tmp_path / str(world))
        ):
            assert child.wait() == 0, child.output()
    alone, sharded = (load_checkpoint(tmp_path / str(world) / "step_00000003") for world in (1, 2))
    assert largest_difference(alone, sharded) < 1e-6


def test_sharded_muon_steps_as_one_process_does_and_is_saved_whole(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    for world in (1, 2):
        output = str(tmp_path / str(world))
        for child in fork_server.start_ranks("cases:shard_muon", world=world, output=output):
            assert child.wait() == 0, child.output()
    alone, sharded = (load_checkpoint(tmp_path / str(world) / "step_00000003") for world in (1, 2))
    assert alone.optimizer.keys() == sharded.optimizer.keys()
    # partial sums of the iteration are added in bfloat16: a tenth of one step of a 6 x 6 matrix
    limit = 0.1 * MUON_RATE * 0.2 * 6**0.5
    for name, tensor in alone.weights.items():
        assert (sharded.weights[name] - tensor).abs().max().item() < limit, name


LAUNCHED = """
import sys
sys.path.insert(0, sys.argv[2])
import cases
cases.train(sys.argv[1], steps=3) if len(sys.argv) == 3 else cases.train_until_told(sys.argv[1])
"""


def torchrun(folder: Path, output: Path, *more: str) -> subprocess.Popen[str]:
    """Two processes of torchrun that train the toy."""
    script = folder / "launched.py"
    script.write_text(LAUNCHED)
    options = [
        "--standalone",
        "--nproc-per-node=2",
        str(script),
        str(output),
        str(Path(__file__).parent),
        *more,
    ]
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *options],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds:g} s"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_torchrun_takes_its_processes_along_and_they_save(tmp_path: Path) -> None:
    output = tmp_path / "run"
    launched = torchrun(tmp_path, output, "for ever")
    try:
        log = output / "metrics.jsonl"
        wait_for(lambda: log.exists() and len(read_metrics(log)) > 2, 300)
        pids = [int((tmp_path / f"pid_{rank}").read_text()) for rank in range(2)]
        launched.kill()
        launched.wait(30)
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 60)
    finally:
        launched.kill()
    assert final(output).step >= 2
    assert RunFolder(output).status()["state"] == "interrupted"


@pytest.mark.slow
def test_torchrun_runs_the_same_loop(tmp_path: Path, fork_server: ForkServer) -> None:
    launched = torchrun(tmp_path, tmp_path / "launched")
    _, errors = launched.communicate(timeout=400)
    assert launched.returncode == 0, errors
    run(fork_server, "train", 2, tmp_path / "forked", steps=3)
    assert fingerprint(tmp_path / "launched") == fingerprint(tmp_path / "forked")


RECIPE: dict[str, Any] = {
    **TINY,
    "model": {**TINY["model"], "num_classes": 10, "input_size": 8, "in_channels": 1},
    "train": {**TINY["train"], "steps": 4, "keep_last": 4},
    "preview": {"every": 2, "num": 9},  # blocks of four: three blocks for two processes
    "evaluation": {"every": 2, "protocol": "quick-pixels", "num": 11, "keep_best": "pixel_kid"},
    "report": [],
}


def test_two_processes_share_previews_and_evaluation_and_write_what_one_would(
    tmp_path: Path, fork_server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "run"
    env = {"GENZOO_CACHE": str(tmp_path / "cache")}
    children = fork_server.start_ranks(
        "cases:train_recipe", world=2, env=env, output=str(output), recipe=RECIPE
    )
    for child in children:
        assert child.wait() == 0, child.output()
    monkeypatch.setenv("GENZOO_CACHE", env["GENZOO_CACHE"])
    trained = load_run(output)
    for step in (2, 4):
        alone = trained.sample(num=9, checkpoint=step).grid().save(tmp_path / f"{step}.png")
        assert (output / "samples" / step_folder(step) / "grid.png").read_bytes() == alone.read_bytes()
        found = load_result(result_file(output, step))
        images = ArrayPictures(trained.sample(num=11, checkpoint=step).images.movedim(1, -1).numpy())
        reference = DatasetPictures(trained.dataset())
        expected = evaluate(images, protocol="quick-pixels", reference=reference, num=11)
        assert found.generated["sha256"] == expected.generated["sha256"]
        assert found.metrics == pytest.approx(expected.metrics, rel=1e-6, abs=1e-9)
    assert len(list((output / "best").glob("step_*"))) == 1
    values = [row for row in read_metrics(output / "metrics.jsonl") if "evaluation/pixel_kid" in row]
    assert [row["step"] for row in values] == [2, 4]


def test_an_evaluation_that_fails_in_one_process_ends_all(tmp_path: Path, fork_server: ForkServer) -> None:
    recipe = {**RECIPE, "evaluation": {**RECIPE["evaluation"], "keep_best": "no_such"}}
    options = {"output": str(tmp_path / "run"), "recipe": recipe}
    children = fork_server.start_ranks(
        "cases:train_recipe", world=2, env={"GENZOO_CACHE": str(tmp_path)}, **options
    )
    for child in children:
        assert child.wait() == 2, child.output()
        assert "there is no metric 'no_such'" in child.output()
