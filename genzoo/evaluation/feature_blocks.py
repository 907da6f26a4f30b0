"""Features of an unfinished evaluation, by blocks of pictures: a second call goes on where one was stopped.

Each block of 1,024 pictures is a file, known by its pictures' content, the network and the outputs. When
the whole set is done they are removed: what is needed of a reference is remembered elsewhere, and smaller.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.core.cache_folder import cache_folder
from genzoo.core.checkpoint import tensors_digest
from genzoo.core.errors import DataError
from genzoo.core.files import as_safetensors, write_file
from genzoo.core.tensor_files import FAILURES, open_tensors
from genzoo.evaluation.batches import batches

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from genzoo.data.picture_sets import PictureSet
    from genzoo.evaluation.features import FeatureNetwork

logger = logging.getLogger(__name__)
BLOCK = 1024
FORMAT = 1  # of these files, and of the reader


@dataclass(frozen=True)
class Stored:
    """A block that was done before, in the place of its pictures.   outputs: (b, d) each."""

    outputs: Mapping[str, Tensor]
    is_cuda: bool = False

    def __len__(self) -> int:
        return len(next(iter(self.outputs.values())))


class FeatureBlocks:
    """The features of one set by one network, as far as they are done.   outputs: those that are kept.

    Where nothing can be written, one warning says so, and the work goes on without.
    """

    def __init__(self, pictures: PictureSet, network: FeatureNetwork, outputs: Iterable[str]) -> None:
        self.pictures, self.network, self.outputs = pictures, network, sorted(outputs)
        self._noted: list[Mapping[str, Tensor]] = []
        self._written: list[Path] = []
        self._usable = True

    def watched(self, device: str | torch.device) -> FeatureNetwork:
        """The network, which takes stored blocks as they are and notes what it computes of others."""
        compute = self.network.extract

        def extract(batch: Any) -> Mapping[str, Tensor]:
            if isinstance(batch, Stored):
                return {name: rows.to(device) for name, rows in batch.outputs.items()}
            outputs = compute(batch)
            self._noted.append({name: outputs[name].cpu() for name in self.outputs if name in outputs})
            return outputs

        return replace(self.network, extract=extract)

    def batches(
        self, part: Sequence[int], *, batch_size: int, workers: int
    ) -> Iterator[tuple[Any, list[int]]]:
        """As `batches`, with a stored block in the place of its batches. To be read to its end."""
        for first in range(0, len(part), BLOCK):
            block = part[first : first + BLOCK]
            path = self._path(block)
            found = self._load(path)
            if found is not None:
                self._written.append(path)
                yield found
                continue
            self._noted, constant = [], []
            for batch, seen in batches(
                self.pictures,
                batch_size=batch_size,
                indices=block,
                prepare=self.network.prepare,
                workers=workers,
            ):
                constant += seen
                yield batch, seen
            self._save(path, constant)

    def clear(self) -> None:
        """Remove the files of this set, which is done."""
        for path in self._written:
            path.unlink(missing_ok=True)

    def _path(self, block: Sequence[int]) -> Path:
        about = {"format": FORMAT, "outputs": self.outputs, **self.network.describe()}
        digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
        for index in block:
            digest.update(self.pictures.content(index))
        return cache_folder("features") / f"{digest.hexdigest()[:32]}.safetensors"

    def _load(self, path: Path) -> tuple[Stored, list[int]] | None:
        """A block, unless it is absent or damaged."""
        if not path.is_file():
            return None
        try:
            with open_tensors(path, "features", error=DataError) as file:
                about = json.loads(file.metadata()["features"])
                outputs = {name: file.get_tensor(name) for name in list(file.keys())}
            if about["digest"] != tensors_digest(outputs):
                return None
            return Stored(outputs), [int(index) for index in about["constant"]]
        except (TypeError, *FAILURES):
            return None

    def _save(self, path: Path, constant: list[int]) -> None:
        if not self._usable or not self._noted:
            return
        names = self._noted[0].keys()
        outputs = {name: _joined([one[name] for one in self._noted]) for name in names}
        about = json.dumps({"constant": constant, "digest": tensors_digest(outputs)})
        try:
            write_file(path, as_safetensors(outputs, {"features": about}), sync=False)
            self._written.append(path)
        except (DataError, OSError) as error:
            self._usable = False
            said = str(error).replace("\n ", ";")
            logger.warning("features are not kept: an evaluation that is stopped begins anew: %s", said)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.cat(list(parts)).contiguous()
