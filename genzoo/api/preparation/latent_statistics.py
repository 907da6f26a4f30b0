"""Mean and deviation of each channel of one's own latents, for `codec.statistics`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from genzoo.api.recipes.build import build_codec, build_dataset
from genzoo.api.recipes.plan import plan_of
from genzoo.core.contracts import able
from genzoo.core.contracts.datasets import NamesTransform, pictures_of
from genzoo.core.contracts.parts import NormalisesLatents
from genzoo.core.errors import DataError, UsageError
from genzoo.core.processes import chosen_device
from genzoo.core.seeds import SampleStreams, generator_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from genzoo.core.recipe import Recipe
    from genzoo.core.types import Dataset, LatentCodec

USUAL_NUM = 10_000
CHECKED_SHARE = 0.2  # of the pictures measured, that many others are looked at afterwards
BOUND = 0.05  # for the normalised mean and deviation of pictures that were not measured


@dataclass(frozen=True)
class LatentStatistics:
    """mean, std: of drawn latents, by channel, not normalised.   codec: its fingerprint.

    pictures: measured.   checked: others, whose normalised channels have means at most `worst_mean` from 0
    and deviations at most `worst_std` from 1.   transform: what was done to the pictures first.
    """

    codec: str
    mean: list[float]
    std: list[float]
    pictures: int
    transform: str
    seed: int
    checked: int
    worst_mean: float
    worst_std: float

    @property
    def holds(self) -> bool:
        """Whether other pictures come out normalised."""
        return max(self.worst_mean, self.worst_std) < BOUND

    def content(self) -> dict[str, Any]:
        """What a statistics file holds."""
        return asdict(self) | {"of": "drawn latents, over batch and space"}


def measure_latents(
    recipe: Recipe,
    *,
    num: int = USUAL_NUM,
    seed: int = 0,
    batch_size: int = 32,
    device: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LatentStatistics:
    """Draw latents of `num` pictures of a recipe's data, in an order of chance, and measure each channel.

    Raises UsageError for a recipe without a codec whose latents are normalised, DataError for too few
    pictures or for a channel that does not vary.
    """
    from genzoo.pretrained.normalisation import per_channel
    from genzoo.pretrained.running_moments import RunningMoments

    plan = plan_of(recipe)
    codec = build_codec(plan)
    if codec is None or able(codec, NormalisesLatents) is None:
        raise UsageError(
            f"{recipe.source} has no codec whose latents are normalised by channel",
            fix="use codec.name=autoencoder_kl or autoencoder",
        )
    codec.to(chosen_device(device))
    pictures = pictures_of(build_dataset(plan))
    measured, others = _chosen(len(pictures), num, seed)
    total, done = len(measured) + len(others), 0
    found = [RunningMoments(), RunningMoments()]
    for moments, indices in zip(found, (measured, others), strict=True):
        for start in range(0, len(indices), batch_size):
            part = indices[start : start + batch_size]
            moments.add(_latents(pictures, codec, part, seed))
            done += len(part)
            if progress is not None:
                progress(done, total)
    own, other = found
    normalised = per_channel(torch.as_tensor(own.mean), own.std)
    mean = (torch.as_tensor(other.mean) - normalised.offset) * normalised.scale
    named = able(pictures, NamesTransform)
    return LatentStatistics(
        codec=codec.fingerprint,
        mean=torch.as_tensor(own.mean).tolist(),
        std=own.std.tolist(),
        pictures=len(measured),
        transform="pixels" if named is None else named.transform,
        seed=seed,
        checked=len(others),
        worst_mean=float(mean.abs().max()),
        worst_std=float((other.std * normalised.scale - 1).abs().max()),
    )


def _chosen(count: int, num: int, seed: int) -> tuple[list[int], list[int]]:
    """Which pictures to measure, and which others to look at."""
    if count < 2:
        raise DataError(f"{count} pictures are too few to measure latents", fix="give at least two")
    order = torch.randperm(count, generator=generator_for(seed, "latent statistics")).tolist()
    checked = max(1, int(min(num, count) * CHECKED_SHARE))
    measured = max(1, min(num, count - checked))
    return order[:measured], order[measured : measured + checked]


def _latents(pictures: Dataset, codec: LatentCodec, indices: Sequence[int], seed: int) -> Tensor:
    """Drawn latents as the autoencoder gives them, float64."""
    normalising = able(codec, NormalisesLatents)
    assert normalising is not None
    pixels = torch.stack([pictures.fetch(index)["pixels"] for index in indices])
    streams = SampleStreams.from_seeds(seed, "latents", positions=indices)
    latents: Tensor = normalising.normalisation.undo(codec.encode(pixels, streams).double())
    return latents
