"""Tensors of which each process holds some rows (DTensor), beside plain ones."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from genzoo.core.contracts import able
from genzoo.core.contracts.execution import Shards

PLAIN = (Tensor, nn.Parameter)


def whole(tensor: Tensor) -> Tensor:
    """The full tensor on every process; collective when it is sharded."""
    sharded = able(tensor, Shards)
    return tensor if sharded is None else sharded.full_tensor()


def own_part(tensor: Tensor) -> Tensor:
    """The rows that this process holds, sharing their memory; all of a plain tensor."""
    if type(tensor) in PLAIN:  # asked for every parameter in every step
        return tensor
    sharded = able(tensor, Shards)
    return tensor if sharded is None else sharded.to_local()


def own_parts(tensors: Iterable[Tensor]) -> list[Tensor]:
    """`own_part` of each: torch's arithmetic on lists of tensors knows plain ones only."""
    return [own_part(tensor) for tensor in tensors]


def like(value: Tensor, target: Tensor) -> Tensor:
    """A full tensor on the device of target, and sharded as target is; every process has the value."""
    if able(target, Shards) is None:
        return value.to(target.device)
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(target, DTensor)
    mesh = target.device_mesh
    # no source: each process takes its rows of the value that it has, and nothing is sent
    return distribute_tensor(value.to(target.device), mesh, target.placements, src_data_rank=None)


def is_in_rows(tensor: Tensor) -> bool:
    """Whether processes hold nothing but rows of it, one behind the other, or all of it."""
    if able(tensor, Shards) is None:
        return True
    from torch.distributed.tensor import DTensor, Shard

    assert isinstance(tensor, DTensor)
    cut = [one for one in tensor.placements if not one.is_replicate()]
    return all(isinstance(one, Shard) and one.dim == 0 for one in cut) and len(cut) < 2


def first_row(tensor: Tensor) -> int | None:
    """Which of a tensor's rows is the first that this process holds; None where another holds the same rows.

    Of a sharded tensor that `is_in_rows`: each of w processes holds ceil(rows / w), the last ones fewer or
    none.
    """
    from torch.distributed.tensor import DTensor

    assert isinstance(tensor, DTensor)
    places = tensor.device_mesh.get_coordinate()
    assert places is not None  # every process is in the mesh
    start = 0
    for number, (place, placement) in enumerate(zip(places, tensor.placements, strict=True)):
        if placement.is_shard():
            rows = tensor.shape[0]
            start = min(rows, place * -(-rows // tensor.device_mesh.size(number)))
        elif place:
            return None
    return start
