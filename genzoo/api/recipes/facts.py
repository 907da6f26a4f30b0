"""What `auto` arguments of a model are set to: facts of data set and codec, each only when asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from genzoo.core.contracts import able
from genzoo.core.contracts.datasets import TellsModel
from genzoo.core.contracts.parts import NormalisesLatents
from genzoo.core.errors import ShapeError
from genzoo.core.registry import MODELS
from genzoo.core.signatures import AUTO, parameters, type_problem

if TYPE_CHECKING:
    from genzoo.core.node import Node
    from genzoo.core.types import Dataset, LatentCodec


def facts_for(model: Node, dataset: Dataset, codec: LatentCodec | None) -> dict[str, Any]:
    """The value of every `auto` argument of the model that data set and codec know.

    num_classes; in_channels, input_size and num_frames of the latents; and the attributes that the data
    set's class names in `tells`. Raises ShapeError for one that the samples do not have, or the model does
    not take.
    """
    telling = able(dataset, TellsModel)
    told = () if telling is None else tuple(telling.tells)
    waiting = [name for name, value in model.arguments.items() if value == AUTO]
    found = {}
    for name in waiting:
        if name in told:
            found[name] = getattr(dataset, name)
        elif name in KNOWN:
            found[name] = KNOWN[name](model, dataset, codec)
    return found


def latent_facts(codec: LatentCodec | None) -> dict[str, str]:
    """What a checkpoint keeps of measured statistics: with others, its model would meet other latents."""
    normalising = None if codec is None else able(codec, NormalisesLatents)
    if normalising is None or normalising.measured_by is None:
        return {}
    return {"latent statistics": normalising.normalisation.digest}


def _num_classes(model: Node, dataset: Dataset, codec: LatentCodec | None) -> int:
    return dataset.num_classes or 0


def _in_channels(model: Node, dataset: Dataset, codec: LatentCodec | None) -> int:
    return _shape("in_channels", dataset, codec, axes=(3, 4))[-3]


def _num_frames(model: Node, dataset: Dataset, codec: LatentCodec | None) -> int:
    return _shape("num_frames", dataset, codec, axes=(4,))[0]


def _input_size(model: Node, dataset: Dataset, codec: LatentCodec | None) -> int | list[int]:
    """The side of square samples; else [height, width], of a model that takes them."""
    shape = _shape("input_size", dataset, codec, axes=(3, 4))
    if shape[-1] == shape[-2]:
        return shape[-1]
    size = list(shape[-2:])
    parameter = parameters(MODELS.get(model.name)).get("input_size")
    if parameter is None or type_problem(size, parameter.annotation):
        raise ShapeError(
            f"{model.name} takes square samples, and these are {shape}",
            where="model.input_size: auto",
            fix="give the data square samples, or choose a model whose input_size may be [height, width]",
        )
    return size


def _shape(
    name: str, dataset: Dataset, codec: LatentCodec | None, *, axes: tuple[int, ...]
) -> tuple[int, ...]:
    pixels = tuple(dataset.sample_shape)
    shape = pixels if codec is None else codec.latent_shape(pixels)
    if len(shape) not in axes:
        wanted = "clips (f, c, h, w)" if axes == (4,) else "pictures (c, h, w) or clips (f, c, h, w)"
        raise ShapeError(
            f"samples of shape {shape} do not tell {name}, {wanted} would",
            where=f"model.{name}: auto",
            fix=f"set model.{name}",
        )
    return shape


KNOWN: dict[str, Callable[[Node, Dataset, LatentCodec | None], Any]] = {
    "num_classes": _num_classes,
    "in_channels": _in_channels,
    "input_size": _input_size,
    "num_frames": _num_frames,
}
"""Model arguments that may say `auto` whatever the data set; a data set may know more."""
