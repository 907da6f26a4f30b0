"""What a CAR reads of a control, and its encoding, which is done once for all samples that share it."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import torch
from torch import Tensor

from genzoo.autoregression.next_scale import shrink
from genzoo.core.seeds import SampleStreams
from genzoo.families.car.control.model import CAR
from genzoo.families.car.control.pyramid import control_pyramid
from genzoo.families.car.var.bf16_copy import weights_version
from genzoo.families.car.vqvae.codec import VQVAECodec

GREY = 128  # of 255, where 0 in [-1, 1] comes to lie


def control_inputs(model: CAR, codec: VQVAECodec, control: Tensor, *, exact: bool) -> list[Tensor]:
    """What a CAR reads of a control at every scale.   control: (b, 3, h, w) in [-1, 1].

    exact: resized bit for bit as the released weights know it, see `control_pyramid`.
    """
    sizes = [(height, width) for _, height, width in model.control_shapes()]
    if model.fusion == "conv":
        return control_pyramid(control, sizes, exact=exact)
    sums = codec.sums(codec.moments(control))
    return [shrink(f_hat, size) for f_hat, size in zip(sums, sizes, strict=True)]


def drop_controls(control: Tensor, probability: float, generator: SampleStreams) -> Tensor:
    """Replace each control by mid grey with the given probability; none is drawn for 0.

    control: (b, 3, h, w), uint8 or in [-1, 1]. Leaving the branch out instead would train nothing: the frozen
    base has no gradient to give.
    """
    if not probability:
        return control
    dropped = generator.rand(control.device) < probability
    return control.masked_fill(dropped[:, None, None, None], GREY if control.dtype == torch.uint8 else 0)


@dataclass(frozen=True)
class ControlMemory:
    """The last control and its features: seen again, it need not be encoded again.

    control: (1, 3, h, w).   features: (1, d, h_k, w_k) per scale.   model, version: what encoded it, and
    the state of its weights.
    """

    model: weakref.ref[CAR]
    control: Tensor
    features: list[Tensor]
    version: tuple[int, ...]


class ControlEncoding:
    """Encodes controls; one that all samples share, or that was seen last, is encoded once."""

    def __init__(self, codec: VQVAECodec) -> None:
        self.codec = codec
        self._memory: ControlMemory | None = None

    def __call__(self, model: CAR, control: Tensor) -> list[Tensor]:
        """Features (b or 1, d, h_k, w_k) per scale.   control: (b, 3, h, w) in [-1, 1]."""
        if (control != control[:1]).any():
            return self._encode(model, control)
        first, memory = control[:1], self._memory
        if memory is None or not _fits(memory, model, first):
            features = self._encode(model, first)
            memory = self._memory = ControlMemory(weakref.ref(model), first, features, weights_version(model))
        return memory.features

    def _encode(self, model: CAR, control: Tensor) -> list[Tensor]:
        return model.encode_control(control_inputs(model, self.codec, control, exact=True))


def _fits(memory: ControlMemory, model: CAR, control: Tensor) -> bool:
    same_model = memory.model() is model and memory.version == weights_version(model)
    known = memory.control
    same_place = known.shape == control.shape and known.device == control.device
    return same_model and same_place and known.equal(control)
