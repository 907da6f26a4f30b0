"""Two processes judge together: the result of one, on both."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
import torchmetrics.image.kid  # noqa: F401  (before the fork: its import is the slowest part)

from genzoo.core.processes import World
from genzoo.evaluation import feature_blocks, measuring
from genzoo.evaluation.evaluate_images import Settings, evaluate


def judge(images: dict[str, np.ndarray], world: World, cache: bool = False) -> dict[str, object]:
    settings = Settings(batch_size=16, cache=cache, world=world)
    result = evaluate(
        images["a"],
        protocol="quick-pixels",
        reference=images["b"],
        num=len(images["a"]),
        settings=settings,
    )
    return {"metrics": dict(result.metrics), "num": result.generated["num"]}


def judge_in_group(rank: int, folder: Path, images: dict[str, np.ndarray], cache: bool) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    (folder / f"rank{rank}.json").write_text(json.dumps(judge(images, World.current(), cache)))
    # one of them alone: no call may wait for the other
    if rank == 1:
        (folder / "alone.json").write_text(json.dumps(judge(images, World.single())))
    torch.distributed.destroy_process_group()


@pytest.mark.distributed
@pytest.mark.parametrize("cache", [False, True], ids=["at once", "block by block"])
def test_two_processes_give_the_result_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: bool
) -> None:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(feature_blocks, "BLOCK", 10)
    monkeypatch.setattr(measuring, "BLOCK", 10)
    random = np.random.default_rng(0)
    images = {
        key: random.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8) for key, n in (("a", 61), ("b", 75))
    }
    # forked: a fresh interpreter would spend half a minute on imports
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=judge_in_group, args=(rank, tmp_path, images, cache)) for rank in (0, 1)
    ]
    for worker in workers:
        worker.start()
    expected = judge(images, World.single())
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0] == ranks[1]
    assert ranks[0]["num"] == 61
    assert json.loads((tmp_path / "alone.json").read_text()) == expected
    assert ranks[0]["metrics"] == pytest.approx(expected["metrics"], rel=1e-6, abs=1e-9)
