"""Measures of control consistency against torchmetrics, OpenCV and closed forms, as recorded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden.manifest import golden_cases, golden_tensors
from torch import Tensor

from genzoo.core.errors import ShapeError
from genzoo.data.controls import canny_edges
from genzoo.evaluation.consistency import depth_errors, exact_f1, ms_ssim, normal_errors, ssim
from genzoo.evaluation.edges import edge_agreement

SET = "control"
VALUES: dict[str, Any] = {case["name"]: case["values"] for case in golden_cases(SET, "measures")}


def tensors(kind: str) -> dict[str, Tensor]:
    return golden_tensors(SET, "measures", f"measures/{kind}")


@pytest.mark.parametrize("thresholds", VALUES["measures/canny"])
def test_edges_agree_exactly_and_within_some_pixels(thresholds: str) -> None:
    expected, stored = VALUES["measures/canny"][thresholds], tensors("canny")
    low, high = map(int, thresholds.split("_"))
    found, control = (
        torch.stack([canny_edges(picture.movedim(-1, 0), low=low, high=high) for picture in stored[key]])
        for key in ("samples_u8", "originals_u8")
    )
    assert torch.equal(found, stored[f"found_{thresholds}"] > 0)
    assert torch.equal(control, stored[f"control_{thresholds}"] > 0)
    assert exact_f1(found, control).tolist() == pytest.approx(expected["per_picture"], abs=1e-9)
    assert float(exact_f1(found, control).mean()) == pytest.approx(expected["mean_of_pictures"], abs=1e-9)
    for tolerance in (1, 2):
        near = edge_agreement(found, control, tolerance=tolerance)
        assert near._asdict() == pytest.approx(expected[f"tolerance{tolerance}"], abs=1e-9)


def test_similarity_of_soft_edges() -> None:
    expected, stored = VALUES["measures/hed"], tensors("hed")
    found, control = (stored[f"{key}_u8"][None].double() / 255 for key in ("found", "control"))
    assert float(ssim(found, control)) == pytest.approx(expected["ssim"], abs=1e-5)
    assert float(ms_ssim(found, control)) == pytest.approx(expected["ms_ssim"], abs=1e-5)
    corner = found[:, :64, :64], control[:, :64, :64]
    assert float(ssim(*corner)) == pytest.approx(expected["ssim_first_64x64"], abs=1e-5)
    with pytest.raises(ShapeError, match="exceed 160"):
        ms_ssim(*corner)


def test_depth_is_aligned_without_turning_it_round() -> None:
    stored, expected = tensors("depth"), VALUES["measures/depth"]
    errors = depth_errors(stored["found_u8"], stored["control_u8"])
    assert errors["rmse"].tolist() == pytest.approx([case["rmse"] for case in expected], abs=1e-6)
    aligned = [case["rmse_aligned_scale_not_negative"] for case in expected]
    assert errors["rmse_aligned"].tolist() == pytest.approx(aligned, abs=1e-6)
    flat = depth_errors(torch.full((1, 2, 2), 7.0), torch.tensor([[[0.0, 2.0], [2.0, 0.0]]]))
    assert float(flat["rmse_aligned"]) == pytest.approx(1.0)


def test_angles_between_normals() -> None:
    stored, expected = tensors("normal"), VALUES["measures/normal"]
    found, control = (
        (stored[f"{key}_u8"].double() / 127.5 - 1).movedim(-1, 0)[None] for key in ("found", "control")
    )
    assert normal_errors(found, control) == pytest.approx(expected, abs=1e-6)


def test_sketches() -> None:
    stored, expected = tensors("sketch"), VALUES["measures/sketch"]
    found, control = stored["found_u8"], stored["control_u8"]
    each = exact_f1(found > 127, control > 127)
    assert each.tolist() == pytest.approx(expected["f1_per_picture"], abs=1e-5)
    similar = ssim(found.double() / 255, control.double() / 255)
    assert similar.tolist() == pytest.approx(expected["ssim"], abs=1e-5)


def test_two_empty_maps_agree() -> None:
    empty, one = torch.zeros(1, 3, 3, dtype=torch.bool), torch.ones(1, 3, 3, dtype=torch.bool)
    assert exact_f1(empty, empty).item() == 1.0
    assert exact_f1(empty, one).item() == 0.0
