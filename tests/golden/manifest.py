"""Golden tensors by manifest. GENZOO_GOLDEN names another folder of sets in the same format."""

from __future__ import annotations

import json
import lzma
import os
from pathlib import Path
from typing import Any

from safetensors.torch import load, load_file
from torch import Tensor


def golden_root() -> Path:
    """The folder that holds one sub-folder per set."""
    return Path(os.environ.get("GENZOO_GOLDEN") or Path(__file__).parent)


def golden_cases(set_name: str, file_key: str) -> list[dict[str, Any]]:
    """The manifest's cases of one file of a set, in its order; none only where another folder lacks it."""
    path = golden_root() / set_name / "manifest.json"
    elsewhere = bool(os.environ.get("GENZOO_GOLDEN"))
    if elsewhere and not path.exists():
        return []
    manifest = json.loads(path.read_text())
    if elsewhere and file_key not in manifest["files"]:
        return []
    cases = manifest["files"][file_key]["cases"]
    assert cases, f"{set_name}: the manifest lists no case under {file_key!r}"
    return cases


def read_golden(path: Path) -> dict[str, Tensor]:
    """The tensors of a file; of FILE.xz, losslessly packed, where they would be large."""
    packed = path.with_name(f"{path.name}.xz")
    return load(lzma.decompress(packed.read_bytes())) if packed.is_file() else load_file(path)


def golden_tensors(set_name: str, file_key: str, case_name: str) -> dict[str, Tensor]:
    """The tensors of one case, by their key within it."""
    folder = golden_root() / set_name
    manifest = json.loads((folder / "manifest.json").read_text())
    tensors = read_golden(folder / manifest["files"][file_key]["file"])
    prefix = f"{case_name}/"
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
