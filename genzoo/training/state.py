"""Everything a run needs to go on as if it had never stopped, to and from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from genzoo.core.contracts.tasks import recorded_facts
from genzoo.core.counts import counts_of, restore_counts
from genzoo.core.model_state import require_same_facts, restore_weights, stored_weights
from genzoo.core.stored_tensors import OpenCheckpoint
from genzoo.training.optim import load_optimizer_tensors, optimizer_tensors
from genzoo.training.parts import Parts
from genzoo.training.profiles import split_slots
from genzoo.training.resume import require_same_run


@dataclass(frozen=True)
class Captured:
    """What a checkpoint stores. There is no random state: randomness is a function of position."""

    weights: Mapping[str, Tensor]
    ema: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    state: Mapping[str, Any]

    def parts(self) -> dict[str, Mapping[str, Tensor]]:
        """Its tensors as `write_checkpoint` takes them."""
        return {"model": self.weights, "ema": self.ema, "optimizer": self.optimizer}


def capture(parts: Parts, step: int) -> Captured:
    """The run's state after `step` optimizer steps; tensors of a sharded model stay sharded."""
    scaler = parts.accelerator.scaler
    state = identity(parts, step) | {
        "facts": facts(parts),
        "counts": counts_of(parts.model),
        "ema": parts.average.state() if parts.average else None,
        "scaler": scaler.state_dict() if scaler is not None else None,
    }
    return Captured(
        weights=stored_weights(parts.model),
        ema=parts.average.tensors() if parts.average else {},
        optimizer=optimizer_tensors(parts.optimization.optimizer, parts.parameters)
        | (parts.profiles.tensors() if parts.profiles else {}),
        state=state,
    )


def restore(parts: Parts, checkpoint: OpenCheckpoint) -> int:
    """Put a checkpoint's content into freshly built parts; return its step. Raises CheckpointError.

    All processes call it together.
    """
    where, state = str(checkpoint.path), checkpoint.state
    require_same_run(state, identity(parts, checkpoint.step), where=where)
    require_same_facts(state.get("facts") or {}, facts(parts), where=where)
    restore_weights(
        parts.model, checkpoint.weights, frozen=state["frozen"], where=where, own_frozen=parts.frozen
    )
    restore_counts(parts.model, state.get("counts") or {})
    raw = parts.optimization.optimizer
    slots, profiles = split_slots(checkpoint.optimizer)
    load_optimizer_tensors(raw, parts.parameters, slots, where=where)
    if parts.profiles:
        parts.profiles.restore(profiles, where=where)
    if parts.average:
        parts.average.restore(checkpoint.ema, state["ema"] or {}, where=where)
    if parts.accelerator.scaler is not None and state["scaler"]:
        parts.accelerator.scaler.load_state_dict(state["scaler"])
    return checkpoint.step


def identity(parts: Parts, step: int) -> dict[str, Any]:
    """What makes this run this run; a resumed one is compared with it."""
    config, dataset = parts.config, parts.dataset
    return {
        "samples_seen": step * config.batch_size,
        "seed": config.seed,
        "batch_size": config.batch_size,
        "precision": config.precision,
        "processes": parts.accelerator.num_processes,
        "dataset": {"fingerprint": dataset.fingerprint, "items": parts.items},
        "classes": None if dataset.class_names is None else list(dataset.class_names),
        "optimizer": type(parts.optimization.optimizer).__name__,
        "frozen": parts.frozen,
    }


def facts(parts: Parts) -> dict[str, str]:
    """What the task wants recorded, see `Task`, and what the caller told of its helpers."""
    return {**recorded_facts(parts.task), **parts.facts}
