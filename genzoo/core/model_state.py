"""A model's weights as a checkpoint keeps them: what is trained by name, what is frozen as one hash."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from genzoo.core.checkpoint import tensors_digest
from genzoo.core.contracts import able
from genzoo.core.contracts.execution import HasDerivedBuffers, MarkedUndecayed, SkipsDecay
from genzoo.core.errors import CheckpointError
from genzoo.core.sharded import like, whole
from genzoo.core.stored_tensors import shapes_of


class TrainedParameters(dict[str, nn.Parameter]):
    """Parameters by name.   undecayed: names of those that an optimizer leaves without weight decay."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], undecayed: Collection[str] = ()) -> None:
        super().__init__(parameters)
        self.undecayed = undecayed


def trainable_parameters(model: nn.Module) -> TrainedParameters:
    """The parameters that are optimised and averaged, by name; tied ones once."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    exempt = {
        id(module.get_parameter(name))
        for module in model.modules()
        if (owner := able(module, SkipsDecay)) is not None
        for name in owner.undecayed
    }
    return TrainedParameters(trained, [name for name, p in trained.items() if id(p) in exempt])


def undecayed_of(parameters: Mapping[str, nn.Parameter]) -> frozenset[str]:
    """Names of the parameters without weight decay: those said to be, and those marked one by one."""
    said = able(parameters, SkipsDecay)
    marked = {name for name, p in parameters.items() if able(p, MarkedUndecayed) is not None}
    return frozenset(marked if said is None else marked | set(said.undecayed))


def stored_weights(model: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint stores: the state dict without frozen parameters; sharded tensors stay sharded.

    Buffers that follow from a module's arguments, which it names in `derived_buffers`, are left out too.
    """
    left_out = _frozen_names(model) | _derived_names(model)
    return {name: tensor for name, tensor in model.state_dict().items() if name not in left_out}


def frozen_digest(model: nn.Module) -> str | None:
    """One hash over the frozen parameters, or None when there are none."""
    frozen = _frozen_names(model)
    tensors = {name: whole(tensor) for name, tensor in model.state_dict().items() if name in frozen}
    return tensors_digest(tensors) if tensors else None


def restore_weights(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    frozen: str | None,
    where: str,
    own_frozen: str | None = None,
) -> None:
    """Copy stored weights into a model, in place.

    frozen: the hash that the checkpoint recorded for the weights it does not store.   own_frozen: that of
    the model, where it is known. Raises CheckpointError when names, shapes or dtypes differ, or when the
    model stands on another frozen base.
    """
    names = _frozen_names(model) | _derived_names(model)
    targets = {name: tensor for name, tensor in model.state_dict().items() if name not in names}
    require_same(targets, weights, where=where, what="the model")
    own_frozen = own_frozen or frozen_digest(model)
    if own_frozen != frozen:
        raise CheckpointError(
            "the frozen weights are not those that this checkpoint was trained on",
            where=where,
            why=f"their hash is {own_frozen}; the checkpoint recorded {frozen}",
            fix="give the task the same base weights as in the first run",
        )
    assign(targets, weights)


def require_same(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], *, where: str, what: str
) -> None:
    """Raise CheckpointError that lists the differing names, shapes and dtypes, if there are any."""
    found = shapes_of(found)
    problems = [f"missing {name}" for name in expected if name not in found]
    problems += [f"unexpected {name}" for name in found if name not in expected]
    for name in expected.keys() & found.keys():
        ours, theirs = expected[name], found[name]
        if ours.shape != theirs.shape:
            problems.append(f"{name}: shape {tuple(theirs.shape)} instead of {tuple(ours.shape)}")
        elif ours.dtype != theirs.dtype:
            problems.append(f"{name}: {theirs.dtype} instead of {ours.dtype}")
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise CheckpointError(
            f"the checkpoint does not fit {what}",
            where=where,
            why="; ".join(sorted(problems)[:4]) + more,
            fix="use the recipe and the precision that the checkpoint was made with",
        )


def require_same_facts(saved: Mapping[str, str], present: Mapping[str, str], *, where: str) -> None:
    """Raise CheckpointError when a task's facts are not those that its checkpoint recorded.

    A fact that one side does not know is no contradiction.
    """
    for name in saved.keys() & present.keys():
        if saved[name] != present[name]:
            raise CheckpointError(
                f"the {name} is not the one that this checkpoint was trained with",
                where=where,
                why=f"it is {present[name]}; the checkpoint recorded {saved[name]}",
                fix="set its name, settings and weights back in the recipe",
            )


@torch.no_grad()
def assign(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy values into the tensors of the same names; a sharded target takes its own shard."""
    for name, target in targets.items():
        target.copy_(like(values[name], target))


def _frozen_names(model: nn.Module) -> set[str]:
    named = model.named_parameters(remove_duplicate=False)
    return {name for name, parameter in named if not parameter.requires_grad}


def _derived_names(model: nn.Module) -> set[str]:
    """Buffers that every model of the same arguments has, such as masks; official files may hold them."""
    owners = ((name, able(module, HasDerivedBuffers)) for name, module in model.named_modules())
    return {
        f"{name}.{buffer}".lstrip(".")
        for name, owner in owners
        for buffer in (() if owner is None else owner.derived_buffers)
    }
