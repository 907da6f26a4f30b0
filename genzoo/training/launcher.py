"""What launchers leave in the environment: variables that would change a run's numbers are refused by name.

`accelerate launch` and its saved configuration set them. Accelerate reads them behind the back of whoever
builds it, so that a recipe would not say what was done.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from genzoo.core.errors import UsageError
from genzoo.training.config import TrainConfig

OFF = ("", "0", "no", "none", "false", "n", "off", "f")
PRECISIONS = {"fp32": "no", "fp64": "no", "bf16": "bf16", "fp16": "fp16"}


@dataclass(frozen=True)
class Variable:
    """allowed: values, in small letters, that change nothing.   why, fix: of its refusal."""

    name: str
    why: str
    fix: str
    allowed: tuple[str, ...] = OFF


REFUSED = (
    Variable(
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
        "gradients would be divided once more, in silence: batches are those of the recipe",
        "leave --gradient_accumulation_steps out; train.micro_batch_size accumulates",
        (*OFF, "1", "auto"),
    ),
    Variable(
        "ACCELERATE_DYNAMO_BACKEND",
        "names of compiled weights are others, so neither a resume nor `genzoo sample` could read them",
        "unset it, or start with --dynamo_backend no",
    ),
    Variable(
        "ACCELERATE_USE_FSDP",
        "Accelerate's way keeps no float32 weights under bf16, and does nothing on CPUs, in silence",
        "unset it, start with torchrun, and use train.sharding: full",
    ),
    Variable("ACCELERATE_USE_DEEPSPEED", "there is no DeepSpeed here", "start with torchrun"),
    Variable("ACCELERATE_USE_MEGATRON_LM", "there is no Megatron here", "start with torchrun"),
    Variable("ACCELERATE_USE_PARALLELISM_CONFIG", "models are not split like that", "start with torchrun"),
)


def refuse_other_ways(config: TrainConfig) -> None:
    """Raise UsageError for a variable that would change what the recipe says."""
    for variable in REFUSED:
        value = os.environ.get(variable.name, "").strip()
        if value.lower() not in variable.allowed:
            raise UsageError(f"{variable.name} is {value}", why=variable.why, fix=variable.fix)
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "").strip().lower()
    if asked not in (*OFF, PRECISIONS[config.precision]):
        raise UsageError(
            f"ACCELERATE_MIXED_PRECISION is {asked}, and train.precision is {config.precision}",
            why="the recipe decides, so that a run says how it was computed",
            fix=f"train.precision={asked}" if asked in PRECISIONS else "unset it, or --mixed_precision no",
        )
