"""Pipelines of diffusers for trained models: `DiMPipeline.from_pretrained(FOLDER)` of an exported run."""

from __future__ import annotations

from typing import Any

from genzoo.api.pipelines.classes import pipeline_class
from genzoo.api.pipelines.pipeline import ClipOutput, GenzooPipeline
from genzoo.api.pipelines.write import export_pipeline

__all__ = [
    "CARPipeline",
    "ClipOutput",
    "DiMPipeline",
    "DiMVideoPipeline",
    "DiTPipeline",
    "GenzooPipeline",
    "LattePipeline",
    "MattenPipeline",
    "VARPipeline",
    "export_pipeline",
]

DiMPipeline = pipeline_class("DiMPipeline")
DiTPipeline = pipeline_class("DiTPipeline")
DiMVideoPipeline = pipeline_class("DiMVideoPipeline")
MattenPipeline = pipeline_class("MattenPipeline")
LattePipeline = pipeline_class("LattePipeline")
VARPipeline = pipeline_class("VARPipeline")
CARPipeline = pipeline_class("CARPipeline")


def __getattr__(name: str) -> Any:
    """Classes that families outside the package name."""
    if not name.endswith("Pipeline"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return pipeline_class(name)
