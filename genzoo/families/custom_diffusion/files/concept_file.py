"""The end of a training: what was taught, as a file of its own beside the checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from genzoo.core.errors import WeightsError
from genzoo.core.files import write_file
from genzoo.families.custom_diffusion.files.write_layouts import OWN_FOLDER_FILE

if TYPE_CHECKING:
    from genzoo.core.types import MeasuredRun


def concept_file(run: MeasuredRun, *, half: bool = False, clients: Sequence[str] = ()) -> dict[str, float]:
    """Write RUN/concept.safetensors, in place of an older one; its size is the result.

    half: store 16-bit numbers.   clients: of `clients.CLIENTS`; each one's files go to RUN/clients/NAME, and
    where they belong and what to type to RUN/clients/clients.txt.
    """
    task: Any = run.task()
    path = run.folder / OWN_FOLDER_FILE
    content = task.file_bytes(half=half, run=run.folder.name, steps=run.step)
    write_file(path, content)
    if clients:
        _write_for(run, task, clients)
    return {"megabytes": path.stat().st_size / 1e6, "tokens": float(len(task.model.modifier_tokens))}


def _write_for(run: MeasuredRun, task: Any, clients: Sequence[str]) -> None:
    told = []
    for client in clients:
        folder = run.folder / "clients" / client
        try:
            _, lines = task.export_for(folder, client=client, stem=run.folder.name, replace=True)
        except WeightsError as error:  # such as InvokeAI, which refuses bases of another width
            lines = [f"not written: {error.what}"]
        told += [f"{client}:", *(f"  {line}" for line in lines)]
    write_file(run.folder / "clients" / "clients.txt", "\n".join(told) + "\n")
