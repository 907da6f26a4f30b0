"""Do samples follow their controls? Their edges, beside those of the same model without control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from genzoo.core.registry import DATASETS
from genzoo.evaluation.controlled_samples import LISTS, ControlledSamples, controlled_samples
from genzoo.evaluation.edges import EdgeAgreement, edge_agreement
from genzoo.evaluation.nearest_neighbour import judge, real_images
from genzoo.pictures.grid import Grid, make_grid
from genzoo.pictures.pixels import to_uint8

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.core.types import MeasuredRun


def control_edges(
    run: MeasuredRun,
    *,
    num: int = 64,
    tolerance: int = 1,
    classes: str = "unseen",
    seed: int = 0,
    shown: int = 12,
    strengths: Sequence[float] = (),
    control_runs: Sequence[str] = (),
    guidance_scale: float | None = None,
    k: int = 0,
) -> dict[str, Any]:
    """Sample under the controls of `num` pictures, and without any, with the same labels and seeds.

    classes: "unseen" takes pictures of the classes that the recipe's class lists keep from training, "all"
    those of training. The control and the edges of a sample are made by the task's own extractor, and an
    edge agrees when the other map has one within `tolerance` pixels; counts are over all pictures. Returns
    F1, precision and recall with the control, F1 without, their ratio, and the F1 that the codec's
    reconstructions reach, which bounds the first. samples/control_edges.png in the run's folder has a row
    each for controls, samples, samples at further `strengths` of the control, samples without it, originals;
    with `control_runs`, further runs on the same base, one before the last for all their controls together.
    With `k` the class is judged too: the share of samples, of those without control and of originals, that
    their k nearest pictures vote into the class asked for; the originals themselves do not vote.
    """
    options: dict[str, Any] = {"seed": seed}
    options |= {} if guidance_scale is None else {"guidance_scale": guidance_scale}
    made = controlled_samples(run, num=num, classes=classes, options=options)
    found = {
        name: agreement(made.extract(part), made.controls, tolerance=tolerance)
        for name, part in made.seen().items()
    }
    path = run.folder / "samples" / "control_edges.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = _rows(run, made, shown, strengths, options)
    if control_runs:
        rows.insert(-1, ("together", _together(run, made, shown, control_runs, options)))
    _sheet(rows, made.names[:shown]).save(path)
    return {
        "f1": found[""].f1,
        "f1_uncontrolled": found["_uncontrolled"].f1,
        "ratio": found[""].f1 / max(found["_uncontrolled"].f1, 1e-6),
        "precision": found[""].precision,
        "recall": found[""].recall,
        "f1_reconstructed": found["_reconstructed"].f1,
        "num": len(made.pictures),
        "tolerance": tolerance,
        "classes": made.classes,
        "picture": str(path),
        **(_right_classes(run, made, k) if k else {}),
    }


def _right_classes(run: MeasuredRun, made: ControlledSamples, k: int) -> dict[str, float]:
    """The share of samples in the class asked for, by pictures of all classes but the originals."""
    data = run.plan.data.without(*LISTS, "controls")
    real, labels = real_images(DATASETS.get(data.name)(**data.arguments))
    own = made.pictures.flatten(1)
    apart = torch.cdist(real, own, compute_mode="donot_use_mm_for_euclid_dist").amin(1) > 0
    parts = {"": made.samples.pixels, "_uncontrolled": made.without.pixels, "_originals": own}
    votes = {
        name: judge(part.flatten(1).float(), made.labels, real[apart], labels[apart], k=k)
        for name, part in parts.items()
    }
    return {f"accuracy{name}": vote["accuracy"] for name, vote in votes.items()}


def agreement(found: Tensor, control: Tensor, *, tolerance: int) -> EdgeAgreement:
    """Agreement of edge pictures (b, 3, h, w) in [-1, 1]; what is brighter than mid-grey is an edge."""
    return edge_agreement(found[:, 0] > 0, control[:, 0] > 0, tolerance=tolerance)


def _together(
    run: MeasuredRun, made: ControlledSamples, shown: int, others: Sequence[str], options: dict[str, Any]
) -> Tensor:
    """Samples under the run's own control and those of other runs, of the same pictures, equally strong."""
    share = 1 / (1 + len(others))
    samples = run.sample(
        **options,
        class_labels=made.labels[:shown].tolist(),
        control_from=made.pictures[:shown],
        control_runs=list(others),
        control_scale=[share] * (1 + len(others)),
    )
    together: Tensor = samples.pixels
    return together


def _rows(
    run: MeasuredRun, made: ControlledSamples, shown: int, strengths: Sequence[float], options: dict[str, Any]
) -> list[tuple[str, Tensor]]:
    """The picture's rows by name, full strength and none among the further strengths."""
    shared = options | {"class_labels": made.labels[:shown].tolist(), "control": made.controls[:shown]}
    by_strength = {1.0: made.samples.pixels[:shown], 0.0: made.without.pixels[:shown]}
    by_strength |= {float(s): run.sample(**shared, control_scale=float(s)).pixels for s in strengths}
    ordered = [
        (f"strength {strength:g}", by_strength[strength]) for strength in sorted(by_strength, reverse=True)
    ]
    return [("control", made.controls[:shown]), *ordered, ("original", made.pictures[:shown])]


def _sheet(rows: Sequence[tuple[str, Tensor]], classes: Sequence[str]) -> Grid:
    """The rows below each other; a picture's caption is its class in the first, its row's name in others."""
    captions = [*classes, *(name for name, row in rows[1:] for _ in row)]
    return make_grid(to_uint8(torch.cat([row for _, row in rows])), columns=len(classes), captions=captions)
