"""The end of a training: what was taught, as a file of its own beside the checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from genzoo.core.files import write_file
from genzoo.families.custom_diffusion.files.write_layouts import OWN_FOLDER_FILE

if TYPE_CHECKING:
    from genzoo.core.types import MeasuredRun


def concept_file(run: MeasuredRun, *, half: bool = False) -> dict[str, float]:
    """Write RUN/concept.safetensors, in place of an older one; its size is the result.

    half: store 16-bit numbers.
    """
    task: Any = run.task()
    path = run.folder / OWN_FOLDER_FILE
    content = task.file_bytes(half=half, run=run.folder.name, steps=run.step)
    write_file(path, content)
    return {"megabytes": path.stat().st_size / 1e6, "tokens": float(len(task.model.modifier_tokens))}
