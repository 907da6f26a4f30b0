"""An edited base on the disk: a folder like the base's, or the edited keys and values alone."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from genzoo.core import files
from genzoo.core.errors import UsageError
from genzoo.core.tensor_files import open_tensors
from genzoo.families.custom_diffusion.edit.report import EditsReport
from genzoo.families.custom_diffusion.files.base_weights import BaseWeights
from genzoo.families.custom_diffusion.files.concept import ConceptDelta, concept_bytes
from genzoo.families.custom_diffusion.files.write_layouts import write_new_file
from genzoo.pretrained.hub import located


def check_output(output: str | Path | None, base: str | Path) -> None:
    """Before any work: whether the output can be written at all. Raises UsageError."""
    if output is None:
        return
    if Path(output).exists():
        raise UsageError(f"{output} exists already", fix="name another output, or remove it")
    if Path(output).suffix != ".safetensors" and not Path(located(base)).expanduser().is_dir():
        raise UsageError(
            f"{base} lies on a hub, and a whole base is written as a copy of a folder",
            fix=f"hf download {base} --local-dir FOLDER, then --base FOLDER; or an output that ends in "
            f".safetensors",
        )


def write_edited(
    delta: ConceptDelta, report: EditsReport, base: str | Path, output: str | Path | None
) -> Path | None:
    """The new file or folder, whole or not at all; None without an output."""
    if output is None:
        return None
    told = dataclasses.replace(delta, notes={**delta.notes, "report": report.kept()})
    if Path(output).suffix == ".safetensors":
        return write_new_file(Path(output), concept_bytes(told))
    source = Path(located(base)).expanduser()

    weight_files = BaseWeights(source).files

    def fill(target: Path) -> None:
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=_all_but(weight_files, source))
        for path in weight_files:
            _replace(path, target / path.relative_to(source), delta)
        files.put_file(target / "edits.json", json.dumps(report.kept(), indent=2) + "\n", sync=False)
        files.put_file(target / "edits.txt", "\n".join(report.lines()) + "\n", sync=False)

    return files.write_folder(output, fill)


def _all_but(weight_files: Sequence[Path], source: Path) -> Callable[[str, list[str]], set[str]]:
    """What a copy leaves out: weights that are written anew, reports of other edits, samples."""
    ours = {source / "edits.json", source / "edits.txt", source / "samples", *weight_files}
    return lambda folder, names: {name for name in names if Path(folder, name) in ours}


def _replace(source: Path, target: Path, delta: ConceptDelta) -> None:
    """A file of weights with those of the delta in their place."""
    with open_tensors(source, "the base's weights") as file:
        tensors = {name: file.get_tensor(name) for name in list(file.keys())}
        metadata = file.metadata()
    changed = {name: delta.weights[name] for name in tensors if name in delta.weights}
    files.put_file(target, files.as_safetensors({**tensors, **changed}, metadata), sync=False)
