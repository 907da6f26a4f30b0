"""Two processes judge together: the result of one, on both."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchmetrics.image.kid  # noqa: F401  (before the fork: its import is the slowest part)

from genzoo.core.processes import World
from genzoo.data.picture_sets import ArrayPictures
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


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(feature_blocks, "BLOCK", 10)
    monkeypatch.setattr(measuring, "BLOCK", 10)
    random = np.random.default_rng(0)
    return {key: random.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8) for key, n in (("a", 61), ("b", 75))}


def run_both(target: Callable[..., None], *arguments: object) -> None:
    """Forked: a fresh interpreter would spend half a minute on imports."""
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=target, args=(rank, *arguments)) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]


@pytest.mark.distributed
@pytest.mark.parametrize("cache", [False, True], ids=["at once", "block by block"])
@pytest.mark.parametrize("writable", [True, False], ids=["", "no cache"])
def test_two_processes_give_the_result_of_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    images: dict[str, np.ndarray],
    cache: bool,
    writable: bool,
) -> None:
    if not writable:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("GENZOO_CACHE", str(tmp_path / "file"))
    run_both(judge_in_group, tmp_path, images, cache)
    expected = judge(images, World.single())
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0] == ranks[1]
    assert ranks[0]["num"] == 61
    assert json.loads((tmp_path / "alone.json").read_text()) == expected
    assert ranks[0]["metrics"] == expected["metrics"]


class Counted(ArrayPictures):
    """Pictures that note which are read, and stop at one of them."""

    def __init__(self, array: np.ndarray, stop: int | None = None) -> None:
        super().__init__(array)
        self.reads: set[int] = set()
        self.stop = stop

    def read(self, index: int) -> np.ndarray:
        if index == self.stop:
            raise KeyboardInterrupt
        self.reads.add(index)
        return super().read(index)


def finish_in_group(rank: int, folder: Path, images: dict[str, np.ndarray]) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    counted = Counted(images["a"])
    found = judge({"a": counted, "b": images["b"]}, World.current(), cache=True)
    (folder / f"rank{rank}.json").write_text(json.dumps({**found, "reads": sorted(counted.reads)}))
    torch.distributed.destroy_process_group()


@pytest.mark.distributed
def test_two_processes_finish_what_one_began(tmp_path: Path, images: dict[str, np.ndarray]) -> None:
    with pytest.raises(KeyboardInterrupt):
        judge({"a": Counted(images["a"], stop=33), "b": images["b"]}, World.single(), cache=True)
    run_both(finish_in_group, tmp_path, images)
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0]["reads"] == [0]  # it tells the size; the three blocks of the first were done
    assert ranks[1]["reads"] == [0, *range(30, 61)]
    expected = judge(images, World.single())
    assert [rank["metrics"] for rank in ranks] == [expected["metrics"]] * 2


@pytest.mark.parametrize("count", [1, 29, 30, 61])
def test_blocks_are_the_same_in_any_number_of_processes(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(measuring, "BLOCK", 10)
    for size in (1, 2, 3, 5):
        parts = [measuring.part_of_blocks(count, World(rank, size)) for rank in range(size)]
        assert [index for part in parts for index in part] == list(range(count))
        assert all(part.start % 10 == 0 for part in parts if part)
