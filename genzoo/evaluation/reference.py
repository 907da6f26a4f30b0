"""References: ADM's npz files, folders of images, and their statistics cached by content."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from genzoo.core.cache_folder import cache_folder
from genzoo.core.errors import DataError, UsageError
from genzoo.core.files import as_safetensors, write_file
from genzoo.evaluation.extraction import all_agree
from genzoo.evaluation.image_sources import ArrayImages, ImageSet
from genzoo.evaluation.statistics import Gaussian

if TYPE_CHECKING:
    from torch import Tensor

ADM_KEYS = {"pool": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}


@dataclass(frozen=True)
class Reference:
    """gaussians, rows: by output.   count: images behind the statistics, if known."""

    content_hash: str
    gaussians: Mapping[str, Gaussian]
    rows: Mapping[str, Tensor] = field(default_factory=dict)
    count: int | None = None
    constant: int = 0


def is_adm_reference(path: str | Path) -> bool:
    """Whether a file is an npz with precomputed statistics."""
    path = Path(path)
    if path.suffix != ".npz" or not path.is_file():
        return False
    try:
        with np.load(path, allow_pickle=False) as content:
            return "mu" in content.files
    except (OSError, ValueError):
        return False


def read_adm_reference(path: str | Path) -> tuple[dict[str, Gaussian], ImageSet | None]:
    """Statistics of the whole set, and the images kept beside them for precision and recall, if any.

    Keys: mu, sigma (2,048), mu_s, sigma_s (2,023), arr_0 uint8 (n, h, w, 3). Raises DataError on misfits.
    """
    with np.load(path, allow_pickle=False) as content:
        gaussians = {}
        for output, (mean, covariance) in ADM_KEYS.items():
            if mean not in content.files:
                continue
            mu, sigma = (torch.from_numpy(content[key]).double() for key in (mean, covariance))
            if mu.dim() != 1 or sigma.shape != (len(mu), len(mu)):
                raise DataError(
                    f"{path}: {mean} {tuple(mu.shape)} and {covariance} {tuple(sigma.shape)} do not fit"
                )
            gaussians[output] = Gaussian(mu, sigma, None, 1)
        images = ArrayImages(content["arr_0"], Path(path).name) if "arr_0" in content.files else None
    if not gaussians:
        raise DataError(f"{path} holds no statistics (mu, sigma)")
    return gaussians, images


def write_adm_reference(
    path: str | Path,
    pool: Gaussian,
    spatial: Gaussian | None = None,
    images: np.ndarray[Any, Any] | None = None,
) -> Path:
    """A file that ADM's own evaluator reads: statistics in float64, images uint8 (n, h, w, 3) as arr_0."""
    arrays: dict[str, np.ndarray[Any, Any]] = {"mu": pool.mean.numpy(), "sigma": pool.covariance.numpy()}
    if spatial is not None:
        arrays |= {"mu_s": spatial.mean.numpy(), "sigma_s": spatial.covariance.numpy()}
    if images is not None:
        arrays["arr_0"] = ArrayImages(images).array
    if Path(path).suffix != ".npz":
        raise UsageError(f"{path} is no name that ADM's evaluator reads", fix="name it .npz")
    return write_file(path, lambda part: np.savez(part, **arrays))  # type: ignore[arg-type]


def cached_reference(key: Mapping[str, Any], make: Callable[[], Reference]) -> Reference:
    """The reference stored under `key` (content hash, network, outputs, ...), or made now and stored.

    A damaged file is made again. The file is complete or absent: it is renamed into place.
    """
    name = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:32]
    path = cache_folder("reference") / f"{name}.safetensors"
    found: Reference | None = None
    with contextlib.suppress(FileNotFoundError, SafetensorError, KeyError, ValueError):
        found = _load(path)
    # making it is a joint work of all processes: nobody may stay away because its own disk has the file
    if not all_agree(found is not None) or found is None:
        found = make()
        _store(path, found)
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
    write_file(path, as_safetensors(tensors, {"reference": json.dumps(about)}))


def _load(path: Path) -> Reference:
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["reference"])
        gaussians = {
            name: Gaussian(
                file.get_tensor(f"mean/{name}"), file.get_tensor(f"covariance/{name}"), count, ddof
            )
            for name, (count, ddof) in about["of"].items()
        }
        names = [key for key in list(file.keys()) if key.startswith("rows/")]
        rows = {key.removeprefix("rows/"): file.get_tensor(key) for key in names}
    return Reference(about["hash"], gaussians, rows, about["count"], about["constant"])
