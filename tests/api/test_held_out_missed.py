"""A held-out loss that an interruption left out is measured at the next start, also after the last step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from recipe_cases import TINY

from genzoo.api.run import train
from genzoo.core.recipe import recipe_from
from genzoo.core.run_folder import RunFolder, read_metrics
from genzoo.training.hook import Hook

HELD_OUT = {"share": 0.1, "every": 2, "num": 8}
STEPS = {"steps": 4, "checkpoint_every": 2, "keep_last": 1}
RECIPE = {**TINY, "train": {**TINY["train"], **STEPS}, "held_out": HELD_OUT, "preview": None, "report": None}


class StopAt(Hook):
    """Dies after the checkpoint of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_checkpoint(self, trainer: Any, path: Path) -> None:
        if trainer.step == self.step:
            raise KeyboardInterrupt


def measured(folder: Path) -> list[dict[str, Any]]:
    rows = read_metrics(folder / "metrics.jsonl")
    return [row for row in rows if any(key.startswith("held_out/") for key in row)]


@pytest.mark.parametrize("stop", [2, 4], ids=["on the way", "after the last step"])
def test_a_missed_held_out_loss_is_made_up_for(tmp_path: Path, stop: int) -> None:
    train(recipe_from(RECIPE), output=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(recipe_from(RECIPE), output=tmp_path / "broken", hooks=[StopAt(stop)])
    train(recipe_from(RECIPE), output=tmp_path / "broken")
    assert [row["step"] for row in measured(tmp_path / "whole")] == [2, 4]
    assert measured(tmp_path / "broken") == measured(tmp_path / "whole")
    assert RunFolder(tmp_path / "broken").status()["state"] == "finished"
