"""train.compile: the same run but for rounding, and checkpoints that anything reads."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from toys import ToyModel, ToyTask, toy_trainer

from genzoo.core.checkpoint import latest_valid, load_checkpoint
from genzoo.core.errors import RecipeError, UsageError
from genzoo.nn.compiled import compile_blocks
from genzoo.training import parts
from genzoo.training.config import TrainConfig


class Blocky(ToyModel):
    """The toy, whose two layers are blocks."""

    def compiled_blocks(self) -> list[nn.Module]:
        return [self.first, self.last]


def task() -> ToyTask:
    torch.manual_seed(4)
    return ToyTask(Blocky(dropout=0.0))


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def test_inductor_trains_as_plain_torch_does_and_keeps_plain_names(tmp_path: Path) -> None:
    toy_trainer(tmp_path / "plain", task=task(), steps=4).fit()
    toy_trainer(tmp_path / "compiled", task=task(), steps=4, compile=True).fit()
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)
    stored = [
        load_checkpoint(latest_valid(tmp_path / name / "checkpoints")) for name in ("plain", "compiled")
    ]
    assert list(stored[0].weights) == list(stored[1].weights)
    assert not any("_orig_mod" in key for key in (*stored[1].weights, *stored[1].ema, *stored[1].optimizer))
    told = [
        json.loads((tmp_path / name / "env.json").read_text())["compile"] for name in ("plain", "compiled")
    ]
    assert told == [None, "inductor"]


def test_a_run_goes_on_compiled_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> object:
        calls.append(1)
        return graph.forward

    monkeypatch.setattr(parts, "compile_blocks", partial(compile_blocks, backend=backend))
    toy_trainer(tmp_path / "whole", task=task(), steps=6).fit()
    toy_trainer(tmp_path / "mixed", task=task(), steps=6, compile=True).fit(until=2)
    assert calls
    toy_trainer(tmp_path / "mixed", task=task(), steps=6).fit(until=4)
    resumed = toy_trainer(tmp_path / "mixed", task=task(), steps=6, compile=True).fit()
    assert resumed.resumed_from == 4
    assert losses(tmp_path / "mixed") == pytest.approx(losses(tmp_path / "whole"), rel=1e-6)


def test_a_model_that_names_no_blocks_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="compile: ToyModel names no blocks"):
        toy_trainer(tmp_path / "run", task=ToyTask(ToyModel()), steps=2, compile=True)
    assert not (tmp_path / "run").exists()


def test_blocks_that_are_shared_out_are_not_compiled() -> None:
    with pytest.raises(RecipeError, match=r"train\.compile: .*use sharding: none"):
        TrainConfig(steps=1, batch_size=1, compile=True, sharding="full")
