"""Cached prediction of the base under the control branch, one scale after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from genzoo.families.car.var.blocks import KeyValueCache
from genzoo.families.car.var.model import repeat_to, scale_contents

if TYPE_CHECKING:
    from genzoo.families.car.control.model import CAR


class ControlledDecoder:
    """Cached prediction under a control, one scale per call and in order.

    class_labels: (b,).   features: (b', d, h_k, w_k) per scale, b a multiple of b'.
    """

    def __init__(self, model: CAR, class_labels: Tensor, features: Sequence[Tensor]) -> None:
        self.model, self.features = model, list(features)
        base = model.base
        self.condition = base.condition(class_labels)
        self.modulations = base.modulations(base.blocks, self.condition)
        self.caches = [KeyValueCache(base.length) for _ in base.blocks]
        self.is_transformer = model.arguments["control_network"] == "transformer"
        if self.is_transformer:
            self.control_modulations = base.modulations(model.car_blocks, self.condition)
            self.control_caches = [KeyValueCache(base.length) for _ in model.car_blocks]

    def __call__(self, scale: int, read: Tensor | None) -> Tensor:
        """Logits (b, h_k w_k, v).   read: (b', c, h_k, w_k); None at the first scale."""
        base, count = self.model.base, len(self.condition)
        contents = scale_contents(base, self.condition, read)
        fused = self.model.fuse(
            repeat_to(contents, max(len(contents), len(self.features[scale]))), self.features[scale]
        )
        outputs = self._control_outputs(base.place(repeat_to(fused, count), scale), scale)
        tokens = base.place(repeat_to(contents, count), scale)
        layers = zip(base.blocks, self.modulations, self.caches, strict=True)
        for index, (block, modulation, cache) in enumerate(layers):
            if index >= self.model.num_injections:
                tokens = self.model.inject(tokens, outputs.pop(), index - self.model.num_injections)
            tokens = block(tokens, modulation, cache=cache)
        return base.logits(tokens, self.condition)

    def _control_outputs(self, tokens: Tensor, scale: int) -> list[Tensor]:
        if not self.is_transformer:
            return self.model.convolved(tokens, [self.model.base.sizes[scale]])
        outputs = []
        layers = zip(self.model.car_blocks, self.control_modulations, self.control_caches, strict=True)
        for block, modulation, cache in layers:
            tokens = block(tokens, modulation, cache=cache)
            outputs.append(tokens)
        return outputs
