"""Launches, bytes and floating-point operations of what runs inside, and an estimate of its time.

A torch operation that writes memory is one launch; views, allocations and questions are none. Bytes: every
tensor read once (a random access reads its rows, an expanded axis counts once) and every result written once.
An operation of genzoo's own is what its host code does: its Triton launches, and the sums after them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks.fake_gpu import FUSED_OPS, fake_gpu

# what an H100 sustains; stated in every report
CEILINGS = {"bytes_per_second": 3.0e12, "flops_per_second": 6.0e14, "seconds_per_launch": 3.0e-6}
ALLOCATIONS = (
    "empty",
    "new_empty",
    "empty_like",
    "empty_strided",
    "new_empty_strided",
)
VIEWS = ("detach", "_unsafe_view")
TWO_LAUNCHES = ("slice_backward", "select_backward", "native_layer_norm_backward")
ROWS_ONLY = ("embedding", "index_select", "gather")
# values that one block of a launch over many tensors works on, and blocks of a launch
FOREACH_CHUNK, FOREACH_BLOCKS = 65536, 320


class LaunchCounter(TorchDispatchMode):
    """Counts while it is entered; the rows of `by_name` are [launches, bytes, seconds]."""

    def __init__(self) -> None:
        super().__init__()
        self.launches, self.bytes, self.flops, self.seconds = 0, 0, 0.0, 0.0
        self.by_name: dict[str, list[float]] = defaultdict(lambda: [0, 0, 0.0])

    def add(self, name: str, moved: int, flops: float = 0.0, launches: int = 1) -> None:
        """A launch that moves so many bytes: as long as the slowest of its three limits."""
        least = launches * CEILINGS["seconds_per_launch"]
        seconds = max(moved / CEILINGS["bytes_per_second"], flops / CEILINGS["flops_per_second"], least)
        self.launches += launches
        self.bytes += moved
        self.flops += flops
        self.seconds += seconds
        for i, amount in enumerate((launches, moved, seconds)):
            self.by_name[name][i] += amount

    def on_launch(self, name: str, arguments: Sequence[Any]) -> None:
        """A Triton launch: each tensor once, and again what a kernel is known to read again."""
        tensors = {id(leaf): leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)}
        again = REREAD[name](arguments) if name in REREAD else []
        self.add(name, sum(_size(t) for t in [*tensors.values(), *again]))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        own = FUSED_OPS.get(func.name().removesuffix(".default"))
        if own is not None:
            with self:
                return own._init_fn(*args, **kwargs)
        if func.namespace == "genzoo":
            raise AssertionError(f"{func.name()} on a GPU: the fused kernels were not chosen")
        out = func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        if name.startswith("_foreach_"):
            self._add_foreach(name, args, out)
            return out
        if not _writes(func, name) or not any(isinstance(leaf, Tensor) for leaf in tree_leaves(out)):
            return out
        flops = flop_registry.get(func.overloadpacket)
        work = 0.0 if flops is None else float(flops(*args, **kwargs, out_val=out))
        self.add(name, _moved(name, args, kwargs, out), work, 2 if name in TWO_LAUNCHES else 1)
        return out

    def _add_foreach(self, name: str, args: tuple[Any, ...], out: Any) -> None:
        """A call on lists of tensors, whose first list is written where nothing is returned."""
        read = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
        written = out or args[0]
        chunks = sum(-(-tensor.numel() // FOREACH_CHUNK) for tensor in args[0])
        moved = sum(_size(tensor) for tensor in [*read, *written])
        if name == "_foreach_copy_":  # what is overwritten is not read
            moved -= sum(_size(tensor) for tensor in written)
        self.add(name, moved, launches=-(-chunks // FOREACH_BLOCKS))


@contextmanager
def counted_gpu() -> Iterator[LaunchCounter]:
    """A fake GPU; enter the counter that it yields around what shall be counted."""
    counter = LaunchCounter()
    with ExitStack() as stack:
        stack.enter_context(fake_gpu(counter.on_launch))
        yield counter


def _writes(func: Any, name: str) -> bool:
    base = name.rstrip("_")
    if base in ALLOCATIONS + VIEWS or name.startswith(("sym_", "prim::", "_local_scalar")):
        return False
    returns = func._schema.returns
    # a result that aliases an input without writing to it is a view
    return not (returns and all(r.alias_info is not None and not r.alias_info.is_write for r in returns))


def _moved(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
    written = sum(_size(t) for t in results)
    read = {id(t): t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
    if name in ROWS_ONLY:
        return 2 * written + sum(_size(t) for t in list(read.values())[1:])
    if name in ("copy_", "fill_", "zero_"):
        read.pop(id(args[0]), None)
    if name in ("zeros", "ones", "full", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones"):
        return written
    extra = written if name in ("slice_backward", "select_backward") else 0
    return written + sum(_size(t) for t in read.values()) + extra


def _size(tensor: Tensor) -> int:
    """Bytes of its distinct values."""
    number = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        number *= size if stride else min(size, 1)
    return number * tensor.element_size()


def _again_in_forward(arguments: Sequence[Any]) -> list[Tensor]:
    """The second direction reads what the first one wrote."""
    y_first = arguments[6][1]
    return [] if y_first is None else [y_first]


def _again_in_backward(arguments: Sequence[Any]) -> list[Tensor]:
    """A direction reads its u, delta and B twice, as states are recomputed; the second what is shared."""
    first, second, grad_out, gate = arguments[0], arguments[3], arguments[6], arguments[8][0]
    again = [*(first[i] for i in (0, 1, 3))]
    if second[0] is not None:
        again += [*(second[i] for i in (0, 1, 3)), grad_out, *([] if gate is None else [gate])]
    return again


REREAD: dict[str, Callable[[Sequence[Any]], list[Tensor]]] = {
    "scan.forward_kernel": _again_in_forward,
    "scan.backward_kernel": _again_in_backward,
}
