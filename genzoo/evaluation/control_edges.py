"""Do samples follow their controls? Their edges, beside those of the same model without control."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from genzoo.core.contracts import ExtractsControls, able
from genzoo.core.errors import DataError, UsageError
from genzoo.core.registry import DATASETS
from genzoo.evaluation.edges import EdgeAgreement, edge_agreement
from genzoo.pictures.pixels import from_uint8, to_uint8

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.core.types import Dataset, MeasuredRun

CLASSES = ("unseen", "all")
LISTS = ("include_classes", "exclude_classes")


def control_edges(
    run: MeasuredRun,
    *,
    num: int = 64,
    tolerance: int = 1,
    classes: str = "unseen",
    seed: int = 0,
    shown: int = 12,
    guidance_scale: float | None = None,
) -> dict[str, Any]:
    """Sample under the controls of `num` pictures, and without any, with the same labels and seeds.

    classes: "unseen" takes pictures of the classes that the recipe's class lists keep from training, "all"
    those of training. The control and the edges of a sample are made by the task's own extractor, and an
    edge agrees when the other map has one within `tolerance` pixels; counts are over all pictures. Returns
    F1, precision and recall with the control, F1 without, their ratio, and the F1 that the codec's
    reconstructions reach, which bounds the first. samples/control_edges.png in the run's folder has four
    rows: control, sample, sample without control, original.
    """
    task: Any = run.task()
    controlled = able(task, ExtractsControls)
    extract = None if controlled is None else controlled.extract
    if extract is None:
        raise UsageError("control_edges measures a task with a control extractor", fix="set task.control")
    dataset = _pictures(run, classes)
    pixels, labels = _spread(dataset, num)
    controls = extract(pixels)
    options: dict[str, Any] = {} if guidance_scale is None else {"guidance_scale": guidance_scale}
    options |= {"class_labels": labels.tolist(), "seed": seed}
    samples: Any = run.sample(control=controls, **options)
    without = run.sample(**options)
    found = [as_seen(part) for part in (samples.pixels, without.pixels, _reconstructed(task, pixels))]
    with_control, free, ceiling = (agreement(extract(part), controls, tolerance=tolerance) for part in found)
    path = run.folder / "samples" / "control_edges.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [part[:shown] for part in (controls, samples.pixels, without.pixels, pixels)]
    replace(samples, pixels=torch.cat(rows)).grid(columns=len(rows[0])).save(path)
    names = dataset.class_names or []
    return {
        "f1": with_control.f1,
        "f1_uncontrolled": free.f1,
        "ratio": with_control.f1 / max(free.f1, 1e-6),
        "precision": with_control.precision,
        "recall": with_control.recall,
        "f1_reconstructed": ceiling.f1,
        "num": len(pixels),
        "tolerance": tolerance,
        "classes": " + ".join(names[label] for label in labels.unique().tolist()) if names else classes,
        "picture": str(path),
    }


def agreement(found: Tensor, control: Tensor, *, tolerance: int) -> EdgeAgreement:
    """Agreement of edge pictures (b, 3, h, w) in [-1, 1]; what is brighter than mid-grey is an edge."""
    return edge_agreement(found[:, 0] > 0, control[:, 0] > 0, tolerance=tolerance)


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
