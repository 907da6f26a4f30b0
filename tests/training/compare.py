"""What a run left behind, as values that can be compared bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genzoo.core.checkpoint import Checkpoint, checkpoint_steps, load_checkpoint, tensors_digest
from genzoo.core.run_folder import read_metrics


def final(output: Path) -> Checkpoint:
    """The newest checkpoint, verified."""
    return load_checkpoint(next(iter(checkpoint_steps(output / "checkpoints").values())))


def fingerprint(output: Path) -> dict[str, Any]:
    """Hashes of weights, averages and optimizer, and every logged number but the speed."""
    checkpoint = final(output)
    metrics = read_metrics(output / "metrics.jsonl")
    return {
        "step": checkpoint.step,
        "weights": tensors_digest(checkpoint.weights),
        "ema": tensors_digest(checkpoint.ema),
        "optimizer": tensors_digest(checkpoint.optimizer),
        "metrics": [{k: v for k, v in line.items() if k != "samples_per_second"} for line in metrics],
    }
