"""Do samples follow their controls? The control made of them again, compared as its kind asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from genzoo.core.contracts import able
from genzoo.core.contracts.parts import HasFingerprint
from genzoo.evaluation.consistency import (
    SMALLEST_SIDE,
    depth_errors,
    exact_f1,
    ms_ssim,
    normal_errors,
    ssim,
)
from genzoo.evaluation.controlled_samples import controlled_samples
from genzoo.evaluation.edges import edge_agreement

if TYPE_CHECKING:
    from torch import Tensor

    from genzoo.core.types import MeasuredRun


def control_consistency(
    run: MeasuredRun,
    *,
    num: int = 64,
    classes: str = "unseen",
    seed: int = 0,
    guidance_scale: float | None = None,
) -> dict[str, Any]:
    """Sample under the controls of `num` pictures and measure how well the samples keep them.

    Canny: F1 of exact pixels, a mean over pictures, and within 1 and 2 pixels, counted over all. HED: SSIM,
    MS-SSIM where sides exceed 160, and mean squared error. Depth: root mean square error in levels of 255,
    as it is and after shift and scale. Normals: angles. Sketch: F1 exact and within 2, SSIM. Each also
    *_uncontrolled (the same labels and seeds without control) and *_reconstructed (the originals through the
    codec, a bound). classes: as in control_edges.
    """
    options: dict[str, Any] = {"seed": seed}
    options |= {} if guidance_scale is None else {"guidance_scale": guidance_scale}
    made = controlled_samples(run, num=num, classes=classes, options=options)
    known = able(made.extract, HasFingerprint)
    kind = "" if known is None else known.fingerprint.rpartition("-")[0]
    measure = MEASURES.get(kind, soft)
    result: dict[str, Any] = {
        "control": kind or "unknown",
        "num": len(made.pictures),
        "classes": made.classes,
    }
    for suffix, part in made.seen().items():
        values = measure(made.extract(part), made.controls)
        result |= {f"{name}{suffix}": value for name, value in values.items()}
    return result


def edges(found: Tensor, control: Tensor) -> dict[str, float]:
    """Both (b, 3, h, w) in [-1, 1]; what is brighter than mid-grey is an edge."""
    one, other = found[:, 0] > 0, control[:, 0] > 0
    near = {f"f1_within_{reach}": edge_agreement(one, other, tolerance=reach).f1 for reach in (1, 2)}
    return {"f1_exact": float(exact_f1(one, other).mean()), **near}


def soft(found: Tensor, control: Tensor) -> dict[str, float]:
    """Both (b, 3, h, w) in [-1, 1]."""
    one, other = ((x[:, 0].double() + 1) / 2 for x in (found, control))
    values = {"ssim": float(ssim(one, other).mean()), "mse": float((one - other).square().mean())}
    if min(one.shape[-2:]) > SMALLEST_SIDE:
        values["ms_ssim"] = float(ms_ssim(one, other).mean())
    return values


def depth(found: Tensor, control: Tensor) -> dict[str, float]:
    """Both (b, 3, h, w) in [-1, 1]; errors in levels of 255."""
    errors = depth_errors(*((x[:, 0] + 1) * 127.5 for x in (found, control)))
    return {name: float(value.mean()) for name, value in errors.items()}


def sketch(found: Tensor, control: Tensor) -> dict[str, float]:
    """Both (b, 3, h, w) in [-1, 1]."""
    values = edges(found, control)
    return {name: values[name] for name in ("f1_exact", "f1_within_2")} | {
        "ssim": soft(found, control)["ssim"]
    }


MEASURES: dict[str, Callable[[Tensor, Tensor], dict[str, float]]] = {
    "canny": edges,
    "hed": soft,
    "hed_controlnet": soft,
    "depth": depth,
    "normal": normal_errors,
    "sketch": sketch,
}
