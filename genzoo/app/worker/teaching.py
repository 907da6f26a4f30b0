"""Photographs looked at, concepts merged, and what was taught written for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genzoo.api.run import load_run
from genzoo.api.runs.conversion import export_for
from genzoo.core.files import write_file
from genzoo.families.custom_diffusion import merge_concepts
from genzoo.families.custom_diffusion.merge.report import label_of
from genzoo.families.custom_diffusion.teach import plan_lesson
from genzoo.pictures.pixels import png


def photographs(
    folder: str, base: str, name: str, target: str, class_word: str | None = None, word: str = "<new1>",
    progress: Any = None,
) -> dict[str, Any]:  # fmt: skip
    """What training would make of them: {"count", "notes", "prompt", "size", "sheet": path of a picture}."""
    lesson = plan_lesson(name, folder, base, class_word=class_word, word=word)
    found = lesson.photographs
    sheet = write_file(target, png(found.sheet.image))
    return {
        "count": len(found.paths),
        "notes": found.notes,
        "prompt": lesson.prompt,
        "size": lesson.image_size,
        "sheet": str(sheet),
    }


def merge(
    concepts: list[str], strengths: list[float], base: str, output: str, progress: Any = None
) -> dict[str, Any]:
    """Merge concepts into a new file: {"labels", "interference", "verdicts", "lines"}."""
    report = merge_concepts(concepts, base=base, strengths=strengths, output=output, rename=True).report
    return {
        "labels": [label_of(concept) for concept in report.concepts],
        "interference": report.interference,
        "verdicts": [concept.verdict for concept in report.concepts],
        "renamed": report.renamed,
    }


def export(source: str, client: str, output: str, progress: Any = None) -> dict[str, Any]:
    """What was taught as a program's files: {"files", "lines"}, the lines say where they go."""
    folder, lines = export_for(load_run(source).data, Path(output), client=client)
    return {"files": [str(path) for path in sorted(folder.rglob("*")) if path.is_file()], "lines": lines}
