"""A run's way to a hub, or into a folder that is just what would be there."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from genzoo import __version__
from genzoo.api.publishing.card import card
from genzoo.api.publishing.content import fill
from genzoo.api.publishing.licences import require_licence
from genzoo.core.files import put_file, write_folder
from genzoo.core.progress import doing
from genzoo.pretrained.hub import sent
from genzoo.pretrained.hub_runs import repository_of

if TYPE_CHECKING:
    from genzoo.api.runs.run_data import RunData, Weights


@dataclass(frozen=True)
class Pushed:
    """where: an address, or a folder.   files: their sizes in bytes by name."""

    where: str
    files: dict[str, int]


def write_repository(
    run: RunData,
    folder: str | Path,
    repository: str,
    *,
    licence: str = "unknown",
    weights: Weights | None = None,
    half: bool = False,
) -> Pushed:
    """Write what `push` would put into a repository into a new folder, and ask nobody. Raises UsageError."""
    repository_of(repository)
    require_licence(licence)

    def write(target: Path) -> None:
        content = fill(run, target, weights=weights, half=half)
        task = run.task(weights=weights, device="cpu")
        put_file(target / "README.md", card(run, task, content, repository=repository, licence=licence))

    with doing(f"writing {folder}"):
        written = write_folder(folder, write)
    return Pushed(str(written), _sizes(written))


def push(
    run: RunData,
    repository: str,
    *,
    private: bool = False,
    licence: str = "unknown",
    weights: Weights | None = None,
    half: bool = False,
) -> Pushed:
    """Put a run or a concept into "user/repo" of the hub; a repository that is there gets another commit.

    The token is the one of `hf auth login` or HF_TOKEN; it is neither shown nor stored. Raises UsageError,
    WeightsError.
    """
    name = repository_of(repository)
    with tempfile.TemporaryDirectory(prefix="genzoo-push-") as place:
        folder = Path(place, "repository")
        written = write_repository(run, folder, name, licence=licence, weights=weights, half=half)
        with doing(f"sending {sum(written.files.values()):,} bytes to {name}"):
            message = f"genzoo {__version__}: {run.recipe.name}, step {run.step}"
            where = sent(name, folder, message=message, private=private)
    return Pushed(where, written.files)


def _sizes(folder: Path) -> dict[str, int]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
