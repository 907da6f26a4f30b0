"""Tensors of which each process holds some rows (DTensor), beside plain ones."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from genzoo.core.contracts import Shards, able

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
