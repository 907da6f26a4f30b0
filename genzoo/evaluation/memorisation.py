"""Does a model copy its training images? Nearest neighbours, and how near they are by the data's measure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from genzoo.core.errors import DataError
from genzoo.data.picture_sets import DatasetPictures
from genzoo.evaluation.measures.copying import authentic, calibrated_distance, copying_test
from genzoo.evaluation.measures.nearest import nearest
from genzoo.evaluation.nearest_neighbour import other_images
from genzoo.pictures.grid import Grid, make_grid

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.core.types import MeasuredRun

COPY = 0.5  # nearer to an image than half that image's distance to its own nearest other: called a copy


def memorisation(generated: Tensor, reference: Tensor, *, copy_below: float = COPY) -> dict[str, float]:
    """How near samples come to the training images.   generated: (n, d), reference: (m, d), m > 1.

    nearest_ratio: mean distance to the nearest reference image over the reference's own (leave one out);
    about 1 for fresh draws, near 0 for copies. copies: share nearer to an image than `copy_below` times that
    image's distance to its own nearest other image.
    """
    to_real = nearest(generated, reference)
    own = nearest(reference, reference, k=2).distances[:, 1]
    scale = own.mean()
    if not scale > 0:
        raise DataError("all reference images have an exact twin, so there is no distance to measure with")
    distances, indices = to_real.distances[:, 0], to_real.indices[:, 0]
    copies = distances <= copy_below * own[indices]
    return {
        "nearest_ratio": float(distances.mean() / scale),
        "copies": float(copies.double().mean()),
        "exact_copies": float((distances == 0).double().mean()),
    }


def report_memorisation(
    run: MeasuredRun,
    *,
    num: int = 256,
    seed: int = 0,
    against: Mapping[str, Any] | None = None,
    pairs: int = 0,
) -> dict[str, float | str]:
    """For a recipe's report: sample `num` images and compare their pixels with the run's own data set.

    against: changes to the `data:` section, such as {"split": "test"}, that name images which training did
    not see: distances are then measured by theirs, see `measures.copying`.   pairs: draw so many
    samples, the nearest to a training image first, each above that image, as a picture.
    """
    real, samples = _rows(DatasetPictures(run.dataset())), run.sample(num=num, seed=seed).images
    shown = samples.movedim(1, -1)
    shown = shown.expand(*shown.shape[:-1], 3) if shown.shape[-1] == 1 else shown
    generated = shown.flatten(1).float()
    found: dict[str, float | str] = dict(memorisation(generated, real))
    if against is not None:
        found |= calibrated(generated, real, _rows(DatasetPictures(other_images(run, against))))
    if pairs:
        path = run.folder / "samples" / "nearest.png"
        found["nearest"] = str(_draw_pairs(shown, generated, real, pairs).save(path))
    return found


def calibrated(generated: Tensor, training: Tensor, held_out: Tensor) -> dict[str, float]:
    """What samples do beside what held-out images do: 1, 0.01, about 0 and 70 for fresh draws.

    calibrated_ratio and calibrated_below: see `Calibrated`.   copying_z: below -3 accuses.   authpct: a low
    value accuses.
    """
    summary, _ = calibrated_distance(generated, training, held_out)
    return {
        "calibrated_ratio": summary.ratio,
        "calibrated_below": summary.below,
        "copying_z": copying_test(generated, training, held_out),
        "authpct": 100 * float(authentic(generated, training).double().mean()),
    }


def _rows(images: DatasetPictures) -> Tensor:
    read = [torch.from_numpy(images.read(index)) for index in range(len(images))]
    return torch.stack(read).flatten(1).float()


def _draw_pairs(shown: Tensor, generated: Tensor, real: Tensor, pairs: int) -> Grid:
    """The samples nearest to training images above those images."""
    found = nearest(generated, real)
    order = found.distances[:, 0].argsort()[:pairs]
    twins = real[found.indices[order, 0]].view(len(order), *shown.shape[1:])
    both = torch.cat([shown[order].to(torch.uint8), twins.to(torch.uint8)]).movedim(-1, 1)
    return make_grid(both, columns=len(order))
