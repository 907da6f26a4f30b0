"""The benchmarks of VAR and CAR on tiny models: every part is timed, and rows say what was compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from families.car.tiny import pictures, tiny_car, tiny_task, tiny_var

from benchmarks.cases import next_scale, next_scale_training
from benchmarks.registry import Options


def test_rows_compare_with_the_released_time_carried_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(next_scale, "gemm_rate", lambda precision, clock: 74.0)
    monkeypatch.setattr(next_scale, "LABEL", 3)
    task = tiny_task(tmp_path, tiny_car(), sampler={"guidance_scale": 2.0, "top_k": 5})
    options = Options(repeats=2, settings={"clock": "cpu"})
    var = next_scale.rounds(task, "VAR fp32", "fp32", lambda: None, options)
    assert var["ms"][next_scale.PEER]["median"] == pytest.approx(5500 * 370 / 74)
    assert var["control_ms"] == 0
    assert min(var["blocks_ms"], var["decode_ms"], var["sampling_ms"]) > 0
    assert var["target"] == 1.6
    car = next_scale.rounds(task, "CAR bf16 first", "bf16", lambda: pictures(1), options)
    assert list(car["ms"]) == ["genzoo"]
    assert car["control_ms"] > 0


@pytest.mark.parametrize("name", ["var", "car"])
def test_a_training_step_is_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"codebook_size": 4096, "num_classes": 1000}
    model = tiny_var(**options) if name == "var" else tiny_car(**options)
    monkeypatch.setattr(next_scale_training, "create_model", lambda name: model)
    found = next_scale_training.measure(name, repeats=1, precision="fp32")
    assert found["seconds"] > 0
    assert found["peak_mb"] > 100
    assert found["trained"] == sum(p.numel() for p in model.parameters() if p.requires_grad)
