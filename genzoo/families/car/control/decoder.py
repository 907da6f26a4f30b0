"""Cached prediction, one scale after the other: of a VAR alone, under a control, or under several mixed.

The base is frozen, so that the model without control is always at hand. Controls enter its second half only:
its first half sees the same tokens whatever steers, and is computed once for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from genzoo.autoregression.sampling import Weight
from genzoo.families.car.control.mixing import mixture
from genzoo.families.car.control.model import CAR
from genzoo.families.car.var.blocks import KeyValueCache
from genzoo.families.car.var.model import VAR, repeat_to, scale_contents


@dataclass(frozen=True)
class Steering:
    """One control of a sampling.

    model: the CAR that was trained on it.   features: (b', d, h_k, w_k) per scale.   strengths: one per
    scale; 0 leaves the base alone, 1 is the CAR, more pushes further, less than 0 away.
    """

    model: CAR
    features: Sequence[Tensor]
    strengths: Sequence[float]


class MixedDecoder:
    """Predicts scale after scale, with each control at its strength.

    base: what all controls steer; their models' own bases are not run.   class_labels: (b,), a multiple of
    the features' rows.   weights: of the base alone and of each control, per scale; from the strengths when
    left out.   alone: what stands in the base's place, such as a control that says nothing. A branch runs as
    long as a scale to come has a weight for it: its caches need the scales before.
    """

    def __init__(
        self,
        base: VAR,
        class_labels: Tensor,
        steerings: Sequence[Steering] = (),
        *,
        weights: Sequence[Sequence[Weight]] | None = None,
        alone: Steering | None = None,
    ) -> None:
        self.base = base
        self.condition = base.condition(class_labels)
        self.first = _Stack(base, base.blocks[: base.depth // 2], self.condition)
        self.weights = weights or mixture([steering.strengths for steering in steerings], len(base.sizes))
        self.branches = [
            _SecondHalf(base, self.condition, steering) if any(weights) else None
            for weights, steering in zip(self.weights, (alone, *steerings), strict=True)
        ]

    def __call__(self, scale: int, read: Tensor | None) -> list[tuple[Weight, Tensor]]:
        """Weights, which sum to 1, and logits (b, h_k w_k, v) of the base alone and of each control.

        read: (b', c, h_k, w_k); None at the first scale. What has no weight is left out.
        """
        passed = self.follow(scale, read)
        return [(weight, self.base.logits(tokens, self.condition)) for weight, tokens in passed if weight]

    def follow(self, scale: int, read: Tensor | None) -> list[tuple[Weight, Tensor]]:
        """Remember a scale without predicting it: weights, and tokens (b, h_k w_k, d) before the head."""
        contents = scale_contents(self.base, self.condition, read)
        tokens = self.first(self.base.place(repeat_to(contents, len(self.condition)), scale))
        branches = zip(self.weights, self.branches, strict=True)
        return [
            (weights[scale], branch(scale, contents, tokens))
            for weights, branch in branches
            if branch is not None and any(weights[scale:])
        ]


def decoder_of(
    model: VAR | CAR, class_labels: Tensor, features: Sequence[Tensor] | None = None
) -> Callable[[int, Tensor | None], Tensor]:
    """What predicts logits (b, h_k w_k, v) of scale after scale for these labels.

    features: of `CAR.encode_control`; the base alone when left out.
    """
    base = model.base if isinstance(model, CAR) else model
    steerings: list[Steering] = []
    if features is not None:
        assert isinstance(model, CAR)
        steerings = [Steering(model, features, [1.0] * len(base.sizes))]
    mixed = MixedDecoder(base, class_labels, steerings)
    return lambda scale, read: mixed(scale, read)[0][1]


class _Stack:
    """Blocks in a row, with what they remember of the scales so far."""

    def __init__(self, base: VAR, blocks: Sequence[nn.Module] | nn.ModuleList, condition: Tensor) -> None:
        self.blocks, self.modulations = blocks, base.modulations(blocks, condition)
        self.caches = [KeyValueCache(base.length) for _ in blocks]

    def __call__(self, tokens: Tensor, before: Callable[[Tensor, int], Tensor] | None = None) -> Tensor:
        """(b, l_k, d) after the last block.   before: changes the tokens that enter block number i."""
        for index, (block, modulation, cache) in enumerate(self._layers()):
            entering = tokens if before is None else before(tokens, index)
            tokens = block(entering, modulation, cache=cache)
        return tokens

    def each(self, tokens: Tensor) -> list[Tensor]:
        """(b, l_k, d) after every block."""
        passed = []
        for block, modulation, cache in self._layers():
            tokens = block(tokens, modulation, cache=cache)
            passed.append(tokens)
        return passed

    def _layers(self) -> Iterator[tuple[nn.Module, Any, KeyValueCache]]:
        return zip(self.blocks, self.modulations, self.caches, strict=True)


class _SecondHalf:
    """The later blocks of the base under one control, or under none."""

    def __init__(self, base: VAR, condition: Tensor, steering: Steering | None) -> None:
        self.base, self.steering, self.count = base, steering, len(condition)
        self.blocks = _Stack(base, base.blocks[base.depth // 2 :], condition)
        self.network: _Stack | None = None
        if steering is not None and steering.model.arguments["control_network"] == "transformer":
            self.network = _Stack(base, steering.model.car_blocks, condition)

    def __call__(self, scale: int, contents: Tensor, tokens: Tensor) -> Tensor:
        """(b, l_k, d) after the last block.   contents: (b', l_k, d), what is read.   tokens: (b, l_k, d)."""
        if self.steering is None:
            return self.blocks(tokens)
        model, outputs = self.steering.model, self._outputs(self.steering, scale, contents)
        return self.blocks(tokens, lambda entering, index: model.inject(entering, outputs.pop(), index))

    def _outputs(self, steering: Steering, scale: int, contents: Tensor) -> list[Tensor]:
        """What each layer of the control branch says, shallowest first."""
        features, model = steering.features[scale], steering.model
        fused = model.fuse(repeat_to(contents, max(len(contents), len(features))), features)
        placed = self.base.place(repeat_to(fused, self.count), scale)
        if self.network is None:
            return model.convolved(placed, [self.base.sizes[scale]])
        return self.network.each(placed)
