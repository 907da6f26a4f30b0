"""Metrics and reports, and the card that names them; importing it imports no torch."""

from __future__ import annotations

from genzoo.core.registry import COMMANDS, METRICS

METRICS.lazy(
    "nearest_neighbour",
    "genzoo.evaluation.nearest_neighbour:nearest_neighbour",
    help="class accuracy by nearest real images, and spread within a class",
)
METRICS.lazy(
    "sample_grid", "genzoo.evaluation.sample_grid:sample_grid", help="a class-conditional picture grid"
)
METRICS.lazy(
    "moving_object",
    "genzoo.evaluation.moving_object:moving_object",
    help="clips of one object: is it the class asked for, does it move, does it stay itself",
)
METRICS.lazy(
    "memorisation",
    "genzoo.evaluation.memorisation:report_memorisation",
    help="how near samples come to the training images",
)
METRICS.lazy(
    "reconstruction",
    "genzoo.evaluation.reconstruction:reconstruction",
    help="an autoencoder's PSNR, and the deviation of its latents",
)
METRICS.lazy(
    "control_edges",
    "genzoo.evaluation.control_edges:control_edges",
    help="how well samples follow edges of unseen classes, beside the model without control",
)
COMMANDS.lazy(
    "evaluate",
    "genzoo.api.commands.evaluate:evaluate_command",
    help="Judge samples by a named protocol; the result states everything its numbers depend on.",
)
