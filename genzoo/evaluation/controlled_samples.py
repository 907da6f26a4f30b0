"""What metrics of controlled runs share: pictures, their controls, and samples with these and without."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from genzoo.core.contracts import able
from genzoo.core.contracts.tasks import ExtractsControls
from genzoo.core.errors import DataError, UsageError
from genzoo.core.registry import DATASETS
from genzoo.pictures.pixels import from_uint8, to_uint8

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.core.types import Dataset, MeasuredRun

CLASSES = ("unseen", "all")
LISTS = ("include_classes", "exclude_classes")


@dataclass(frozen=True)
class ControlledSamples:
    """Pictures (n, 3, h, w) in [-1, 1], labels (n,), the pictures' controls, and samples.

    samples, without: under the controls, and with the same labels and seeds without any.   reconstructed:
    what the codec keeps of the pictures.   classes: the names of the labels.   names: of each picture's.
    """

    extract: Callable[[Tensor], Tensor]
    pictures: Tensor
    labels: Tensor
    controls: Tensor
    samples: Any
    without: Any
    reconstructed: Tensor
    classes: str
    names: Sequence[str]

    def seen(self) -> dict[str, Tensor]:
        """What is judged by the controls made of it again, as 8-bit files would give it back."""
        kinds = {"": self.samples.pixels, "_uncontrolled": self.without.pixels}
        return {
            name: as_seen(part) for name, part in (kinds | {"_reconstructed": self.reconstructed}).items()
        }


def controlled_samples(
    run: MeasuredRun, *, num: int, classes: str, options: Mapping[str, Any]
) -> ControlledSamples:
    """Sample under the controls of `num` pictures, and without; options are those of sampling.

    classes: "unseen" takes pictures of the classes that the recipe's class lists keep from training, "all"
    those of training. The run's own extractor makes the controls.
    """
    task: Any = run.task()
    controlled = able(task, ExtractsControls)
    extract = None if controlled is None else controlled.extract
    if extract is None:
        raise UsageError("this metric needs a task with a control extractor", fix="set task.control")
    dataset = _pictures(run, classes)
    pixels, labels = _spread(dataset, num)
    controls, names = extract(pixels), dataset.class_names or []
    options = {**options, "class_labels": labels.tolist()}
    return ControlledSamples(
        extract=extract,
        pictures=pixels,
        labels=labels,
        controls=controls,
        samples=run.sample(control=controls, **options),
        without=run.sample(**options),
        reconstructed=_reconstructed(task, pixels),
        classes=" + ".join(names[label] for label in labels.unique().tolist()) if names else classes,
        names=[names[label] if names else "" for label in labels.tolist()],
    )


def as_seen(pixels: Tensor) -> Tensor:
    """Pixels in [-1, 1] as an 8-bit file would give them back."""
    return from_uint8(to_uint8(pixels))


def _pictures(run: MeasuredRun, classes: str) -> Dataset:
    """The run's pictures of the chosen classes, with the labels of training."""
    if classes not in CLASSES:
        raise UsageError(f"classes is {classes!r}", fix=f"use one of {', '.join(CLASSES)}")
    dataset: Dataset = run.dataset()
    if classes == "all":
        return dataset
    data = run.plan.data
    if not any(data.arguments.get(name) for name in LISTS):
        raise DataError(
            "training saw every class, so none is unseen",
            fix="set data.exclude_classes, or measure with classes: all",
        )
    names = dataset.class_names or []
    seen = {names[int(label)] for label in dataset.labels}  # type: ignore[attr-defined]
    unseen = [name for name in names if name not in seen]
    arguments = data.without(*LISTS, "controls").arguments
    other: Dataset = DATASETS.get(data.name)(**arguments, include_classes=unseen)
    return other


def _spread(dataset: Dataset, num: int) -> tuple[Tensor, Tensor]:
    """`num` pictures at even distances through the data set, with their labels."""
    if num < 1 or num > len(dataset):
        raise UsageError(f"num is {num}, and there are {len(dataset)} pictures to take controls from")
    items = [dataset.fetch(index * len(dataset) // num) for index in range(num)]
    return (
        torch.stack([item["pixels"] for item in items]),
        torch.tensor([int(item["class_labels"]) for item in items]),
    )


def _reconstructed(task: Any, pixels: Tensor) -> Tensor:
    """What is left of pictures when they go through tokens and back."""
    codec = task.codec
    sums: list[Tensor] = codec.sums(codec.moments(pixels))
    decoded: Tensor = codec.decode(sums[-1])
    return decoded
