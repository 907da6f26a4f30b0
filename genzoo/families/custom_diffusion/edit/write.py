"""An edited base on the disk: a folder like the base's, or the edited keys and values alone."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from genzoo.core import files
from genzoo.core.errors import UsageError
from genzoo.families.custom_diffusion.edit.report import EditsReport
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.families.custom_diffusion.files.concept import ConceptDelta, concept_bytes
from genzoo.families.custom_diffusion.files.copied_base import base_folder, copy_base
from genzoo.families.custom_diffusion.files.write_layouts import write_new_file


def check_output(output: str | Path | None, base: str | Path) -> None:
    """Before any work: whether the output can be written at all. Raises UsageError."""
    if output is None:
        return
    if Path(output).exists():
        raise UsageError(f"{output} exists already", fix="name another output, or remove it")
    if Path(output).suffix != ".safetensors":
        base_folder(base)


def write_edited(
    delta: ConceptDelta, report: EditsReport, base: str | Path, output: str | Path | None
) -> Path | None:
    """The new file or folder, whole or not at all; None without an output."""
    if output is None:
        return None
    told = dataclasses.replace(delta, notes={**delta.notes, "report": report.kept()})
    if Path(output).suffix == ".safetensors":
        return write_new_file(Path(output), concept_bytes(told))
    source = base_folder(base)

    def fill(target: Path) -> None:
        copy_base(source, target, BaseWeights(source).files, lambda _, name, W: delta.weights.get(name, W))
        files.put_file(target / "edits.json", json.dumps(report.kept(), indent=2) + "\n", sync=False)
        files.put_file(target / "edits.txt", "\n".join(report.lines()) + "\n", sync=False)

    return files.write_folder(output, fill)
