"""Bytes that tensors, real ones or fake, hold while something runs, counted operation by operation."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from types import TracebackType
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Point(NamedTuple):
    """gradients: bytes of those that were there.   others: the most that was held beside them meanwhile."""

    gradients: int
    others: int


class AllocationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts while it is entered: every new storage among the results of an operation, until it is freed.

    What a kernel takes and frees inside itself is not seen.   live: bytes held now.   points: from one
    gradient to the next.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        """known: tensors that were there before, and are not counted."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.gradients = 0
        self.points = [Point(0, 0)]
        self._held: dict[int, tuple[Any, int]] = {}
        self._resize = torch.UntypedStorage.resize_
        self._patch = mock.patch.object(torch.UntypedStorage, "resize_", self._resized())
        for tensor in known:
            self._hold(tensor.untyped_storage(), 0)

    @property
    def peak(self) -> int:
        """The most bytes that were held at once."""
        return max(point.gradients + point.others for point in self.points)

    def restart(self, gradients: int = 0) -> None:
        """Forget the points so far.   gradients: bytes of those that are there and counted in `live`."""
        self.gradients = gradients
        self.points = [Point(gradients, self.live - gradients)]

    def follow(self, parameters: Iterable[nn.Parameter]) -> list[Any]:
        """Note each gradient when it is made; returns the handles of the hooks."""
        return [one.register_post_accumulate_grad_hook(self._note_gradient) for one in parameters]  # type: ignore[no-untyped-call]

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that were there before."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._hold(storage, storage.nbytes())

    def __enter__(self) -> AllocationCounter:
        self._patch.start()
        entered: AllocationCounter = super().__enter__()  # type: ignore[no-untyped-call]
        return entered

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        self._patch.stop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.hold(leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor))
        return out

    def _note_gradient(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self.gradients += parameter.grad.untyped_storage().nbytes()
        self.points.append(Point(self.gradients, self.live - self.gradients))

    def _hold(self, storage: Any, size: int) -> None:
        key = storage._cdata
        if key in self._held:
            return
        self._held[key] = (weakref.ref(storage, lambda _: self._drop(key)), size)
        self._add(size)

    def _drop(self, key: int) -> None:
        self.live -= self._held.pop(key, (None, 0))[1]

    def _add(self, size: int) -> None:
        self.live += size
        others = self.live - self.gradients
        if others > self.points[-1].others:
            self.points[-1] = Point(self.gradients, others)

    def _resized(self) -> Any:
        """FSDP frees gathered weights, and takes room for them again, in the same storage."""

        def resize(storage: Any, size: int) -> Any:
            key = storage._cdata
            if key in self._held:
                reference, before = self._held[key]
                self._held[key] = (reference, size)
                self._add(size - before)
            return self._resize(storage, size)

        return resize
