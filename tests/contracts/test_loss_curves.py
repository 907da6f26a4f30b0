"""The first losses of every task with every model, as recorded: a refactor keeps them, and so does a resume.

A new pair, or a change of numerics that the changelog tells, is recorded by running this file:
`PYTHONPATH=.:tests:tests/contracts python tests/contracts/test_loss_curves.py`.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from smallest import Workshop, pairs, smallest

from genzoo.api.training.train import build_trainer
from genzoo.training.hook import Hook, StepRecord, TrainingView

CURVES = Path(__file__).with_name("loss_curves.json")
PAIRS = {f"{task}-{model}": (task, model) for task, model in pairs()}
# gradient descent, since Adam divides by gradients that may be nothing but rounding
SETTINGS = {
    "optim.name": "sgd", "optim.lr": 0.1, "train.steps": 6, "train.batch_size": 4,
    "train.clip_grad_norm": 1.0,
}  # fmt: skip


class Losses(Hook):
    """Keeps the loss of every step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_step(self, trainer: TrainingView, record: StepRecord) -> None:
        self.seen.append(record.loss)


def curve(pair: str, workshop: Workshop, folder: Path) -> list[float]:
    recipe = smallest(*PAIRS[pair], workshop).replaced(SETTINGS, "loss curves")
    losses = Losses()
    trainer, _ = build_trainer(recipe, output=folder / pair, hooks=[losses])
    trainer.fit()
    return losses.seen


@pytest.mark.parametrize("pair", PAIRS)
def test_losses_are_the_recorded_ones(pair: str, workshop: Workshop, tmp_path: Path) -> None:
    recorded = json.loads(CURVES.read_text())
    assert pair in recorded, f"{pair} has no curve yet; see the head of this file"
    # other processors and versions of torch sum in another order
    assert curve(pair, workshop, tmp_path) == pytest.approx(recorded[pair], rel=2e-5)


def test_every_recorded_curve_is_followed() -> None:
    assert set(json.loads(CURVES.read_text())) == set(PAIRS)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        made = {pair: curve(pair, Workshop(Path(place) / "made"), Path(place)) for pair in PAIRS}
    lines = (
        f'  "{pair}": {json.dumps([float(f"{loss:.8g}") for loss in made[pair]])}' for pair in sorted(made)
    )
    CURVES.write_text("{\n" + ",\n".join(lines) + "\n}\n")
