"""Everything a run needs to go on as if it had never stopped, to and from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from genzoo.core.checkpoint import Checkpoint
from genzoo.core.contracts import recorded_facts
from genzoo.core.counts import counts_of, restore_counts
from genzoo.core.model_state import require_same_facts, restore_weights, stored_weights
from genzoo.training.optim import load_optimizer_tensors, optimizer_tensors
from genzoo.training.resume import require_same_run

if TYPE_CHECKING:
    from genzoo.training.trainer import Trainer


@dataclass(frozen=True)
class Captured:
    """What `save_checkpoint` stores. There is no random state: randomness is a function of position."""

    weights: Mapping[str, Tensor]
    ema: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    state: Mapping[str, Any]


def capture(trainer: Trainer) -> Captured:
    """The run's present state; collective when the model is sharded."""
    scaler = trainer.accelerator.scaler
    state = identity(trainer) | {
        "facts": facts(trainer),
        "counts": counts_of(trainer.model),
        "ema": trainer.average.state() if trainer.average else None,
        "scaler": scaler.state_dict() if scaler is not None else None,
    }
    return Captured(
        weights=stored_weights(trainer.model),
        ema=trainer.average.tensors() if trainer.average else {},
        optimizer=optimizer_tensors(trainer.optimization.optimizer, trainer.parameters),
        state=state,
    )


def restore(trainer: Trainer, checkpoint: Checkpoint) -> int:
    """Put a checkpoint's content into a freshly built trainer; return its step. Raises CheckpointError."""
    where, state = str(checkpoint.path), checkpoint.state
    require_same_run(state, identity(trainer), where=where)
    require_same_facts(state.get("facts") or {}, facts(trainer), where=where)
    restore_weights(trainer.model, checkpoint.weights, frozen=state["frozen"], where=where)
    restore_counts(trainer.model, state.get("counts") or {})
    raw = trainer.optimization.optimizer
    load_optimizer_tensors(raw, trainer.parameters, checkpoint.optimizer, where=where)
    if trainer.average:
        trainer.average.restore(checkpoint.ema, state["ema"] or {}, where=where)
    if trainer.accelerator.scaler is not None and state["scaler"]:
        trainer.accelerator.scaler.load_state_dict(state["scaler"])
    return checkpoint.step


def identity(trainer: Trainer) -> dict[str, Any]:
    """What makes this run this run; a resumed one is compared with it."""
    config, dataset = trainer.config, trainer.dataset
    return {
        "samples_seen": trainer.step * config.batch_size,
        "seed": config.seed,
        "batch_size": config.batch_size,
        "precision": config.precision,
        "processes": trainer.accelerator.num_processes,
        "dataset": {"fingerprint": dataset.fingerprint, "items": len(dataset)},
        "optimizer": type(trainer.optimization.optimizer).__name__,
        "frozen": trainer.frozen,
    }


def facts(trainer: Trainer) -> dict[str, str]:
    """What the task wants recorded, see `Task`."""
    return dict(recorded_facts(trainer.task))
