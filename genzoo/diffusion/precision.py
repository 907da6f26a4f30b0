"""What the network computes in while samples are drawn: in 16 bits as trained, and the chain in float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from genzoo.core.errors import UsageError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Arithmetic:
    """How the network is computed in sampling.

    precision: of the network's matrix products; "run" is that of the run's training. Latents, schedules,
        guidance and the decoder stay in float32.
    """

    precision: Literal["run", "fp32", "bf16", "fp16"] = "run"

    def __post_init__(self) -> None:
        if self.precision not in ("run", "fp32", *DTYPES):
            fix = f"use run, fp32 or {' or '.join(DTYPES)}"
            raise UsageError(f"precision is {self.precision!r}", fix=fix)

    def chosen(self, run_precision: str) -> str:
        """The precision that this means for a run of that precision."""
        return run_precision if self.precision == "run" else self.precision


def at_precision(sampler: Callable[..., Tensor], precision: str) -> Callable[..., Tensor]:
    """The same sampler, whose network computes under autocast in 16 bits; itself for other precisions.

    Raises UsageError for fp16 on a device that has no such products.
    """
    dtype = DTYPES.get(precision)
    if dtype is None:
        return sampler

    def sample(network: Callable[..., Tensor], x_T: Tensor, *rest: Any, **options: Any) -> Tensor:
        device = x_T.device.type
        if dtype == torch.float16 and device == "cpu":
            raise UsageError("precision is fp16, and the CPU computes in fp32 or bf16", fix="precision=bf16")

        def computed(*inputs: Any) -> Tensor:
            with torch.autocast(device, dtype):
                return network(*inputs)

        # autocast forgets its copies of the weights when the outermost block ends: one cast for all steps
        with torch.autocast(device, enabled=False):
            return sampler(computed, x_T, *rest, **options)

    return sample
