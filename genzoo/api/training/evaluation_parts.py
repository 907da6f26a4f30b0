"""Samples of an evaluation in progress, kept block by block, so that the next start goes on from there.

evaluation/parts_00001000/about.json                what they are samples of
evaluation/parts_00001000/block_000032.safetensors  the samples from number 32 on
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genzoo.core.errors import DataError
from genzoo.core.files import as_safetensors, disk_errors, write_file, write_json
from genzoo.core.reading import read_record
from genzoo.core.tensor_files import read_tensors

if TYPE_CHECKING:
    from torch import Tensor

ABOUT = "about.json"


class EvaluationParts:
    """The blocks of one step. Only the process that holds the folder's lock calls it."""

    def __init__(self, run: Path, step: int) -> None:
        self.folder = run / "evaluation" / f"parts_{step:08d}"

    def begin(self, about: Mapping[str, Any]) -> None:
        """Keep what is there when it was made of the same; else begin with nothing.

        about: everything that the samples depend on.
        """
        plain = json.loads(json.dumps(about, default=str))
        if read_record(self.folder / ABOUT) != plain:
            self.end()
            write_json(self.folder / ABOUT, plain)

    def read(self, block: range) -> Tensor | None:
        """The samples of a block, (b, c, h, w) or (b, f, c, h, w) uint8; None when they have to be drawn."""
        try:
            pixels = read_tensors(self._file(block), "samples", error=DataError)["pixels"]
        except (DataError, KeyError):
            return None
        return pixels if len(pixels) == len(block) else None

    def write(self, block: range, pixels: Tensor) -> None:
        """Keep a block. pixels: uint8."""
        # not synced: a block that the power took is drawn again
        write_file(self._file(block), as_safetensors({"pixels": pixels}), sync=False)

    def end(self) -> None:
        """Forget all blocks."""
        with disk_errors(self.folder, "samples of an evaluation cannot be removed"):
            if self.folder.exists():
                shutil.rmtree(self.folder)

    def _file(self, block: range) -> Path:
        return self.folder / f"block_{block.start:06d}.safetensors"
