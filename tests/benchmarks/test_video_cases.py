"""What the benchmarks of clips compute from what they measure."""

from __future__ import annotations

import math

import pytest

from benchmarks.cases import clip_cost
from benchmarks.cases.video_warm_start import steps_to
from benchmarks.registry import Options


@pytest.mark.parametrize(
    ("loss", "steps"), [(0.5, 10), (0.45, 15), (0.4, 20), (0.3, 30), (0.9, 10), (0.1, math.inf)]
)
def test_steps_to_a_loss_lie_between_the_points_of_a_curve(loss: float, steps: float) -> None:
    assert steps_to(loss, [(10, 0.5), (20, 0.4), (30, 0.3), (40, 0.35)]) == pytest.approx(steps)


def test_cost_is_told_per_token_and_as_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(
        points: list[tuple[int, int]], options: Options, device: str
    ) -> dict[tuple[str, int, int], float]:
        return {
            (kind, frames, size): frames * size**2 / 1e3
            for kind in clip_cost.KINDS
            for frames, size in points
        }

    monkeypatch.setattr(clip_cost, "timed", timed)
    found = {row["name"]: row for row in clip_cost.rows(Options(), "cpu", 16, lambda *point: 2.0)}
    row = found["matten V1 64x16x16"]
    assert (row["tokens"], row["us_per_token"]) == (64 * 64, pytest.approx(4.0))
    assert row["kb_per_token"] == 1024 * 2.0 / 4096
    assert found["matten V1 16x16x16"]["kb_per_token"] is None
    assert found["matten V1, four times the frames"] == {
        "name": "matten V1, four times the frames", "8->32": 4.0, "16->64": 4.0, "target": 4.3,
    }  # fmt: skip
