"""The files of a run that go to a hub, in a folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from genzoo.api.pipelines.files import has_pipeline
from genzoo.api.publishing.portable import portable
from genzoo.api.runs.carried import PLACE
from genzoo.api.runs.conversion import export
from genzoo.core.contracts import able
from genzoo.core.contracts.tasks import ExportsForClients, ExportsPart
from genzoo.core.exported import COMPONENT, CONFIG
from genzoo.core.files import put_file
from genzoo.core.reading import read_json

if TYPE_CHECKING:
    from genzoo.api.runs.run_data import RunData, Weights
    from genzoo.core.types import Task

PICTURES = ("grid.png", "grid.gif", "grid.mp4")
MAX_PICTURES = 4
SHOWN_BYTES = 20 * 1024**2


class Content(NamedTuple):
    """What was written. kind: "pipeline", "concept", "diffusers" or "weights".   samples: names of pictures,
    newest first.   how: lines on the use of a concept's files."""

    kind: str
    samples: list[str]
    how: list[str]


def fill(run: RunData, folder: Path, *, weights: Weights | None = None, half: bool = False) -> Content:
    """Write weights, recipe and samples of a run into an empty folder. Raises UsageError, WeightsError."""
    task = run.task(weights=weights, device="cpu")
    kind, how = _write_weights(run, task, folder, weights, half)
    codec = read_json(folder / COMPONENT / CONFIG)["recipe"].get("codec") if kind == "pipeline" else None
    put_file(folder / "recipe.yaml", portable(run.recipe, _at(codec)).to_yaml())
    return Content(kind, _copy_samples(run.folder, folder), how)


def _write_weights(
    run: RunData, task: Task, folder: Path, weights: Weights | None, half: bool
) -> tuple[str, list[str]]:
    if has_pipeline(run):
        from genzoo.api.pipelines.write import export_pipeline

        export_pipeline(run, folder, weights=weights, half=half)
        return "pipeline", []
    part, for_clients = able(task, ExportsPart), able(task, ExportsForClients)
    notes: dict[str, Any] = {"run": run.recipe.name, "steps": run.step}
    if part is not None and for_clients is not None:
        # where the base lies here is nobody else's business
        part.export(folder / "concept.safetensors", layout=None, half=half, base_path=None, **notes)
        return "concept", for_clients.export_for(folder / "diffusers", client="diffusers")[1]
    if part is not None:
        part.export(folder, layout="diffusers", half=half, **notes)
        return "diffusers", []
    export(run, folder / "model.safetensors", weights=weights, half=half)
    return "weights", []


def _at(codec: Any) -> dict[str, Any] | None:
    """A codec's section with places beside the model as places beside the recipe."""
    if not isinstance(codec, dict):
        return None
    return {
        key: f"{COMPONENT}/{value}" if isinstance(value, str) and value.split("/")[0] == PLACE else value
        for key, value in codec.items()
    }


def _copy_samples(source: Path, folder: Path) -> list[str]:
    """Overviews of the newest samples, of previews too."""
    found = [path for name in PICTURES for path in (source / "samples").glob(f"*/{name}")]
    fitting = [path for path in found if path.is_file() and path.stat().st_size <= SHOWN_BYTES]
    names: list[str] = []
    for path in sorted(fitting, key=lambda path: path.stat().st_mtime, reverse=True)[:MAX_PICTURES]:
        name = f"samples/{len(names):02}{path.suffix}"
        (folder / "samples").mkdir(exist_ok=True)
        put_file(folder / name, lambda part, path=path: shutil.copyfile(path, part))  # type: ignore[misc]
        names.append(name)
    return names
