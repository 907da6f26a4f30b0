"""Finding out what broke: the first module with a non-finite output, and advice when memory ran out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from genzoo.core.errors import NonFiniteError, OutOfMemoryError, is_out_of_memory
from genzoo.core.sharded import own_part
from genzoo.core.types import Batch, LossOutput
from genzoo.nn.compiled import eagerly
from genzoo.training.batch_plan import BatchPlan, smaller_micro_batches


@dataclass(frozen=True, order=True)
class Finding:
    """What is not finite in one process. rank: the smaller, the nearer to the cause."""

    rank: int
    what: str
    samples: str


def explain_non_finite(
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    batches: Sequence[Batch],
    forward: Callable[[Batch], LossOutput],
) -> Finding | None:
    """Look for the first non-finite value of a step, or None when everything in this process is finite.

    `forward` repeats the step's forward pass on the same noise; the gradients of the step are still in place,
    in the trained `parameters`, of a sharded model in the own parts.
    """
    for name, parameter in model.named_parameters():
        if not _finite(parameter):
            return Finding(0, f"the weight {name!r}", "any position")
    for batch in batches:
        with torch.no_grad(), eagerly(model), first_non_finite_output(model) as found:
            loss = forward(batch).loss
        if found:
            return Finding(1, f"the output of module {found[0]!r}", _samples(batch))
        if not _finite(loss):
            return Finding(2, "the loss, though no module's output,", _samples(batch))
    for name, parameter in parameters.items():
        if parameter.grad is not None and not _finite(parameter.grad):
            return Finding(3, f"the gradient of {name!r}, though not the loss,", _samples(*batches))
    return None


def non_finite_error(
    found: Sequence[Finding | None], *, step: int, loss: float, grad_norm: float
) -> NonFiniteError:
    """The error that every process raises. found: what each process's `explain_non_finite` returned."""
    # finite parts may have a sum that is not: of losses over processes, or of squares in the norm
    total = "the norm of all gradients together" if len(found) == 1 else "a sum over processes"
    first = min((one for one in found if one is not None), default=Finding(9, total, "any position"))
    return NonFiniteError(
        f"stopped before the update of step {step}: {first.what} is not finite",
        where=f"samples at {first.samples}",
        why=f"loss {loss}, gradient norm {grad_norm}; weights and checkpoints are as they were",
        fix="lower optim.lr, set train.clip_grad_norm, or look at these samples",
    )


@contextlib.contextmanager
def first_non_finite_output(model: nn.Module) -> Iterator[list[str]]:
    """Within the block, collect the names of modules whose output is not finite, in the order they finish."""
    found: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not all(_finite(leaf) for leaf in tree_leaves(output) if isinstance(leaf, Tensor)):
                found.append(name or type(module).__name__)

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def memory_advice(plan: BatchPlan) -> Iterator[None]:
    """Turn a device's out-of-memory error into advice on batch sizes."""
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        smaller = smaller_micro_batches(plan)
        fix = "a smaller model or train.precision=bf16"
        if smaller:
            choices = " or ".join(f"train.micro_batch_size={size}" for size in smaller[:3])
            fix = f"{choices}; the global batch stays {plan.batch_size}, and the result equal"
        raise OutOfMemoryError(
            f"out of memory at {plan.per_device} samples per device",
            why=str(error).partition("\n")[0][:200],
            fix=fix,
        ) from error


def _finite(tensor: Tensor) -> bool:
    tensor = own_part(tensor)
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _samples(*batches: Mapping[str, Any]) -> str:
    positions = [int(value) for batch in batches for value in batch["position"]]
    items = [int(value) for batch in batches for value in batch.get("index", [])]
    more = " ..." if len(positions) > 8 else ""
    shown = f"positions {', '.join(map(str, positions[:8]))}{more}"
    return shown + (f" (items {', '.join(map(str, items[:8]))}{more})" if items else "")
