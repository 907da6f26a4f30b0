"""From logits to tokens: guidance, top-k, top-p, and draws that depend on each picture's own stream."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genzoo.core.errors import UsageError
from genzoo.core.seeds import SampleStreams

Generator = SampleStreams | torch.Generator
"""One stream per picture, or one generator for the whole batch, as the released samplers have it."""

# smoothing starts at this temperature, falls with the scale, and never reaches zero
FIRST_TEMPERATURE, LAST_TEMPERATURE = 0.27, 0.005


def scale_ratio(scale: int, num_scales: int) -> float:
    """0 at the first scale, 1 at the last."""
    return scale / (num_scales - 1) if num_scales > 1 else 0.0


def guide(conditional: Tensor, unconditional: Tensor, strength: float) -> Tensor:
    """Logits pushed away from those without a label; strength 0 leaves them alone."""
    return (1 + strength) * conditional - strength * unconditional


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """-inf below the k-th largest logit; ties stay. k = 0, or more than there are, keeps all.   (..., v)."""
    if k < 0:
        raise UsageError(f"top_k is {k}", fix="use 0 to keep every token, or a number of tokens")
    if k == 0 or k >= logits.shape[-1]:
        return logits
    threshold = logits.topk(k, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < threshold, -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """-inf for the least likely tokens that together hold 1 - p; the likeliest stays. 0 or 1 keep all."""
    if not 0 <= p <= 1:
        raise UsageError(f"top_p is {p}", fix="use a probability; 0 keeps every token")
    if p == 0 or p == 1:
        return logits
    ascending, order = logits.sort(dim=-1, descending=False)
    dropped = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - p
    dropped[..., -1] = False
    return logits.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), -torch.inf)


def draw_tokens(logits: Tensor, generator: Generator) -> Tensor:
    """One token per position from softmax(logits).   logits: (b, l, v).   Returns (b, l) int64."""
    # drawn where the generators live: the same tokens on every device
    probabilities = logits.softmax(dim=-1).to(_home(generator))
    if isinstance(generator, torch.Generator):
        ids = _multinomial(probabilities.flatten(0, 1), generator).view(logits.shape[:2])
    else:
        rows = zip(probabilities, generator.generators, strict=True)
        ids = torch.stack([_multinomial(row, g) for row, g in rows])
    return ids.to(logits.device)


def gumbel_softmax(logits: Tensor, temperature: float, generator: Generator) -> Tensor:
    """A soft draw: softmax((logits + gumbel noise) / temperature).   logits: (b, l, v)."""
    noise = _per_stream(logits, generator, lambda x, g: -x.exponential_(generator=g).log())
    return ((logits + noise) / temperature).softmax(dim=-1)


def smooth_weights(logits: Tensor, scale: int, num_scales: int, generator: Generator) -> Tensor:
    """Mixing weights over the codebook, sharper from scale to scale.   logits: filtered, (b, l, v)."""
    ratio = scale_ratio(scale, num_scales)
    temperature = max(FIRST_TEMPERATURE * (1 - ratio * 0.95), LAST_TEMPERATURE)
    return gumbel_softmax(logits * (1 + ratio), temperature, generator)


def _multinomial(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    return torch.multinomial(probabilities, 1, replacement=True, generator=generator)[:, 0]


def _home(generator: Generator) -> torch.device:
    return generator.device if isinstance(generator, torch.Generator) else generator.generators[0].device


def _per_stream(
    like: Tensor, generator: Generator, draw: Callable[[Tensor, torch.Generator], Tensor]
) -> Tensor:
    if isinstance(generator, torch.Generator):
        return draw(torch.empty(like.shape, device=generator.device), generator).to(like)
    rows = [draw(torch.empty(like.shape[1:]), g) for g in generator.generators]
    return torch.stack(rows).to(like)
