"""One class of pipeline for each name that a family's card gives to its models."""

from __future__ import annotations

from functools import cache

from genzoo.api.pipelines.pipeline import GenzooPipeline
from genzoo.core.errors import UsageError, did_you_mean
from genzoo.core.registry import MODELS


@cache
def pipeline_class(name: str) -> type[GenzooPipeline]:
    """The class of that name, such as "DiMPipeline". Raises UsageError for a name that no model has."""
    if name == GenzooPipeline.__name__:
        return GenzooPipeline
    models = tuple(one for one in MODELS if MODELS.entry(one).pipeline == name)
    if not models:
        known = sorted({MODELS.entry(one).pipeline for one in MODELS} - {""})
        raise UsageError(f"there is no pipeline {name!r}", fix=did_you_mean(name, known))
    doc = f"Samples {' and '.join(models)}; as GenzooPipeline otherwise."
    return type(name, (GenzooPipeline,), {"models": models, "__doc__": doc, "__module__": __name__})
