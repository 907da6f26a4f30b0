"""Files by local path or by hub id. Without a network, the error says what to fetch and where to put it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from genzoo.core.errors import UsageError, WeightsError
from genzoo.pretrained.shipped import is_shipped, shipped


def located(path_or_id: str | Path) -> str:
    """A folder's path or a hub id as other libraries take them; "assets:NAME" is one of genzoo's own."""
    return str(shipped(path_or_id)) if is_shipped(path_or_id) else str(path_or_id)


def resolve(
    path_or_id: str | Path, filename: str, *, subfolder: str | None = None, revision: str | None = None
) -> Path:
    """A local path of one file of a model folder, downloaded to the hub's cache if need be.

    path_or_id: a folder, a hub id such as "stabilityai/sd-vae-ft-ema", or "assets:NAME" for weights that ship
    with genzoo.   filename, subfolder: relative names. Raises WeightsError naming the file.
    """
    inside = _relative(filename, subfolder)
    path_or_id = located(path_or_id)
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        if not (folder / inside).is_file():
            raise WeightsError(
                f"the folder has no {inside}", where=str(folder), fix=f"put the file at {folder / inside}"
            )
        return folder / inside
    if not is_hub_id(path_or_id):
        raise WeightsError(
            f"there is no folder {str(path_or_id)!r}",
            fix="pass a folder that exists, or a hub id such as owner/name",
        )
    return _download(str(path_or_id), inside, revision)


def is_hub_id(path_or_id: str | Path) -> bool:
    """Whether a string can be a hub id ("owner/name", or a bare name) and not only a path."""
    text = str(path_or_id)
    parts = text.split("/")
    return 1 <= len(parts) <= 2 and all(part.strip(".~") for part in parts) and "\\" not in text


def _relative(filename: str, subfolder: str | None) -> PurePosixPath:
    inside = PurePosixPath(subfolder or "", filename)
    if inside.is_absolute() or ".." in inside.parts:
        raise UsageError(
            f"{str(inside)!r} leaves the model's folder", fix="use a name inside it, such as 'vae'"
        )
    return inside


def _download(repo_id: str, inside: PurePosixPath, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        return Path(hf_hub_download(repo_id, str(inside), revision=revision))
    except (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        OSError,
    ) as error:
        name = repo_id.rpartition("/")[2]
        raise WeightsError(
            f"cannot fetch {inside} of {repo_id}",
            where=f"https://huggingface.co/{repo_id}/blob/{revision or 'main'}/{inside}",
            why=f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0][:160]}",
            fix=f"where there is a network: hf download {repo_id} {inside} --local-dir {name}; "
            f"then give that folder's path in place of {repo_id!r}",
        ) from error
