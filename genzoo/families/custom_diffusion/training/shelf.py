"""A folder that keeps what a run computed once, for later runs; an entry is a file named by its key."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from genzoo.core import files
from genzoo.core.claims import claim_folder
from genzoo.core.shapes_alone import shapes_do
from genzoo.core.tensor_files import read_tensors

MARK = "concept_cache.json"


class Shelf:
    """Tensors by a key; what is in the folder already is never written again."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()

    def get(self, key: str) -> dict[str, Tensor] | None:
        """What was put under this key, by whichever run."""
        path = self._place(key)
        return read_tensors(path) if path.is_file() else None

    def put(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Keep tensors; a dry run leaves nothing. Raises UsageError for a folder that holds anything else."""
        if shapes_do():
            return
        if not (self.folder / MARK).is_file():
            claim_folder(self.folder, what="a cache of concept training")
            self.folder.mkdir(parents=True, exist_ok=True)
            files.write_json(self.folder / MARK, {"holds": "features of texts, moments of pictures"})
        files.write_file(self._place(key), files.as_safetensors(tensors, {}), sync=False)

    def _place(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.safetensors"


def content(tensor: Tensor) -> str:
    """A name of a tensor's values."""
    flat = tensor.detach().cpu().contiguous().view(torch.uint8) if tensor.ndim else tensor[None].cpu()
    return hashlib.sha256(f"{tuple(tensor.shape)}".encode() + flat.numpy().tobytes()).hexdigest()
