"""A copy of a base in diffusers' layout with some of its weights changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from genzoo.core import files
from genzoo.core.errors import UsageError
from genzoo.core.tensor_files import open_tensors
from genzoo.pretrained.hub import located

# what earlier edits and merges left in a folder, samples of it, and how the base's own weights were made
LEFT_OUT = ("edits.json", "edits.txt", "report.json", "report.txt", "samples", "recipe.yaml", "card.json")


def base_folder(base: str | Path) -> Path:
    """Where a base lies. Raises UsageError for one on a hub."""
    folder = Path(located(base)).expanduser()
    if not folder.is_dir():
        raise UsageError(
            f"{base} lies on a hub, and a whole base is written as a copy of a folder",
            fix=f"hf download {base} --local-dir FOLDER, then --base FOLDER; or an output that ends in "
            f".safetensors",
        )
    return folder


def copy_base(
    source: Path, target: Path, weight_files: Sequence[Path], change: Callable[[Path, str, Tensor], Tensor]
) -> None:
    """Copy a folder, file by file; each tensor of `weight_files` becomes `change(file, name, tensor)`."""
    left_out = {*(source / name for name in LEFT_OUT), *weight_files}
    shutil.copytree(
        source,
        target,
        dirs_exist_ok=True,
        ignore=lambda folder, names: {name for name in names if Path(folder, name) in left_out},
    )
    for path in weight_files:
        with open_tensors(path, "the base's weights") as file:
            names = list(file.keys())
            tensors = {name: change(path, name, file.get_tensor(name)) for name in names}
            metadata = file.metadata()
        files.put_file(target / path.relative_to(source), files.as_safetensors(tensors, metadata), sync=False)
