"""The manifest of a checkpoint folder: sizes and hashes of its files, written last and checked first.

Nothing in the folder is trusted: names are fixed, links refused, sizes compared before anything is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from genzoo.core.errors import CheckpointError, is_out_of_memory
from genzoo.core.files import put_file
from genzoo.core.reading import reason
from genzoo.core.tensor_files import AGAIN, FAILURES, of_disk
from genzoo.core.tensor_stream import Segment

FORMATS = (1, 2)  # the second knows files that several processes filled, hashed piece by piece
PARTS = ("model", "ema", "optimizer")
BLOCK = 1 << 20
MAX_JSON_BYTES = 64 * 1024 * 1024
STEP_FOLDER = re.compile(r"step_(\d{8,})")
FILES = (*[f"{part}.safetensors" for part in PARTS], "state.json")


class CheckpointNotGiven(CheckpointError):
    """The disk does not give a checkpoint just now, which says nothing about what it holds."""


def write_manifest(folder: Path, step: int, digests: Mapping[str, str | Sequence[Segment]]) -> None:
    """Put sizes and hashes of the folder's files, which are complete and synced, into manifest.json.

    digests: sha256 of those that were hashed while they were written, of the whole or of each segment.
    """
    files: dict[str, dict[str, Any]] = {}
    for name in FILES:
        known = digests.get(name) or file_digest(folder / name)
        hashes = {"sha256": known} if isinstance(known, str) else {"segments": [list(one) for one in known]}
        files[name] = {"bytes": (folder / name).stat().st_size} | hashes
    version = FORMATS[any("segments" in record for record in files.values())]
    put_file(folder / "manifest.json", canonical({"format": version, "step": step, "files": files}))


def verify_checkpoint(path: Path, parts: Collection[str] = PARTS) -> int:
    """Check a folder's manifest and the hashes of its files; return the step. Raises CheckpointError.

    parts: those of model, ema, optimizer to check; the state always is.
    """
    manifest = _read_manifest(path)
    for name in (*[f"{part}.safetensors" for part in PARTS if part in parts], "state.json"):
        recorded = manifest["files"][name]
        _require_regular(path, name, recorded["bytes"])
        with read_in(path, name):
            as_recorded = _holds(path / name, recorded)
        if not as_recorded:
            raise corrupt(path, f"{name} does not match its recorded hash")
    return int(manifest["step"])


def read_json(path: Path, name: str) -> dict[str, Any]:
    """A JSON mapping of limited size from a checkpoint folder."""
    with read_in(path, name):
        if (path / name).stat().st_size > MAX_JSON_BYTES:
            raise corrupt(path, f"{name} is larger than {MAX_JSON_BYTES:,} bytes")
        value = json.loads((path / name).read_bytes())
    if not isinstance(value, dict):
        raise corrupt(path, f"{name} is not a mapping")
    return value


def holds_average(path: Path) -> bool:
    """Whether averaged weights can be had of a step; reads no tensor. Raises CheckpointError."""
    if read_json(path, "state.json").get("averaged"):
        return True
    with read_in(path, "ema.safetensors"), safe_open(path / "ema.safetensors", "pt") as file:
        return bool(file.keys())


def weights_digest(path: Path, weights: str) -> str:
    """The hash of the file of the averaged ("ema") or raw weights. Raises CheckpointError."""
    one = weights == "raw" or read_json(path, "state.json").get("averaged")  # stored once, they serve as both
    name = "model.safetensors" if one else "ema.safetensors"
    recorded = _read_manifest(path)["files"][name]
    if "sha256" in recorded:
        return str(recorded["sha256"])
    with read_in(path, name):
        return file_digest(path / name)  # the same however many processes wrote it


def read_tensors(path: Path, part: str) -> dict[str, Tensor]:
    """The tensors of one part, on the CPU."""
    with read_in(path, f"{part}.safetensors"):
        return load_file(path / f"{part}.safetensors")


def corrupt(path: Path, why: str) -> CheckpointError:
    """The one error of an unusable checkpoint."""
    return CheckpointError(
        "the checkpoint is corrupt", where=str(path), why=why, fix="use an older checkpoint"
    )


@contextlib.contextmanager
def read_in(path: Path, name: str) -> Iterator[None]:
    """Turn what reading a file of a step raises into one of two errors: not given by the disk, or corrupt."""
    try:
        yield
    except CheckpointError:
        raise
    except (RecursionError, *FAILURES) as error:
        if is_out_of_memory(error):
            raise
        why = of_disk(path / name, error)
        if why is None:
            raise corrupt(path, f"{name} cannot be read: {reason(error)}") from error
        raise _not_given(path, f"{name}: {why}") from error


def _not_given(path: Path, why: str) -> CheckpointNotGiven:
    return CheckpointNotGiven(
        "the checkpoint cannot be read just now",
        where=str(path),
        why=why,
        fix=f"{AGAIN}; if it never does, move this folder away, and the step before it is used",
    )


def canonical(value: Mapping[str, Any]) -> bytes:
    """JSON of which every byte is determined by the content."""
    return json.dumps(value, sort_keys=True, indent=1).encode()


def file_digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return _digest(file)


def _digest(file: BinaryIO, size: int | None = None) -> str:
    """sha256 of the next `size` bytes, or of all that follow."""
    digest, left = hashlib.sha256(), size
    while left is None or left > 0:
        block = file.read(BLOCK if left is None else min(BLOCK, left))
        if not block:
            break
        digest.update(block)
        left = None if left is None else left - len(block)
    return digest.hexdigest()


def _read_manifest(path: Path) -> dict[str, Any]:
    _require_regular(path, "manifest.json")
    manifest = read_json(path, "manifest.json")
    with read_in(path, "manifest.json"):
        written = (path / "manifest.json").read_bytes()
    # also catches a flip in the manifest that still parses, such as one in a key's letter case
    if written != canonical(manifest):
        raise corrupt(path, "manifest.json was altered")
    version = manifest.get("format")
    if isinstance(version, int) and version > max(FORMATS):
        raise corrupt(path, f"its format {version} is newer than this genzoo's {max(FORMATS)}; update genzoo")
    files = manifest.get("files")
    if version not in FORMATS or not isinstance(files, dict) or set(files) != set(FILES):
        raise corrupt(path, "manifest.json does not describe a checkpoint")
    if not all(_is_record(record) for record in files.values()):
        raise corrupt(path, "manifest.json lacks sizes or hashes")
    match = STEP_FOLDER.fullmatch(path.resolve().name)
    if not isinstance(manifest.get("step"), int) or (match and int(match[1]) != manifest["step"]):
        raise corrupt(path, f"manifest.json belongs to step {manifest.get('step')}")
    return manifest


def _is_record(record: object) -> bool:
    if not isinstance(record, dict) or not isinstance(record.get("bytes"), int):
        return False
    return "sha256" in record or _covers(record.get("segments"), record["bytes"])


def _covers(segments: object, size: int) -> bool:
    """Whether segments follow one another from a file's first byte to its last."""
    if not isinstance(segments, list):
        return False
    end = 0
    for one in segments:
        if not (isinstance(one, list) and [type(value) for value in one] == [int, int, str]):
            return False
        if one[0] != end or one[1] < 1:
            return False
        end += one[1]
    return end == size


def _holds(file: Path, recorded: Mapping[str, Any]) -> bool:
    """Whether a file's bytes have the recorded hash, or hashes."""
    if "sha256" in recorded:
        return file_digest(file) == str(recorded["sha256"])
    with file.open("rb") as opened:
        return all(_digest(opened, size) == digest for _, size, digest in recorded["segments"])


def _require_regular(path: Path, name: str, size: int | None = None) -> None:
    try:
        found = os.lstat(path / name)
    except FileNotFoundError as error:
        raise corrupt(path, f"{name} is missing") from error
    except OSError as error:
        raise _not_given(path, f"{name}: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise corrupt(path, f"{name} is not a regular file")
    if size is not None and found.st_size != size:
        raise corrupt(path, f"{name} has {found.st_size:,} bytes instead of {size:,}")
