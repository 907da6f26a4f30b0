"""References: ADM's npz files, folders of images, and their statistics cached by content."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from genzoo.core.cache_folder import cache_folder
from genzoo.core.checkpoint import tensors_digest
from genzoo.core.errors import DataError
from genzoo.core.files import as_safetensors, write_file
from genzoo.core.leftovers import tidy
from genzoo.core.processes import World
from genzoo.core.reading import shown
from genzoo.core.tensor_files import FAILURES, open_tensors
from genzoo.data.array_files import array_names, read_array
from genzoo.data.picture_sets import ArrayPictures, PictureSet
from genzoo.evaluation.statistics import Gaussian

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)
ALONE = World.single()
ADM_KEYS = {"pool": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}


@dataclass(frozen=True)
class Reference:
    """gaussians, rows: by output.   count: images behind the statistics, if known.

    content_hash: of several folders, that of each.
    """

    content_hash: str | list[str]
    gaussians: Mapping[str, Gaussian]
    rows: Mapping[str, Tensor] = field(default_factory=dict)
    count: int | None = None
    constant: int = 0


def is_adm_reference(path: str | Path) -> bool:
    """Whether a file is an npz with precomputed statistics."""
    path = Path(path).expanduser()
    return path.suffix == ".npz" and path.is_file() and "mu" in array_names(path)


def read_adm_reference(path: str | Path) -> tuple[dict[str, Gaussian], PictureSet | None]:
    """Statistics of the whole set, and the images kept beside them for precision and recall, if any.

    Keys: mu, sigma (2,048), mu_s, sigma_s (2,023), arr_0 uint8 (n, h, w, 3). Raises DataError on misfits.
    """
    path = Path(path).expanduser()
    names, gaussians = array_names(path), {}
    for output, (mean, covariance) in ADM_KEYS.items():
        if mean in names:
            gaussians[output] = Gaussian(*_moments(path, mean, covariance), None, 1)
    if not gaussians:
        raise DataError(f"{shown(path)} holds no statistics (mu, sigma)")
    where = f"{shown(path.name)}: arr_0"
    return gaussians, ArrayPictures(read_array(path), where) if "arr_0" in names else None


def _moments(path: Path, mean: str, covariance: str) -> tuple[Tensor, Tensor]:
    mu, sigma = read_array(path, mean), read_array(path, covariance)
    if mu.dtype.kind != "f" or sigma.dtype.kind != "f" or mu.ndim != 1 or sigma.shape != (len(mu),) * 2:
        found = f"{mean} {mu.dtype} {mu.shape} and {covariance} {sigma.dtype} {sigma.shape}"
        raise DataError(f"{shown(path)}: {found} do not fit")
    return torch.tensor(mu, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64)


def cached_reference(
    key: Mapping[str, Any], make: Callable[[], Reference], world: World = ALONE
) -> Reference:
    """The reference stored under `key` (content hash, network, outputs, ...), or made now and stored.

    A damaged file is made again.   world: the processes that make it together; every one calls this.
    """
    name = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:32]
    path = cache_folder("reference") / f"{name}.safetensors"
    tidy(path.parent)
    found: Reference | None = None
    with contextlib.suppress(*FAILURES):
        found = _load(path)
    # making it is a joint work of all processes: nobody may stay away because its own disk has the file
    if not world.all_agree(found is not None) or found is None:
        found = make()
        try:
            _store(path, found)
        except DataError as error:  # it is made again the next time; nothing else depends on it
            logger.warning("the statistics of the reference are not kept: %s", str(error).replace("\n ", ";"))
    return found


def _store(path: Path, reference: Reference) -> None:
    tensors = {f"rows/{name}": rows.contiguous() for name, rows in reference.rows.items()}
    counts: dict[str, Any] = {}
    for name, gaussian in reference.gaussians.items():
        tensors |= {f"mean/{name}": gaussian.mean, f"covariance/{name}": gaussian.covariance.contiguous()}
        counts[name] = [gaussian.count, gaussian.ddof]
    about = {
        "hash": reference.content_hash,
        "count": reference.count,
        "constant": reference.constant,
        "of": counts,
    }
    about["digest"] = _digest(about, tensors)
    write_file(path, as_safetensors(tensors, {"reference": json.dumps(about)}))


def _load(path: Path) -> Reference:
    """What `_store` wrote. Raises one of FAILURES for anything else."""
    if not path.is_file():
        raise FileNotFoundError(path)
    with open_tensors(path, "the statistics", error=DataError) as file:
        about = json.loads(file.metadata()["reference"])
        tensors = {key: file.get_tensor(key) for key in list(file.keys())}
    if about["digest"] != _digest(about, tensors):
        raise ValueError("it was altered")
    gaussians = {
        name: Gaussian(tensors[f"mean/{name}"], tensors[f"covariance/{name}"], count, ddof)
        for name, (count, ddof) in about["of"].items()
    }
    rows = {key.removeprefix("rows/"): rows for key, rows in tensors.items() if key.startswith("rows/")}
    return Reference(about["hash"], gaussians, rows, about["count"], about["constant"])


def _digest(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """A hash of all that is stored: a flipped bit, or a part never written, would be another number."""
    said = json.dumps({key: value for key, value in about.items() if key != "digest"}, sort_keys=True)
    return hashlib.sha256((said + tensors_digest(tensors)).encode()).hexdigest()
