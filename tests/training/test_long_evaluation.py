"""An evaluation that takes longer than processes wait for one another ends nothing, and is not begun anew."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from fork_server import ForkServer
from recipe_cases import TINY

from genzoo.api.training.best import read_result
from genzoo.evaluation.extraction import PIECE, Extraction, extract_together
from genzoo.evaluation.features import from_callable

PATIENCE, SECONDS, BLOCKS = 6.0, 0.7, 20  # 7 seconds in the slow process, and no wait above 0.7


def long_recipe() -> dict[str, Any]:
    data = copy.deepcopy(TINY)
    data["train"] = {**data["train"], "steps": 2, "checkpoint_every": 2, "collective_timeout": PATIENCE}
    data["sampler"] = {**data["sampler"], "block_size": 2}
    data["evaluation"] = {"every": 2, "protocol": "quick-pixels", "num": 2 * BLOCKS, "steps": 2}
    return data | {"report": None, "preview": None}


@pytest.mark.distributed
def test_a_long_evaluation_is_done_in_pieces_and_goes_on_after_a_kill(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    options = {"recipe": long_recipe(), "env": {"GENZOO_CACHE": str(tmp_path / "cache")}, "world": 2}

    def codes(name: str, **more: Any) -> list[int]:
        given = {**options, "output": str(tmp_path / name), **more}
        children = fork_server.start_ranks("cases:train_recipe_slowly", **given)
        return [child.wait() for child in children]

    first, second = codes("run", seconds=0.0, until=4)
    assert first != 0
    assert second == -9
    kept = sorted(path.name for path in (tmp_path / "run/evaluation/parts_00000002").glob("block_*"))
    assert len(kept) == 6  # three blocks of each
    assert codes("run", seconds=SECONDS) == [0, 0]
    drawn = [json.loads((tmp_path / f"drawn_{rank}.json").read_text()) for rank in (0, 1)]
    assert sorted(drawn[0] + drawn[1]) == list(range(12, 2 * BLOCKS, 2))
    assert codes("straight", seconds=0.0) == [0, 0]
    results = [read_result(tmp_path / name, 2) for name in ("run", "straight")]
    assert results[0] is not None
    assert results[1] is not None
    assert results[0].metrics == results[1].metrics
    assert results[0].generated == results[1].generated


class Meetings:
    """A world of two, seen by one of them, that notes how many batches were done at each meeting."""

    size = 2

    def __init__(self) -> None:
        self.done = 0
        self.at: list[int] = []

    def together(self, action: Any) -> Any:
        result = action()
        self.at.append(self.done)
        return result


def test_processes_meet_every_few_batches_of_features() -> None:
    import torch

    world = Meetings()
    images = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).reshape(2, 3, 4, 5)

    def batches() -> Any:
        for _ in range(2 * PIECE + 3):
            world.done += 1
            yield images, []

    network = from_callable(lambda pixels: pixels.flatten(1).double())
    extraction = Extraction(network)
    found = extract_together(batches(), extraction, world, num_batches=3 * PIECE + 1)  # type: ignore[arg-type]
    # the other has more to do: it is met as often as it meets
    assert world.at == [PIECE, 2 * PIECE, 2 * PIECE + 3, 2 * PIECE + 3, 2 * PIECE + 3]
    assert found.count == 2 * (2 * PIECE + 3)
