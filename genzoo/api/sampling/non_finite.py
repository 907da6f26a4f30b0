"""Samples are numbers, or an error that names the step and the samples: a black picture is neither."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_leaves

from genzoo.core.errors import GenzooError, NonFiniteError
from genzoo.nn.compiled import eagerly

if TYPE_CHECKING:
    from torch import Tensor, nn

FIX = "other weights (--weights, --checkpoint), a smaller guidance_scale, or a wider precision"


def finite_samples(model: nn.Module, draw: Callable[[], Tensor], indices: Sequence[int]) -> Tensor:
    """What `draw` returns, rows for the `indices`. Raises NonFiniteError when a number of it is none.

    draw: the same each time it is called; to find the step it is called once more, and only then. An error of
    its own that comes from such numbers, as of drawing from a distribution of NaNs, is told as what it is.
    """
    try:
        pixels = draw()
    except NonFiniteError as error:
        raise _explained(model, draw, indices, error.what) from error
    except GenzooError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        with eagerly(model), _watched(model) as found:
            _ignore_errors(draw)
        if not found:
            raise
        raise _explained(model, draw, indices, str(error).partition("\n")[0][:120]) from error
    bad = [index for index, row in zip(indices, pixels, strict=False) if not bool(torch.isfinite(row).all())]
    if bad:
        raise _explained(model, draw, bad, "the pictures hold NaN or infinity")
    return pixels


def _explained(
    model: nn.Module, draw: Callable[[], Tensor], indices: Sequence[int], why: str
) -> NonFiniteError:
    with eagerly(model), _watched(model) as found:
        _ignore_errors(draw)
    if found:
        name, step = found[0]
        place = f"step {step} of sampling, where module {name!r} gave the first of them"
    else:
        place = "the sampler or the decoder: what the model gave was finite"
    shown = ", ".join(map(str, indices[:5])) + (", ..." if len(indices) > 5 else "")
    return NonFiniteError(
        "sampling met numbers that are not finite",
        where=f"samples {shown}; {place}",
        why=why,
        fix=FIX,
    )


def _ignore_errors(draw: Callable[[], Tensor]) -> None:
    try:
        draw()
    except (RuntimeError, ValueError, IndexError, ArithmeticError):
        return  # it is known already, and what was watched is what counts


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[tuple[str, int]]]:
    """Within the block, collect (module, its how manieth call) of outputs that are not finite, in order."""
    found: list[tuple[str, int]] = []
    calls: Counter[str] = Counter()

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            calls[name] += 1
            leaves = [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]
            if not found and not all(bool(torch.isfinite(leaf).all()) for leaf in leaves):
                found.append((name or type(module).__name__, calls[name]))

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
