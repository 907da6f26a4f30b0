"""Frozen weights that lie in the host's memory, and on the device only while they are read.

Text encoders and autoencoders of a large base are read for a moment of each step, and lie there for all of
it otherwise. What never changes need not be brought back: copies come to the device and are dropped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Result = TypeVar("Result")

_counted: ContextVar[bool] = ContextVar("resting_counted", default=False)


@contextlib.contextmanager
def as_on_a_device() -> Iterator[None]:
    """Within the block, weights at rest are copied on a CPU too, as they are for a GPU: who counts memory
    sees what a GPU would hold, and tests see what it would do.
    """
    token = _counted.set(True)
    try:
        yield
    finally:
        _counted.reset(token)


class Resting:
    """The frozen weights of some modules, at rest in the host's memory. On a CPU they are where they are.

    device: where they are read. Buffers and what is trained stay there.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.modules = tuple(modules)
        self.device = torch.device("cpu")
        self._is_awake = False

    def tensors(self) -> list[Tensor]:
        """The weights at rest, each once."""
        found = (module._parameters[name] for module, name in self._places())
        return list({id(weight): weight for weight in found if weight is not None}.values())

    def rest(self, device: torch.device | str) -> None:
        """Bring them to the host, after a move of their modules to the device."""
        self.device = torch.device(device)
        for weight in self.tensors():
            if weight.device.type != "cpu":
                host = weight.data.cpu()
                weight.data = host.pin_memory() if self.device.type == "cuda" else host

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Within the block the modules have copies on the device, which go when nobody holds them."""
        if self._is_awake or (self.device.type == "cpu" and not _counted.get()):
            yield
            return
        places = list(self._places())
        kept = [module._parameters[name] for module, name in places]
        copies: dict[int, Tensor] = {}
        self._is_awake = True
        try:
            for (module, name), weight in zip(places, kept, strict=True):
                assert weight is not None
                if id(weight) not in copies:
                    copies[id(weight)] = weight.detach().to(self.device, copy=True, non_blocking=True)
                module._parameters[name] = copies[id(weight)]  # type: ignore[assignment]
            copies.clear()
            yield
        finally:
            for (module, name), weight in zip(places, kept, strict=True):
                module._parameters[name] = weight
            self._is_awake = False

    def read(self, function: Callable[..., Result], *arguments: Tensor) -> Result:
        """What a function of the modules gives. Where gradients are wanted it is computed again in the
        backward pass, so that nothing of them stays on the device in between; the numbers are the same.
        """

        def awake(*given: Tensor) -> Result:
            with self.awake():
                return function(*given)

        if not torch.is_grad_enabled():
            return awake(*arguments)
        found: Result = checkpoint(awake, *arguments, use_reentrant=False, preserve_rng_state=False)
        return found

    def _places(self) -> Iterator[tuple[nn.Module, str]]:
        for top in self.modules:
            for module in top.modules():
                for name, weight in module._parameters.items():
                    if weight is not None and not weight.requires_grad:
                        yield module, name
