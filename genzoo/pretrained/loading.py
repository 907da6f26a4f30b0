"""The one module that reads weight files from elsewhere. Nothing in a file runs; every failure is a
CheckpointError.

safetensors is recognised by content, whatever the file is called; everything else is read by torch's
restricted unpickler, which builds tensors and plain containers only. Both are bounded by the file's own size.
"""

from __future__ import annotations

import argparse
import pickle
import struct
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from genzoo.core.errors import CheckpointError, WeightsError
from genzoo.core.tensor_files import AGAIN, of_disk
from genzoo.pretrained.fitting import check_against, spec_of
from genzoo.pretrained.plain_trees import Budget, Tree, plain_tree
from genzoo.pretrained.state_dicts import find_part, unwrapped

# Training scripts pickle their command line beside the weights; a Namespace is a plain record.
ALLOWED_CLASSES: tuple[type, ...] = (argparse.Namespace,)
# what a pickle may hold beyond the bytes of its file: rounding and alignment of storages
SLACK_BYTES = 1 << 20

Result = TypeVar("Result")
Module = TypeVar("Module", bound=torch.nn.Module)


def load_foreign(path: str | Path) -> Tree:
    """Read a weights file as a tree of dicts with string keys; leaves are tensors (on the CPU), numbers and
    strings.

    A safetensors file gives a flat dict of tensors, a torch file what its author saved; a Namespace becomes
    a dict. Raises WeightsError if the file is missing, CheckpointError if it is damaged, hostile, or holds
    anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"there is no weights file {path.name!r}", where=str(path), fix="check the path")
    if _guarded(path, lambda: _is_safetensors(path)):
        return dict(_guarded(path, lambda: _read_safetensors(path)))
    _check_archive(path)
    tree = _guarded(path, lambda: _read_pickle(path))
    if not isinstance(tree, Mapping):
        raise CheckpointError(
            f"{path.name} holds a {type(tree).__name__}, not a dict of weights", where=str(path)
        )
    plain = _guarded(path, lambda: plain_tree(tree, Budget(path.stat().st_size + SLACK_BYTES), 0))
    return dict(plain)


def load_state(
    path: str | Path,
    expected: Collection[str] = (),
    *,
    prefer: Sequence[str] = ("ema", "model", "state_dict"),
) -> dict[str, Tensor]:
    """The flat dict of weights in a file, wherever it lies and whatever wrappers left in its names.

    expected: names that most of the weights have. Where nothing has them: the file itself, or the first of
    `prefer` that it holds.
    """
    tree = load_foreign(path)
    part = find_part(tree, expected, share=0.5) if expected else None
    if part is not None:
        return part.weights
    found = next((tree[name] for name in prefer if isinstance(tree.get(name), dict)), tree)
    others = [key for key, value in found.items() if not isinstance(value, Tensor)]
    if others or not found:
        seen = f"it holds {', '.join(map(repr, others[:5]))}" if others else "it is empty"
        raise CheckpointError(f"{Path(path).name} is not a dict of tensors", where=str(path), why=seen)
    return unwrapped(found)


def load_module(
    module: Module, path: Path, *, ignore: Sequence[str] = (), state: Mapping[str, Tensor] | None = None
) -> Module:
    """Fill a module from a file that fits it, for use without gradients.

    ignore: as for `check_against`.   state: what the file holds, if it was read already.
    """
    found = load_state(path, module.state_dict()) if state is None else state
    module.load_state_dict(check_against(spec_of(module), found, source=path.name, ignore=ignore))
    return module.requires_grad_(False).eval()


def _is_safetensors(path: Path) -> bool:
    """Eight bytes of header length, then JSON: no zip archive or pickle begins like this."""
    with path.open("rb") as file:
        head = file.read(9)
    plausible = len(head) == 9 and struct.unpack("<Q", head[:8])[0] <= path.stat().st_size
    return path.suffix == ".safetensors" or (plausible and head[8:9] == b"{")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file  # what it raises is told by _guarded

    return load_file(path)


def _check_archive(path: Path) -> None:
    """Refuse archives that grow when read: torch stores tensors uncompressed."""
    # where torch looks, too: an archive that only one of two readers recognises is no weights file
    if not _guarded(path, lambda: _begins_with(path, b"PK\x03\x04")):
        return
    entries = _guarded(path, lambda: zipfile.ZipFile(path).infolist())
    total = sum(entry.file_size for entry in entries)
    if total > path.stat().st_size:
        raise CheckpointError(
            f"{path.name} is a compressed archive, which torch.save never writes",
            where=str(path),
            why=f"{len(entries)} entries of {total} bytes in a file of {path.stat().st_size}",
        )


def _begins_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _read_pickle(path: Path) -> Any:
    with torch.serialization.safe_globals(list(ALLOWED_CLASSES)):
        return torch.load(path, map_location="cpu", weights_only=True)


def _guarded(path: Path, read: Callable[[], Result]) -> Result:
    """Damaged files make readers raise almost anything; callers see one type of error."""
    try:
        return read()
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path.name} wants to run code or build objects that are not weights",
            where=str(path),
            why=", ".join(blockers(path)) or _first_line(error),
            fix="convert it to safetensors where you trust it, or get the weights from another source",
        ) from error
    except Exception as error:
        why = of_disk(path, error)
        if why is not None:
            raise WeightsError(
                f"{path.name} cannot be read just now", where=str(path), why=why, fix=AGAIN
            ) from error
        raise CheckpointError(
            f"{path.name} is damaged or not a weights file",
            where=str(path),
            why=f"{type(error).__name__}: {_first_line(error)}",
            fix="fetch the file again",
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:200]


def blockers(path: str | Path) -> list[str]:
    """Names of the classes and functions that keep a torch file from being loaded; nothing is run."""
    try:
        with torch.serialization.safe_globals(list(ALLOWED_CLASSES)):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:
        # only a help for the message: older formats cannot be searched, and the file may be damaged as well
        return []
