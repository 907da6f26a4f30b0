"""Metrics and reports, and the card that names them; importing it imports no torch."""

from __future__ import annotations

from genzoo.core.registry import METRICS

METRICS.lazy(
    "nearest_neighbour",
    "genzoo.evaluation.nearest_neighbour:nearest_neighbour",
    help="class accuracy by nearest real images, and spread within a class",
)
METRICS.lazy(
    "sample_grid", "genzoo.evaluation.sample_grid:sample_grid", help="a class-conditional picture grid"
)
