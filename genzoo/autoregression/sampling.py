"""Size by scale: predict all tokens of a map, draw them, add their embedding, and read the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import torch
from einops import rearrange
from torch import Tensor

from genzoo.autoregression.filters import (
    Generator,
    draw_tokens,
    guide,
    keep_top_k,
    keep_top_p,
    scale_ratio,
    smooth_weights,
)
from genzoo.autoregression.next_scale import contribution, shrink
from genzoo.autoregression.scales import scale_sizes
from genzoo.core.errors import ShapeError, UsageError
from genzoo.core.sizes import Size

Weight: TypeAlias = float | tuple[float, float]
"""Of logits in a sum: of what guidance makes of them, or of each half, the labels' and the null class's."""

Predict = Callable[[int, Tensor | None], Tensor | Sequence[tuple[Weight, Tensor]]]
"""(scale, map read at this scale or None at the first) -> logits (b or 2b, h_k w_k, v), labels first.

Or several, each with its weight: each is guided, then they are added up.
"""


class Codebook(Protocol):
    """Token embeddings and the refinement of what they add."""

    @property
    def weight(self) -> Tensor:
        """(v, c)."""

    def refine(self, h: Tensor, scale: int, num_scales: int) -> Tensor:
        """See genzoo.autoregression.next_scale."""


@dataclass(frozen=True)
class NextScaleOptions:
    """How tokens are drawn.

    guidance_scale: 1 is none; it grows from 1 at the first scale to this at the last (the papers' cfg is this
    less 1).   top_k, top_p: keep the likeliest tokens only; 0 keeps all.   smooth: mix embeddings by a soft
    draw, for pictures to look at; the tokens then are a by-product.   precision: of the networks that
    predict and decode; "bf16" runs copies with 16-bit weights. Tokens are drawn in float32 either way.
    temperature: divides the logits that are kept, one for all scales or one for each; above 1 draws more
    evenly.
    """

    guidance_scale: float = 1.0
    top_k: int = 0
    top_p: float = 0.0
    smooth: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    temperature: float | Sequence[float] = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.guidance_scale < float("inf"):
            raise UsageError(f"guidance_scale is {self.guidance_scale}", fix="use 1 for none, or more")
        if not 0 <= self.top_p <= 1:
            raise UsageError(f"top_p is {self.top_p}", fix="use a probability; 0 keeps every token")
        if self.top_k < 0:
            raise UsageError(f"top_k is {self.top_k}", fix="use 0 to keep every token, or a number of tokens")
        if self.precision not in ("fp32", "bf16"):
            raise UsageError(f"precision is {self.precision!r}", fix="use fp32 or bf16")
        given = self.temperature
        for value in given if isinstance(given, (list, tuple)) else [given]:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise UsageError(f"temperature is {value!r}", fix="use a positive number; 1 changes nothing")

    @property
    def is_guided(self) -> bool:
        """Whether a second pass without labels is needed."""
        return self.guidance_scale != 1

    def temperatures(self, num_scales: int) -> list[float]:
        """One for every scale. Raises UsageError when there are others than scales."""
        given = self.temperature
        each = list(given) if isinstance(given, (list, tuple)) else [float(given)] * num_scales  # type: ignore[arg-type]
        if len(each) != num_scales:
            raise UsageError(
                f"temperature has {len(each)} values, and there are {num_scales} scales",
                fix="give one for each scale, or one for all",
            )
        return each


@dataclass(frozen=True)
class GivenTokens:
    """Tokens to keep instead of drawing them. ids: (b, l_k) per scale.   keep: (b, l_k) bool per scale."""

    ids: Sequence[Tensor]
    keep: Sequence[Tensor]


@dataclass
class SampledScales:
    """What was drawn.

    ids: (b, h_k w_k) per scale.   f_hat: (b, c, h, w), what the decoder takes.   logits: if asked for, mixed
    by guidance and not yet filtered, (b, h_k w_k, v) per scale.
    """

    ids: list[Tensor] = field(default_factory=list)
    f_hat: Tensor = field(default_factory=lambda: torch.empty(0))
    logits: list[Tensor] = field(default_factory=list)


@torch.no_grad()
def sample_scales(
    predict: Predict,
    codebook: Codebook,
    patch_nums: Sequence[Size],
    generator: Generator,
    options: NextScaleOptions,
    *,
    given: GivenTokens | None = None,
    keep_logits: bool = False,
) -> SampledScales:
    """Draw all scales of a batch.

    predict: with guidance it is asked for both halves, labels first.   generator: one stream per picture, or
    one generator.   given: tokens to keep, for in-painting and editing.
    """
    sizes = scale_sizes(patch_nums)
    if options.top_k > len(codebook.weight):
        raise UsageError(
            f"top_k is {options.top_k} but the codebook has {len(codebook.weight)} tokens",
            fix="use fewer, or 0 to keep every token",
        )
    temperatures = options.temperatures(len(sizes))
    result, read = SampledScales(), None
    for scale, size in enumerate(sizes):
        logits = _mixed(predict(scale, read), options, scale_ratio(scale, len(sizes)))
        if keep_logits:
            result.logits.append(logits)
        logits = keep_top_p(keep_top_k(logits, options.top_k), options.top_p)
        if temperatures[scale] != 1:
            logits = logits / temperatures[scale]
        ids = draw_tokens(logits, generator)
        embedded = _embedded(logits, ids, scale, len(sizes), codebook, generator, options)
        if given is not None:
            ids, embedded = _with_given(ids, embedded, given, scale, codebook)
        result.ids.append(ids)
        as_map = rearrange(embedded, "b (h w) c -> b c h w", h=size[0])
        added = contribution(as_map, scale, len(sizes), sizes[-1], codebook.refine)
        result.f_hat = added if scale == 0 else result.f_hat + added
        read = shrink(result.f_hat, sizes[scale + 1]) if scale + 1 < len(sizes) else None
    return result


def keep_masks(keep: Tensor, patch_nums: Sequence[Size]) -> list[Tensor]:
    """Which tokens of every scale lie in a region to keep: those whose cell is at least half kept.

    keep: (b, h, w) bool, of any size.   Returns (b, h_k w_k) bool per scale.
    """
    area = keep[:, None].float()
    return [shrink(area, size).flatten(1) >= 0.5 for size in scale_sizes(patch_nums)]


def _mixed(
    predicted: Tensor | Sequence[tuple[Weight, Tensor]], options: NextScaleOptions, ratio: float
) -> Tensor:
    """Guided first, added up second, in float32: after a filter there would be infinities to subtract."""
    if isinstance(predicted, Tensor):
        return _guided(predicted, options, ratio)
    first, *others = (_weighted(weight, logits, options, ratio) for weight, logits in predicted)
    return sum(others, start=first)


def _weighted(weight: Weight, logits: Tensor, options: NextScaleOptions, ratio: float) -> Tensor:
    if isinstance(weight, tuple):
        labelled, null = logits.float().chunk(2)
        return weight[0] * labelled + weight[1] * null
    guided = _guided(logits, options, ratio)
    return guided if weight == 1 else weight * guided


def _guided(logits: Tensor, options: NextScaleOptions, ratio: float) -> Tensor:
    logits = logits.float()
    if not options.is_guided:
        return logits
    conditional, unconditional = logits.chunk(2)
    return guide(conditional, unconditional, (options.guidance_scale - 1) * ratio)


def _embedded(
    logits: Tensor,
    ids: Tensor,
    scale: int,
    num_scales: int,
    codebook: Codebook,
    generator: Generator,
    options: NextScaleOptions,
) -> Tensor:
    if not options.smooth:
        return codebook.weight[ids]
    return smooth_weights(logits, scale, num_scales, generator).to(codebook.weight.dtype) @ codebook.weight


def _with_given(
    ids: Tensor, embedded: Tensor, given: GivenTokens, scale: int, codebook: Codebook
) -> tuple[Tensor, Tensor]:
    kept, keep = given.ids[scale], given.keep[scale]
    if kept.shape != ids.shape or keep.shape != ids.shape:
        raise ShapeError(
            f"given tokens {tuple(kept.shape)} with mask {tuple(keep.shape)} do not fit scale {scale}, "
            f"{tuple(ids.shape)}"
        )
    return torch.where(keep, kept, ids), torch.where(keep[..., None], codebook.weight[kept], embedded)


def next_scale(
    predict: Predict,
    codebook: Codebook,
    patch_nums: Sequence[Size],
    generator: Generator,
    given: GivenTokens | None = None,
    *,
    guidance_scale: float = 1.0,
    top_k: int = 0,
    top_p: float = 0.0,
    smooth: bool = False,
    precision: Literal["fp32", "bf16"] = "fp32",
    temperature: float | Sequence[float] = 1.0,
) -> SampledScales:
    """`sample_scales` as a recipe's sampler: its options are those of NextScaleOptions.

    The task heeds `precision`: here `predict` has its own.
    """
    options = NextScaleOptions(guidance_scale, top_k, top_p, smooth, precision, temperature)
    return sample_scales(predict, codebook, patch_nums, generator, options, given=given)
